"""Heads of requests that have yet to arrive completely are within the memory budget."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tenantbase.web.problems import HeaderTooLong
from tenantbase.web.transport.budget import Budget
from tenantbase.web.transport.heads import Head
from tests.servers import poll_async
from tests.service import web_settings
from tests.web.conftest import Start
from tests.wire import request

HEAD = (
    b"GET /get-value?key=k HTTP/1.1\r\nHost: localhost\r\n" + (b"X: " + b"y" * 7_000 + b"\r\n") * 8
)
CONNECTIONS = 40


@pytest.mark.parametrize("fast_path", [True, False])
async def test_unfinished_heads_give_way(start: Start, fast_path: bool) -> None:
    """Together they would hold more than there is: some are cut, and a large body has room."""
    settings = web_settings(
        fast_path=fast_path, max_inflight_bytes=2 << 20, max_request_bytes=1 << 20
    )
    async with start(settings) as server, AsyncExitStack() as stack:
        for _ in range(CONNECTIONS):
            wire = await stack.enter_async_context(server.wire())
            await wire.send(HEAD)
        await poll_async(
            lambda: len(server.lifecycle.connections) < CONNECTIONS / 2, "some are cut"
        )
        put = request("PUT", "/v1/values/k", b"x" * 900_000)
        while (answer := await server.send(put)).status == 503:
            pass  # until those that are left have stalled for long enough
        assert answer.status == 201


@pytest.mark.parametrize("fast_path", [True, False])
async def test_a_large_head_is_accepted(start: Start, fast_path: bool) -> None:
    """Each counts on its own, whatever comes between."""
    body = b"x" * 200_000
    settings = web_settings(
        fast_path=fast_path, max_inflight_bytes=2 << 20, max_request_bytes=1 << 20
    )
    async with start(settings) as server, server.wire() as wire:
        for _ in range(30):
            await wire.send(HEAD + b"\r\n" + request("PUT", "/v1/values/k", body))
            assert (await wire.answer()).status in (200, 404)
            assert (await wire.answer()).status in (200, 201)


class Recorder(asyncio.Transport):
    """Notes whether it was aborted."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True


async def test_a_head_is_charged_until_it_is_complete() -> None:
    budget = Budget(1 << 20)
    transport = Recorder()
    head = Head(budget, transport)
    head.extend(50_000)
    assert budget.used >= 50_000
    head.complete()
    assert budget.used == 0 and not transport.aborted
    head.extend(50_000)
    head.evict()
    assert budget.used == 0 and transport.aborted
    with pytest.raises(HeaderTooLong):
        head.extend(50_000)
