"""Turns for large bodies."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tenantbase.web.transport.budget import SMALL_BYTES, Budget, Holding
from tenantbase.web.transport.turns import _USUAL_SECONDS, Turns


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
    large = Holding(Budget(8 * SMALL_BYTES))
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


async def test_small_requests_go_between_two_pieces() -> None:
    small = True
    turns = Turns(lambda streams: small)
    passed: list[int] = []

    async def take_twice() -> int:
        await turns.take()
        before = len(passed)
        await turns.take()
        return len(passed) - before

    async def count() -> None:
        while True:
            passed.append(0)
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    async with asyncio.timeout(10):
        assert await take_twice() > 5  # a read takes five turns; and the stream ends all the same
        small = False
        await take_twice()  # the turns that are free already
        assert await take_twice() <= 2
    counting.cancel()


@pytest.fixture
def usual(monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """The usual interval between switches of threads, whatever earlier tests have left behind."""
    monkeypatch.setattr("tenantbase.web.transport.turns._hurried", set())
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
