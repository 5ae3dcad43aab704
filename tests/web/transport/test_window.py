"""The window of plain requests that each of several tenants has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from tenantbase.web.transport import tenant_use
from tenantbase.web.transport.tenant_use import WINDOW, TenantUse
from tests.servers import poll_async
from tests.service import Server, web_settings
from tests.web.blocked import BlockedCache, blocked
from tests.web.conftest import Start
from tests.wire import Wire, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

SET = request("POST", "/set-value", '{"key":"k","value":1}')
OF_A = SET.replace(b"\r\n", b"\r\nX-Tenant: a\r\n", 1)
MORE = 5


class Flood:
    """Sets of a tenant, none of which is committed until ``end``."""

    def __init__(self, server: Server, clients: AsyncExitStack, servers: AsyncExitStack) -> None:
        self.server = server
        self.clients = clients
        self.servers = servers
        assert isinstance(server.cache, BlockedCache)
        self.cache = server.cache
        self.wires: list[Wire] = []
        self.use: TenantUse | None = None

    async def prepare(self) -> None:
        self.cache.gate.set()
        assert (await self.server.ask("PUT", "/v1/tenants/a", "{}")).status == 201
        self.cache.gate.clear()
        self.cache.begun = 0

    async def send(self, data: bytes) -> Wire:
        wire = await self.clients.enter_async_context(self.server.wire())
        await wire.send(data)
        self.wires.append(wire)
        return wire

    async def begun(self, count: int) -> None:
        """Wait until each request has begun or waits for the window: so many have begun."""
        await poll_async(self._arrived, "each has begun, or waits")
        assert self.cache.begun == count

    def _arrived(self) -> bool:
        use = self.use or self.server.lifecycle.tenants._last
        return self.cache.begun + (len(use.waiting) if use else 0) == len(self.wires)

    async def fill(self, more: int = MORE) -> TenantUse:
        """Send a request of another tenant, as many of tenant a as its window holds, and then some
        more."""
        await self.send(SET)
        await self.begun(1)
        for _ in range(WINDOW):
            await self.send(OF_A)
        await self.begun(1 + WINDOW)
        self.use = use = self.server.lifecycle.tenants._last
        assert use is not None
        for _ in range(more):
            await self.send(OF_A)
        await self.begun(1 + WINDOW)
        assert len(use.waiting) == more
        assert use.begun == WINDOW
        return use

    async def end(self) -> None:
        self.cache.gate.set()
        for wire in self.wires:
            assert (await wire.answer()).status == 200


@pytest_asyncio.fixture(loop_scope="module")
async def flood(start: Start, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Flood]:
    monkeypatch.setattr(tenant_use, "_SHARED_SECONDS", 3600.0)
    async with AsyncExitStack() as clients, AsyncExitStack() as servers:
        settings = web_settings(max_requests=80)
        server = await servers.enter_async_context(start(settings, wrap=blocked))
        flood = Flood(server, clients, servers)
        await flood.prepare()
        yield flood
        flood.cache.gate.set()  # a test that failed leaves nothing to wait for


async def test_other_tenants_requests_pass_those_beyond_the_window(flood: Flood) -> None:
    use = await flood.fill()
    await flood.send(SET)
    await flood.begun(2 + WINDOW)
    assert len(use.waiting) == MORE
    await flood.end()
    assert not use.waiting and not use.begun and not use.requests


async def test_a_lone_tenant_has_no_window(flood: Flood) -> None:
    for _ in range(WINDOW + MORE):
        await flood.send(OF_A)
    await flood.begun(WINDOW + MORE)
    await flood.end()


async def test_a_client_that_leaves_while_it_waits_holds_nobody_up(flood: Flood) -> None:
    use = await flood.fill()
    for wire in flood.wires[-MORE : -MORE + 2]:
        wire.abort()
        flood.wires.remove(wire)
    await flood.end()
    assert not use.waiting and not use.begun and not use.requests


async def test_health_does_not_wait(flood: Flood) -> None:
    headers = {"X-Tenant": "a"}
    # A request with the same header fields, so that the tenant of health checks is known, too.
    assert (await flood.server.ask("GET", "/get-value?key=k", headers=headers)).status == 404
    await flood.fill()
    assert (await flood.server.ask("GET", "/health-check", headers=headers)).status == 200
    await flood.end()


async def test_only_as_many_wait_as_may_be_in_flight(flood: Flood) -> None:
    use = await flood.fill(80 - WINDOW - 1)
    await flood.send(OF_A)
    await flood.begun(2 + WINDOW)
    assert use.begun == WINDOW + 1
    await flood.end()


async def test_requests_that_wait_are_answered_when_the_server_stops(flood: Flood) -> None:
    await flood.fill()
    wires, flood.wires = flood.wires, []
    stopping = asyncio.ensure_future(flood.servers.aclose())
    await poll_async(lambda: flood.server.lifecycle.draining, "it stops")
    begun = 1 + WINDOW + MORE
    await poll_async(lambda: flood.cache.begun == begun, "they begin at once", seconds=10.0)
    flood.cache.gate.set()
    for wire in wires[-MORE:]:
        answer = await wire.answer()
        assert answer.status == 200 and answer.headers["connection"] == "close"
    await stopping
