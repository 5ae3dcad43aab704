"""The lifecycle: counting the requests in flight when the server stops."""

from __future__ import annotations

import asyncio

from tenantbase.web import Lifecycle


async def test_draining_waits_for_requests_that_began_before() -> None:
    lifecycle = Lifecycle()
    first, second = lifecycle.begin(), lifecycle.begin()
    lifecycle.end(lifecycle.begin())
    lifecycle.drain()
    late = lifecycle.begin()
    finished = asyncio.ensure_future(lifecycle.until_finished())
    await asyncio.wait_for(lifecycle.until_draining(), 5)
    lifecycle.end(first)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not finished.done() and lifecycle.in_flight == 1
    lifecycle.end(second)
    await asyncio.wait_for(finished, 5)
    lifecycle.end(late)
    assert lifecycle.in_flight == 0


async def test_without_requests_in_flight_it_ends_at_once() -> None:
    lifecycle = Lifecycle()
    lifecycle.drain()
    await asyncio.wait_for(lifecycle.until_finished(), 5)
