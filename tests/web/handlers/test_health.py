"""Health and liveness."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tenantbase import __version__
from tenantbase.coherence.policy import Cache
from tenantbase.errors import StoreUnavailable
from tests.servers import MemcachedProcess, poll_async
from tests.service import Server, opened, served
from tests.web.conftest import Start
from tests.wire import Answer

pytestmark = pytest.mark.asyncio(loop_scope="module")


def document(
    status: str = "ok",
    store: str = "ok",
    cache: str = "ok",
    draining: bool = False,
    troubles: tuple[str, ...] = (),
    away: tuple[int, ...] = (),
) -> dict[str, object]:
    return {
        "status": status,
        "store": store,
        "troubles": list(troubles),
        "cache": cache,
        "cache_away": list(away),
        "draining": draining,
        "version": __version__,
    }


async def test_ok(server: Server) -> None:
    await server.ask("GET", "/get-value?key=any")  # reads detect that the cache is down
    answer = await server.ask("GET", "/health-check")
    assert answer.status == 200
    cache = {None: "off", True: "ok", False: "unavailable"}[server.cache.cache_available]
    assert (cache == "ok") == server.cached
    if cache == "unavailable":
        assert answer.json == document("degraded", cache=cache, away=(1,))
    else:
        assert answer.json == document(cache=cache)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


async def test_alive(server: Server) -> None:
    answer = await server.ask("GET", "/livez")
    assert (answer.status, answer.json) == (200, {"status": "ok"})
    assert answer.headers["cache-control"] == "no-store"


async def test_degraded_while_memcached_is_away(start: Start) -> None:
    with MemcachedProcess() as own:
        async with start(memcached=own) as server:
            assert (await server.ask("GET", "/health-check")).json == document()
            own.kill()

            async def health() -> Answer:
                await server.ask("GET", "/get-value?key=a")
                return await server.ask("GET", "/health-check")

            async with asyncio.timeout(20):
                while (answer := await health()).json == document():
                    await asyncio.sleep(0.01)
                assert answer.status == 200
                assert answer.json == document("degraded", cache="unavailable", away=(1,))
                value = await server.ask("GET", "/get-value?key=a")
                assert (value.status, value.headers["x-cache"]) == (404, "BYPASS")
                own.start()
                while (await health()).json != document():
                    await asyncio.sleep(0.01)


async def test_degraded_while_some_memcacheds_are_away(tmp_path: Path) -> None:
    with MemcachedProcess() as first, MemcachedProcess() as second, MemcachedProcess() as third:
        ring = ",".join(each.address for each in (first, second, third))
        async with opened(tmp_path / "x.db", ring) as cache, served(cache) as server:

            async def health() -> Answer:
                for number in range(30):  # so that every server is asked
                    await server.ask("GET", f"/get-value?key={number}")
                return await server.ask("GET", "/health-check")

            assert (await health()).json == document()
            for killed, expected in (
                (second, document("degraded", cache="degraded", away=(2,))),
                (first, document("degraded", cache="degraded", away=(1, 2))),
                (third, document("degraded", cache="unavailable", away=(1, 2, 3))),
            ):
                killed.kill()
                answer = await health()
                assert (answer.status, answer.json) == (200, expected)
            for each in (first, second, third):
                each.start()
            async with asyncio.timeout(20):
                while (await health()).json != document():
                    await asyncio.sleep(0.01)


async def test_unavailable_when_the_database_is_replaced(start: Start, tmp_path: Path) -> None:
    async with start() as server:
        (tmp_path / "x.db").rename(tmp_path / "y.db")
        (tmp_path / "x.db").touch()
        answer = await server.ask("GET", "/health-check")
        (tmp_path / "y.db").replace(tmp_path / "x.db")
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json == document("unavailable", "unavailable", "off")
        head = await server.ask("HEAD", "/health-check")
        assert head.status in (200, 503)


class _Checked(Cache):
    """A database whose check waits for the test."""

    checks = 0
    gate: asyncio.Event

    async def check(self) -> None:
        type(self).checks += 1
        await self.gate.wait()
        raise StoreUnavailable("busy")


def _checked() -> Callable[[Cache], Cache]:
    def wrap(cache: Cache) -> Cache:
        checked = object.__new__(_Checked)
        checked.__dict__.update(cache.__dict__)
        _Checked.checks, _Checked.gate = 0, asyncio.Event()
        return checked

    return wrap


async def test_concurrent_checks_share_one_query(start: Start) -> None:
    async with start(wrap=_checked()) as server:
        asked = [asyncio.create_task(server.ask("GET", "/health-check")) for _ in range(10)]
        await poll_async(
            lambda: server.lifecycle.in_flight == 10 and _Checked.checks > 0, "all have asked"
        )
        assert _Checked.checks == 1
        assert (await server.ask("GET", "/livez")).status == 200
        _Checked.gate.set()
        assert {(await answer).status for answer in asked} == {503}
        await server.ask("GET", "/health-check")
        assert _Checked.checks == 2  # the result is not cached


async def test_a_hanging_database_is_reported_in_time(start: Start) -> None:
    async with start(wrap=_checked()) as server:
        answer = await server.ask("GET", "/health-check")
        assert answer.status == 503 and answer.json["store"] == "unavailable"
        _Checked.gate.set()
