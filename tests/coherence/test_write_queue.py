"""The order of waiting writes: small ones are fast, large ones do not starve, both are bounded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from tenantbase.coherence.pending import PendingWrite
from tenantbase.coherence.write_queue import (
    GROUP_BYTES,
    GROUP_ROWS,
    GROUP_WRITES,
    LARGE_BYTES,
    LARGE_ROWS,
    QUEUE_BYTES,
    WriteQueue,
)
from tenantbase.commands import Delete, DeletePrefix, Set, Sweep
from tenantbase.entry import JSON


class Waiting(NamedTuple):
    """A waiting write, with the attributes that the queue uses."""

    rows: int
    bytes: int
    large: bool = False
    lane: str = ""


SMALL = Waiting(1, 100)
LARGE = Waiting(LARGE_ROWS + 1, 100, True)


def queue_of(*writes: Waiting) -> WriteQueue[Waiting, int]:
    queue = WriteQueue[Waiting, int](10_000)
    for number, write in enumerate(writes):
        queue.append((write, number))
    return queue


def groups(queue: WriteQueue[Waiting, int]) -> list[list[int]]:
    taken = []
    while queue:
        taken.append([receiver for _, receiver in queue.take()])
    assert queue.bytes == 0
    return taken


@pytest.mark.parametrize(
    ("each", "count"),
    [
        (SMALL, GROUP_WRITES),
        (Waiting(GROUP_ROWS // 4, 1), 4),
        (Waiting((GROUP_ROWS + 1) // 5, 1), 4),
        (Waiting(1, GROUP_BYTES // 8), 8),
    ],
)
def test_a_group_is_bounded_in_writes_rows_and_bytes(each: Waiting, count: int) -> None:
    assert [len(group) for group in groups(queue_of(*[each] * (3 * count)))] == [count] * 3


def test_small_ones_keep_their_order() -> None:
    writes = [Waiting(1, random.Random(1).randrange(LARGE_BYTES)) for _ in range(100)]
    assert sum(groups(queue_of(*writes)), []) == list(range(100))


def test_a_large_one_is_a_group_of_its_own_and_goes_after_the_small_ones() -> None:
    assert groups(queue_of(LARGE, SMALL, LARGE, SMALL)) == [[1, 3], [0], [2]]


def test_each_small_one_waits_for_one_large_one_and_each_large_one_gets_its_turn() -> None:
    queue = queue_of(*[LARGE] * 50)
    number = 50
    large_before: dict[int, int] = {}  # the number of large groups when it arrived
    taken_large = 0
    since_large = 0
    while taken_large < 50:
        for _ in range(100):  # adds more than a third of a group's writes for each group taken
            large_before[number] = taken_large
            queue.append((SMALL, number))
            number += 1
        group = [receiver for _, receiver in queue.take()]
        if group[0] < 50:
            taken_large += 1
            since_large = 0
        else:
            since_large += 1
            assert since_large <= 3, "a large one was passed over for what came after"
            for each in group:
                assert taken_large - large_before.pop(each) <= 1


@pytest.mark.parametrize(
    ("changes", "large"),
    [
        ([Set("k", bytes(1 << 20), JSON)], False),
        ([Set("k", bytes(3 << 20), JSON)], True),
        ([Delete(f"{number}") for number in range(LARGE_ROWS)], False),
        ([Delete(f"{number}") for number in range(LARGE_ROWS + 1)], True),
        ([DeletePrefix("")], True),
        ([Sweep(500)], False),
    ],
)
def test_which_writes_are_large(
    changes: Sequence[Set | Delete | DeletePrefix | Sweep], large: bool
) -> None:
    assert PendingWrite(tuple(changes)).large == large


def lane_queue(writes: int = 10_000, **waiting: list[Waiting]) -> WriteQueue[Waiting, str]:
    """A queue in which the lanes have these writes, those of the first lane first."""
    queue = WriteQueue[Waiting, str](writes)
    for lane, given in waiting.items():
        for write in given:
            queue.append((write._replace(lane=lane), lane))
    return queue


def test_lanes_share_a_group() -> None:
    queue = lane_queue(flood=[SMALL] * 5_000, quiet=[SMALL] * 100, other=[SMALL] * 1_000)
    group = [lane for _, lane in queue.take()]
    assert len(group) == GROUP_WRITES
    assert {lane: group.count(lane) for lane in set(group)} == {
        "flood": 86,
        "quiet": 85,
        "other": 85,
    }


def test_a_lane_that_comes_late_is_served_next() -> None:
    queue = lane_queue(flood=[SMALL] * 5_000)
    for _ in range(3):
        queue.take()
    for number in range(10):
        queue.append((SMALL._replace(lane="quiet"), f"quiet {number}"))
    group = [lane for _, lane in queue.take()]
    assert [each for each in group if each != "flood"] == [f"quiet {n}" for n in range(10)]


def test_shares_are_of_bytes_and_rows_too() -> None:
    heavy = Waiting(1, GROUP_BYTES // 16)
    queue = lane_queue(heavy=[heavy] * 100, light=[SMALL] * 5_000)
    group = [lane for _, lane in queue.take()]
    assert group.count("light") >= GROUP_WRITES // 2
    wide = Waiting(GROUP_ROWS // 16, 1)
    queue = lane_queue(wide=[wide] * 100, light=[SMALL] * 5_000)
    group = [lane for _, lane in queue.take()]
    assert group.count("light") >= GROUP_WRITES // 2


def test_a_large_one_waits_for_one_group_of_other_lanes() -> None:
    queue = lane_queue(flood=[SMALL] * 5_000, quiet=[LARGE])
    groups = [{lane for _, lane in queue.take()} for _ in range(2)]
    assert groups == [{"flood"}, {"quiet"}]


def test_small_ones_of_other_lanes_pass_between_large_ones() -> None:
    queue = lane_queue(flood=[LARGE] * 50, quiet=[SMALL])
    taken = []
    for _ in range(10):
        (group,) = {lane for _, lane in queue.take()}
        taken.append(group)
        if group == "flood":
            queue.append((SMALL._replace(lane="quiet"), "quiet"))
    assert taken == ["quiet", "flood"] * 5


def test_large_ones_of_several_lanes_take_turns() -> None:
    queue = lane_queue(flood=[LARGE] * 50, quiet=[LARGE] * 2)
    assert [queue.take()[0][1] for _ in range(5)] == ["flood", "quiet", "flood", "quiet", "flood"]


def fill(queue: WriteQueue[Waiting, str], write: Waiting) -> int:
    """Add as many as there is room for. Returns: how many."""
    count = 0
    while queue.has_room(write.lane, write.large, write.bytes):
        queue.append((write, write.lane))
        count += 1
    return count


@pytest.mark.parametrize("each", [SMALL, Waiting(1, QUEUE_BYTES // 100), LARGE])
def test_a_full_lane_leaves_room_to_the_others(each: Waiting) -> None:
    queue = WriteQueue[Waiting, str](100)
    counts = [fill(queue, each._replace(lane=f"{lane}")) for lane in range(3)]
    assert counts == [100, 50, 25]
    assert queue.has_room("another", each.large, each.bytes)


def test_the_first_of_a_lane_always_has_room() -> None:
    queue = WriteQueue[Waiting, str](100)
    huge = Waiting(1, 10 * QUEUE_BYTES, True)
    for lane in "ab":
        assert fill(queue, huge._replace(lane=lane)) == 1
    assert fill(queue, SMALL) == 100, "of another kind"


def test_a_deletion_that_returns_values_is_a_group_of_its_own() -> None:
    """Only the store knows how large the values are."""
    assert PendingWrite((Delete("t/k"), Delete("t/j", returned=True))).large
    assert not PendingWrite((Delete("t/k"), Delete("t/j"))).large
