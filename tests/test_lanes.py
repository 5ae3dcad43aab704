"""Lanes: each gets the same share of what is taken, and keeps its own order."""

from __future__ import annotations

import random

from tenantbase.lanes import Lanes


def lanes_of(**items: list[int]) -> Lanes[tuple[str, int]]:
    lanes = Lanes[tuple[str, int]]()
    for name, numbers in items.items():
        for number in numbers:
            lanes.append(name, (name, number))
    return lanes


def test_one_lane_is_a_queue() -> None:
    lanes = lanes_of(a=[1, 2, 3])
    assert lanes.next() == ("a", 1)
    assert [lanes.take(cost)[1] for cost in (5, 1, 9)] == [1, 2, 3]
    assert not lanes


def test_lanes_take_turns() -> None:
    lanes = lanes_of(a=[1, 2, 3, 4], b=[1], c=[1, 2])
    taken = "".join(lanes.take()[0] for _ in range(7))
    assert taken == "abcacaa"
    assert not lanes


def test_shares_are_equal_by_cost_in_the_long_run() -> None:
    costs = random.Random(1)
    lanes = lanes_of(a=[1] * 2_000, b=[10] * 2_000, c=[costs.randrange(1, 20)] * 2_000)
    given = dict.fromkeys("abc", 0)
    for _ in range(1_000):
        name, cost = lanes.next()
        lanes.take(cost)
        given[name] += cost
    assert max(given.values()) - min(given.values()) <= 40, given


def test_a_lane_gets_no_credit_for_the_time_before() -> None:
    lanes = lanes_of(a=[1] * 100, b=[1] * 100)
    for _ in range(50):
        lanes.take()
    for _ in range(100):
        lanes.append("late", ("late", 1))
    first = [lanes.take()[0] for _ in range(30)]
    assert first.count("late") in (10, 11) and first[0] == "late"


def test_a_lane_that_was_alone_owes_nothing() -> None:
    lanes = lanes_of(a=[1] * 100)
    for _ in range(50):
        lanes.take(1_000)
    lanes.append("b", ("b", 1))
    lanes.append("b", ("b", 2))
    assert [lanes.take()[0] for _ in range(4)] == ["a", "b", "a", "b"]


def test_all_at_once() -> None:
    lanes = lanes_of(a=[1, 2], b=[3])
    lanes.append("a", ("a", 4))
    assert [number for _, number in lanes.take_all()] == [1, 2, 4, 3]
    assert not lanes and lanes.held("a") == (0, 0)
    lanes.append("b", ("b", 5))
    assert lanes.take() == ("b", 5)


def test_what_a_lane_holds() -> None:
    lanes = Lanes[int]()
    for weight in (3, 4):
        lanes.append("a", weight, weight)
    lanes.append("b", 5, 5)
    assert (lanes.held("a"), lanes.held("b"), lanes.held("c")) == ((2, 7), (1, 5), (0, 0))
    assert lanes.counts() == {"a": 2, "b": 1}
    lanes.take(1, lanes.next())
    assert lanes.held("a") == (1, 4)
