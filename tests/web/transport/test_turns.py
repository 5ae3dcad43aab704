"""Turns for large bodies."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tenantbase.switching import _USUAL_SECONDS, switching_fast
from tenantbase.web.transport.budget import SMALL_BYTES, Budget, Holding
from tenantbase.web.transport.turns import _MORE_RESTS, _MOST_REST_SECONDS, Turns


async def test_one_turn_at_a_time_in_order() -> None:
    turns = Turns()
    order: list[tuple[int, int]] = []
    turn = 0

    async def take(name: int) -> None:
        await turns.take()
        order.append((name, turn))

    for _ in range(2):  # it can be used again after all turns are over
        tasks = [asyncio.create_task(take(n)) for n in range(5)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            turn += 1
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert [name for name, _ in order] == [0, 1, 2, 3, 4] * 2
    assert len({at for _, at in order}) == 10, order


async def test_a_cancelled_request_does_not_keep_its_turn() -> None:
    turns = Turns()
    await turns.take()
    waiting = [asyncio.create_task(turns.take()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[1].cancel()
    async with asyncio.timeout(10):
        await waiting[2]
        await turns.take()


async def test_small_bodies_do_not_wait() -> None:
    budget = Budget(8 * SMALL_BYTES)
    large, small = Holding(budget), Holding(budget)
    large.begin(None, None)
    large.grow(SMALL_BYTES + 1)
    small.begin(None, None)
    small.grow(SMALL_BYTES)
    await large.turn()
    waiting = asyncio.create_task(large.turn())
    await small.turn()
    assert not waiting.done()
    await waiting


async def test_lanes_take_turns() -> None:
    turns = Turns()
    await turns.take("flood")
    order: list[str] = []

    async def take(lane: str) -> None:
        await turns.take(lane)
        order.append(lane)

    async with asyncio.timeout(10):
        await asyncio.gather(*map(take, ["flood"] * 20 + ["quiet"]))
    assert order.index("quiet") <= 2, order


async def test_the_event_loop_rests_after_each_body_for_as_long_as_it_took() -> None:
    loop = asyncio.get_running_loop()
    large = Holding(Budget(8 * SMALL_BYTES, turns=Turns(lambda lane: 1)))
    large.grow(SMALL_BYTES + 1)
    for _ in range(2):  # a free turn and one that was waited for
        await large.turn()
        began = time.monotonic()
        time.sleep(0.03)  # as a body that is parsed
        took = time.monotonic() - began
        turn = loop.create_task(large.turn())
        ended = time.monotonic()
        await turn
        assert time.monotonic() - ended > took / 2  # the clock of the event loop is coarse


async def test_bodies_wait_by_lane() -> None:
    bodies = [Holding(Budget(8 * SMALL_BYTES, turns=turns)) for turns in [Turns()] * 4]
    order: list[int] = []

    async def take(at: int, lane: str) -> None:
        await bodies[at].turn(lane)
        order.append(at)

    for body in bodies:
        body.grow(SMALL_BYTES + 1)
    async with asyncio.timeout(10):
        await asyncio.gather(*map(take, range(4), ["flood", "flood", "flood", "quiet"]))
    assert order.index(3) < order.index(2), order


class Load:
    """Requests in flight, by lane, and the rests of the event loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests = Counter[str]()
        self.rests: list[float] = []
        loop = asyncio.get_running_loop()
        call_later = loop.call_later

        def rest(delay: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
            self.rests.append(delay)
            return call_later(delay, *args, **options)

        monkeypatch.setattr(loop, "call_later", rest)

    def in_flight(self, lane: str | None) -> int:
        return self.requests.total() if lane is None else self.requests[lane]

    async def rests_of_a_stream(self, lane: str, pieces: int = 3) -> int:
        """How often the event loop rests between the pieces of a stream."""
        turns = Turns(self.in_flight)
        self.rests.clear()
        self.requests[lane] += 1
        with turns.streaming(lane):
            for _ in range(pieces):
                await turns.take(lane)
            rests = len(self.rests)
        self.requests[lane] -= 1
        for _ in range(3):  # until its last turn is over
            await asyncio.sleep(0)
        return rests


async def test_the_event_loop_rests_between_pieces_while_others_are_in_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = Load(monkeypatch)
    assert await load.rests_of_a_stream("a") == 0
    load.requests["a"] = 1
    assert await load.rests_of_a_stream("a") == 2
    assert min(load.rests) >= 0.001, "no timer is finer"
    load.requests["a"] = 0
    assert await load.rests_of_a_stream("a") == 0


async def test_it_rests_longer_for_requests_of_other_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load(monkeypatch)
    load.requests["a"] = 1
    own = await load.rests_of_a_stream("a")
    load.requests["quiet"] = 1
    others = await load.rests_of_a_stream("a")
    assert others == own * (1 + _MORE_RESTS), "and the stream goes on in the end"


async def test_streams_of_several_lanes_do_not_rest_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = Load(monkeypatch)
    turns = Turns(load.in_flight)
    load.requests["a"] = load.requests["b"] = 1
    with turns.streaming("a"), turns.streaming("b"):
        for _ in range(3):
            await turns.take("a")
        assert not load.rests
        load.requests["a"] += 1  # the stream rests for it as usual
        for _ in range(3):
            await turns.take("a")
        assert len(load.rests) == 3


async def test_it_rests_no_longer_than_requests_are_in_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = Load(monkeypatch)
    load.requests["quiet"] = 1
    turns = Turns(load.in_flight)
    load.requests["a"] = 1
    with turns.streaming("a"):
        await turns.take("a")
        piece = asyncio.create_task(turns.take("a"))
        while not load.rests:
            await asyncio.sleep(0)
        load.requests["quiet"] = 0  # it has been answered
        await piece
    assert len(load.rests) == 1


@pytest.fixture
def usual(monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """The usual interval between switches of threads, whatever earlier tests have left behind."""
    monkeypatch.setattr("tenantbase.switching._hurried", set())
    found = sys.getswitchinterval()
    sys.setswitchinterval(_USUAL_SECONDS)
    yield sys.getswitchinterval()
    sys.setswitchinterval(found)


async def test_threads_switch_faster_while_an_answer_streams(usual: float) -> None:
    turns = Turns()
    with turns.streaming():
        with turns.streaming():
            assert sys.getswitchinterval() < usual
        assert sys.getswitchinterval() < usual
    assert sys.getswitchinterval() == usual


async def test_small_pieces_share_a_turn() -> None:
    turns = Turns()
    order: list[int] = []
    turn = 0

    async def take(share: float) -> None:
        await turns.take("", share)
        order.append(turn)

    shares = [1 / 4] * 8 + [1.0] + [1 / 4]
    tasks = [asyncio.create_task(take(share)) for share in shares]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        turn += 1
    begun = sorted(set(order))
    assert [order.count(at) for at in begun] == [4, 4, 1, 1], order


async def test_threads_switch_faster_until_the_last_needs_it(usual: float) -> None:
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(Turns().streaming())
        second.enter_context(Turns().streaming())
        first.close()
        assert sys.getswitchinterval() < usual
    assert sys.getswitchinterval() == usual


async def test_threads_switch_faster_while_turns_are_taken(usual: float) -> None:
    turns = Turns()
    await turns.take("", 1 / 8)
    assert sys.getswitchinterval() < usual
    async with asyncio.timeout(10):
        while sys.getswitchinterval() < usual:
            await asyncio.sleep(0)
    assert sys.getswitchinterval() == usual


async def test_threads_switch_faster_inside_a_block(usual: float) -> None:
    with switching_fast():
        with switching_fast():
            assert sys.getswitchinterval() < usual
        assert sys.getswitchinterval() < usual
    assert sys.getswitchinterval() == usual


async def held_until(turns: Turns, done: asyncio.Event, begun: list[str], name: str) -> None:
    async with turns.held():
        begun.append(name)
        await done.wait()


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
async def short_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rest takes any time, and a turn that is held does not end by itself."""
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def call(_: float, function: Any, *args: Any, **options: Any) -> asyncio.TimerHandle:
        seconds = 600 if function.__name__ == "_finish" else 0
        return call_later(seconds, function, *args, **options)

    monkeypatch.setattr(loop, "call_later", call)


@pytest.mark.usefixtures("short_rests")
async def test_a_turn_is_held_for_a_thread_while_others_are_in_flight() -> None:
    turns = Turns(lambda lane: 1 if lane is None else 0)
    done, begun = asyncio.Event(), list[str]()
    async with asyncio.TaskGroup() as group:
        group.create_task(held_until(turns, done, begun, "first"))
        group.create_task(held_until(turns, done, begun, "second"))
        await settled()
        assert begun == ["first"]
        done.set()
    assert begun == ["first", "second"]
    async with asyncio.timeout(10):
        await turns.take()


async def test_a_turn_is_not_held_for_work_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load(monkeypatch)
    load.requests["quiet"] = 1
    turns = Turns(load.in_flight)
    done, begun = asyncio.Event(), list[str]()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(held_until(turns, done, begun, "hangs"))
        await settled()
        await turns.take()
        load.rests.clear()
        await turns.take()  # the next turns are not held
        assert max(load.rests) < _MOST_REST_SECONDS
        done.set()


async def test_turns_are_not_held_if_no_other_request_is_in_flight() -> None:
    turns = Turns()
    done, begun = asyncio.Event(), list[str]()
    async with asyncio.TaskGroup() as group:
        for name in "ab":
            group.create_task(held_until(turns, done, begun, name))
        await settled()
        assert begun == ["a", "b"]
        done.set()
