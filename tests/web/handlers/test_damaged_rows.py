"""One damaged row: only its key fails, and the damage is logged once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tenantbase.commands import Set
from tenantbase.entry import JSON
from tenantbase.process.config import Config
from tenantbase.process.wiring import open_cache
from tenantbase.scope import DEFAULT
from tests.damage import damage
from tests.servers import MemcachedProcess
from tests.service import Server
from tests.web.conftest import Start

MARKER = b"damaged!"
HEALTHY = [f"k{n:02}" for n in range(16)]


@pytest.fixture
async def database(tmp_path: Path) -> Path:
    path = tmp_path / "x.db"
    async with open_cache(Config(database=path)) as cache:
        for key in HEALTHY:
            await cache.write(Set(DEFAULT.key(key), b'"%s"' % key.encode(), JSON))
        await cache.write(Set(DEFAULT.key("k08-bad"), MARKER * 8_000, "text/plain"))
    damage(path, MARKER)
    return path


async def _hammer(server: Server, key: str) -> list[int]:
    statuses = []
    for _ in range(20):
        statuses.append((await server.ask("GET", f"/get-value?key={key}")).status)
        body = '{"key": "%s", "value": 1}' % key
        statuses.append((await server.ask("POST", "/set-value", body)).status)
    return statuses


@pytest.mark.parametrize("cached", [True, False])
async def test_only_the_damaged_key_fails(
    database: Path, start: Start, cached: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with MemcachedProcess() as memcached:
        async with start(memcached=memcached if cached else None) as server:
            assert (await server.ask("GET", "/health-check")).json["status"] == "ok"
            *healthy, bad = await asyncio.gather(
                *(_hammer(server, key) for key in [*HEALTHY, "k08-bad"])
            )
            assert {status for statuses in healthy for status in statuses} == {200}
            assert set(bad) == {503}
            health = await server.ask("GET", "/health-check")
    assert health.status == 200
    assert (health.json["status"], health.json["store"]) == ("degraded", "degraded")
    assert health.json["troubles"] == ["damaged rows"]
    told = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert len(told) == 1, told


async def test_operations_that_include_the_damaged_row_fail_clearly(
    database: Path, start: Start
) -> None:
    async with start() as server:
        listing = await server.ask("GET", "/get-values")
        assert listing.status == 503 and "damaged" in listing.json["detail"]
        bulk = await server.ask("POST", "/get-values", '{"keys": ["k01", "k08-bad"]}')
        assert bulk.status == 503 and "k08-bad" in bulk.json["detail"]
        keys = await server.ask("GET", "/get-values?prefix=k0")
        assert keys.status == 503
        assert (await server.ask("GET", "/get-values?prefix=k1")).status == 200
        healthy = await server.ask("POST", "/get-values", '{"keys": ["k01", "k02"]}')
        assert healthy.status == 200


@pytest.mark.parametrize("cached", [True, False])
async def test_the_damaged_key_can_be_deleted(database: Path, start: Start, cached: bool) -> None:
    with MemcachedProcess() as memcached:
        async with start(memcached=memcached if cached else None) as server:
            assert (await server.ask("GET", "/get-value?key=k08-bad")).status == 503
            deleted = await server.ask("DELETE", "/delete-value?key=k08-bad")
            assert deleted.status == 204
            assert (await server.ask("GET", "/get-value?key=k08-bad")).status == 404
            listing = await server.ask("GET", "/get-values")
            assert listing.status == 200 and b"k08-bad" not in listing.body
            again = await server.ask("POST", "/set-value", '{"key": "k08-bad", "value": 1}')
            assert again.status == 503, "its row still occupies the key"
