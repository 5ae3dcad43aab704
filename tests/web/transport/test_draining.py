"""A request that is on its way when the port closes is answered."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tenantbase.web.transport import draining
from tests.servers import poll_async
from tests.service import Server, web_settings
from tests.web.conftest import Start
from tests.wire import request

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def refuses(server: Server) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    except ConnectionError:
        return True
    writer.close()
    return False


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("drain_timeout", [30.0, 0.0])
async def test_a_request_on_an_idle_connection_is_answered_when_the_port_is_closed(
    start: Start, monkeypatch: pytest.MonkeyPatch, drain_timeout: float, fast_path: bool
) -> None:
    monkeypatch.setattr(draining, "_QUIET_SECONDS", 10.0)
    monkeypatch.setattr(draining, "_LEAST_SECONDS", 10.0)
    settings = web_settings(drain_timeout=drain_timeout, fast_path=fast_path)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(start(settings))
        async with server.wire() as wire, server.wire() as other:
            for each in (wire, other):
                await each.send(request("GET", "/get-value?key=k"))
                assert (await each.answer()).status == 404
            ending = asyncio.create_task(stack.aclose())
            async with asyncio.timeout(20):
                while not await refuses(server):
                    await asyncio.sleep(0.01)
            await poll_async(lambda: len(server.lifecycle.connections) == 2, "those are left")
            for each in (wire, other):
                await each.send(request("GET", "/get-value?key=k"))
                answer = await each.answer()
                assert answer.status == 404
                assert answer.headers["connection"] == "close"
                assert await each.ended()
            await asyncio.wait_for(ending, 20)
