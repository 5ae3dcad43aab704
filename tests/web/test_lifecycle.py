"""What is still to be finished when the server stops."""

from __future__ import annotations

import asyncio

from tenantbase.web import Life


async def test_all_that_began_before_must_end() -> None:
    life = Life()
    first, second = life.begin(), life.begin()
    life.end(life.begin())
    life.drain()
    late = life.begin()
    finished = asyncio.ensure_future(life.until_finished())
    await asyncio.wait_for(life.until_draining(), 5)
    life.end(first)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not finished.done() and life.under_way == 1
    life.end(second)
    await asyncio.wait_for(finished, 5)
    life.end(late)
    assert life.under_way == 0


async def test_nothing_under_way_is_finished_at_once() -> None:
    life = Life()
    life.drain()
    await asyncio.wait_for(life.until_finished(), 5)
