"""Who sees the figures, what they show of tenants, and what is left of them without a database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tenantbase.access import TokenScope
from tenantbase.coherence.policy import Cache
from tenantbase.errors import StoreUnavailable
from tenantbase.interfaces.store import StoreSize
from tenantbase.metrics.board import Board
from tenantbase.metrics.pulse import Pulse, beating
from tenantbase.web.app import REQUEST_CELLS
from tenantbase.web.handlers.figures import Measured
from tenantbase.web.observer import Observer
from tests.service import Server, opened, served, service, web_settings
from tests.wire import SECONDS

ROUTES = ("/metrics", "/v1/stats")
SECRET = "a-tenant-with-a-telling-name"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server without a cache that shows no tenants."""
    board = Board(1, REQUEST_CELLS.end)
    cells = board.cells(0)
    async with opened(tmp_path / "x.db", figures=cells) as cache:
        with beating(Pulse(board, cells, lambda: cache.cache_available)) as pulse:
            measured = Measured(board, pulse, REQUEST_CELLS, False)
            observer = Observer(REQUEST_CELLS, cells)
            async with served(cache, observer=observer, measured=measured) as server:
                yield server


async def test_only_scrapers_and_administrators_see_them(server: Server) -> None:
    for route in ROUTES:
        assert (await server.ask("GET", route)).status == 200  # the database is open
        assert (await server.ask("GET", route + "?x=1")).status == 400
    database = service(server.cache, web_settings())
    made = {
        scope: (await database.create_token("t", scope, tenant))[1]
        for scope, tenant in (
            (TokenScope.ADMIN, None),
            (TokenScope.METRICS, None),
            (TokenScope.READ, "default"),
            (TokenScope.WRITE, "default"),
        )
    }

    async def status(route: str, scope: TokenScope | None) -> int:
        headers = {} if scope is None else {"Authorization": f"Bearer {made[scope]}"}
        return (await server.ask("GET", route, headers=headers)).status

    async with asyncio.timeout(SECONDS):
        while await status("/v1/stats", TokenScope.WRITE) != 403:  # the last one made
            await asyncio.sleep(0.02)
    for route in ROUTES:
        for scope in TokenScope:
            sees = scope in (TokenScope.ADMIN, TokenScope.METRICS)
            assert await status(route, scope) == (200 if sees else 403), (route, scope)


async def test_no_tenant_and_no_key_is_named(server: Server) -> None:
    await server.ask("PUT", f"/v1/tenants/{SECRET}", '{"max_entries": 5}')
    await server.ask("PUT", f"/v1/values/{SECRET}", "x", {"X-Tenant": SECRET})
    await server.ask("GET", f"/get-value?key={SECRET}")
    for route in ROUTES:
        answer = await server.ask("GET", route)
        assert answer.status == 200 and SECRET.encode() not in answer.body


async def test_without_a_database_the_rest_is_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(cache: Cache) -> StoreSize:
        raise StoreUnavailable("it hangs")

    monkeypatch.setattr(Cache, "size", unavailable)
    monkeypatch.setattr(Cache, "check", unavailable)
    metrics = (await server.ask("GET", "/metrics")).body
    assert b"\ntenantbase_store_available 0.0\n" in metrics
    assert b"\ntenantbase_entries" not in metrics
    assert b"\ntenantbase_http_connections 1.0\n" in metrics
    assert b"\ntenantbase_cache_configured 0.0\n" in metrics
    stats = (await server.ask("GET", "/v1/stats")).json
    assert stats["store"]["entries"] is None and stats["cache"]["available"] is False
    assert stats["requests"]["total"] == 1


async def test_each_memcached_is_shown(tmp_path: Path) -> None:
    board = Board(2, REQUEST_CELLS.end)
    addresses = ["a:11211", "[::1]:11211", "unix:/run/m"]
    async with opened(tmp_path / "x.db") as cache, AsyncExitStack() as stack:
        pulses = []
        for away in ([1], [1, 63]):  # two workers
            cells = board.cells(board.take())
            pulse = Pulse(board, cells, lambda: True, lambda away=away: away)  # type: ignore[misc]
            pulses.append(stack.enter_context(beating(pulse)))
        measured = Measured(board, pulses[0], REQUEST_CELLS, False, addresses)
        server = await stack.enter_async_context(served(cache, measured=measured))
        metrics = (await server.ask("GET", "/metrics")).body.decode()
        for address, value in zip(addresses, (1, 0, 1), strict=True):
            assert f'tenantbase_cache_server_available{{server="{address}"}} {value}.0\n' in metrics
        assert "\ntenantbase_cache_available 1.0\n" in metrics
        assert (await server.ask("GET", "/v1/stats")).json["cache"]["away"] == ["[::1]:11211"]


async def test_reads_and_refusals_are_counted(server: Server) -> None:
    database = service(server.cache, web_settings())
    await database.put_tenant("default", max_requests_per_second=1)
    statuses = set[int]()
    async with asyncio.timeout(SECONDS):
        while 429 not in statuses:
            statuses.add((await server.ask("GET", "/get-value?key=none")).status)
    metrics = (await server.ask("GET", "/metrics")).body.decode()
    lines = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line[0] != "#")
    assert lines['tenantbase_cache_reads_total{result="bypass"}'] != "0.0"
    assert lines["tenantbase_rate_limited_total"] == (
        lines['tenantbase_http_requests_total{method="GET",route="/get-value",status="429"}']
    )
