"""A lock that lanes hold in turn."""

from __future__ import annotations

import asyncio

from tenantbase.fair_lock import FairLock


async def test_one_holds_it_at_a_time_and_lanes_take_turns() -> None:
    lock = FairLock()
    order: list[str] = []
    holding = 0

    async def hold(name: str, lane: str) -> None:
        nonlocal holding
        async with lock.held(lane):
            holding += 1
            assert holding == 1
            order.append(name)
            await asyncio.sleep(0)
            holding -= 1

    tasks = [("f1", "flood"), ("f2", "flood"), ("f3", "flood"), ("f4", "flood"), ("q", "quiet")]
    async with asyncio.timeout(10):
        await asyncio.gather(*(hold(*task) for task in tasks))
    assert order.index("q") <= 2, order
    assert [name for name in order if name != "q"] == ["f1", "f2", "f3", "f4"]


async def test_a_cancelled_task_passes_it_on() -> None:
    lock = FairLock()
    held = asyncio.Event()

    async def hold() -> None:
        async with lock.held(""):
            held.set()

    async with asyncio.timeout(10):
        async with lock.held(""):
            tasks = [asyncio.create_task(hold()) for _ in range(3)]
            await asyncio.sleep(0)
            tasks[0].cancel()
        # The second one has been given the lock, and does not know it yet.
        tasks[1].cancel()
        await tasks[2]
        assert held.is_set()
        async with lock.held(""):
            pass
