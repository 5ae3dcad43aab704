"""The limit of requests in flight: the rest is refused at once, health checks are not."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests.servers import poll_async
from tests.service import Server, web_settings
from tests.web.blocked import BlockedCache, blocked
from tests.web.conftest import Start
from tests.web.table import problem
from tests.wire import Wire, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

SET = request("POST", "/set-value", '{"key":"k","value":1}')
PLAIN = {
    "get": request("GET", "/get-value?key=k"),
    "set": SET,
    "delete": request("DELETE", "/delete-value?key=k"),
    "raw": request("GET", "/v1/values/k"),
}
GENERAL = {
    "list": request("GET", "/get-values"),
    "put": request("PUT", "/v1/values/k", b"x" * 100_000),
    "bulk": request("POST", "/get-values", '{"keys":["k"]}'),
    "docs": request("GET", "/docs"),
    "nothing": request("GET", "/nothing"),
}
PROBES = {
    "health": request("GET", "/health-check"),
    "livez": request("GET", "/livez"),
    "head": request("HEAD", "/livez"),
    "options": request("OPTIONS", "*"),
}


async def begun(server: Server, count: int) -> None:
    cache = server.cache
    assert isinstance(cache, BlockedCache)
    await poll_async(lambda: cache.begun == count, "they are in flight")


@pytest.mark.parametrize("fast_path", [True, False])
async def test_requests_beyond_the_limit_are_refused_and_probes_are_not(
    start: Start, fast_path: bool
) -> None:
    settings = web_settings(max_requests=2, fast_path=fast_path)
    async with start(settings, wrap=blocked) as server, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(server.wire()) for _ in range(2)]
        for wire in wires:
            await wire.send(SET)
        await begun(server, 2)
        for name, data in (PLAIN | GENERAL).items():
            async with server.wire() as further:
                await further.send(data)
                answer = await further.answer()
                assert answer.status == 503, name
                assert answer.json == problem("over-limit", 503) | {"limit": "max-requests"}, name
                assert answer.headers["retry-after"] == "1", name
                assert answer.headers["connection"] == "close", name
                assert await further.ended(), name
        for name, data in PROBES.items():
            answer = await server.send(data, name.upper() if name == "head" else "GET")
            assert answer.status in (200, 204), name
        cache = server.cache
        assert isinstance(cache, BlockedCache)
        assert cache.begun == 2, "nothing was done"
        cache.gate.set()
        for wire in wires:
            assert (await wire.answer()).status == 200
        assert (await server.send(SET)).status == 200


@pytest.mark.parametrize("fast_path", [True, False])
async def test_one_tenant_does_not_take_all_places(start: Start, fast_path: bool) -> None:
    settings = web_settings(max_requests=8, fast_path=fast_path)
    async with start(settings, wrap=blocked) as server, AsyncExitStack() as stack:
        cache = server.cache
        assert isinstance(cache, BlockedCache)
        cache.gate.set()
        assert (await server.ask("PUT", "/v1/tenants/a", "{}")).status == 201
        cache.gate.clear()
        cache.begun = 0

        async def ask(data: bytes) -> Wire:
            wire = await stack.enter_async_context(server.wire())
            await wire.send(data)
            return wire

        of_a = PLAIN["set"].replace(b"\r\n", b"\r\nX-Tenant: a\r\n", 1)
        wires = [await ask(of_a) for _ in range(6)]
        await begun(server, 6)
        for data in (of_a, request("GET", "/get-values", headers={"X-Tenant": "a"})):
            further = await ask(data)
            answer = await further.answer()
            assert answer.status == 503
            assert answer.json == problem("over-limit", 503) | {"limit": "max-requests"}
            assert answer.headers["connection"] == "close" and await further.ended()
        wires.append(await ask(SET))
        await begun(server, 7)
        assert (await (await ask(of_a)).answer()).status == 503
        assert (await server.ask("GET", "/v1/tenants")).status == 200
        cache.gate.set()
        for wire in wires:
            assert (await wire.answer()).status == 200
        for _ in range(9):  # what has ended does not count
            assert (await (await ask(of_a)).answer()).status == 200


@pytest.mark.parametrize("fast_path", [True, False])
async def test_watches_take_no_place(start: Start, fast_path: bool) -> None:
    settings = web_settings(max_requests=1, fast_path=fast_path)
    async with start(settings) as server, AsyncExitStack() as stack:
        for _ in range(3):
            wire = await stack.enter_async_context(server.wire())
            await wire.send(request("GET", "/v1/watch"))
            await wire.reader.readuntil(b": watching\n")
        assert (await server.send(SET)).status == 200
        assert (await server.send(GENERAL["list"])).status == 200
        assert server.lifecycle.limit == 4
    assert server.lifecycle.limit == 1
