"""The client's timeouts and circuit breaker over hours, with a clock that is set forward."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from tenantbase.errors import CacheUnavailable
from tenantbase.interfaces.memcached import client as memcached_client
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.interfaces.memcached.client import MemcacheClient
from tests.servers import FaultProxy, MemcachedProcess, contents, let_pass, poll_async

KEY = b"a" * 32


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    with MemcachedProcess() as memcached:
        async with FaultProxy(memcached.address) as proxy:
            yield proxy


def connect_to(server: FaultProxy, *, timeout: float, pool_size: int = 4) -> MemcacheClient:
    address = MemcacheAddress.parse(server.address)
    return MemcacheClient(address, timeout=timeout, pool_size=pool_size)


async def probes(proxy: FaultProxy, count: int, seconds: float) -> None:
    """Let ``count`` probes fail, each after at most ``seconds``."""
    for _ in range(count):
        before = proxy.connections
        let_pass(seconds)
        await poll_async(lambda n=before: proxy.connections > n, "it probes")  # type: ignore[misc]


async def hour_after_hour(condition: Callable[[], bool], what: str) -> None:
    """Let hours pass until a condition holds. The first may pass before a pause begins."""
    for _ in range(20):
        let_pass(3600.0)
        with suppress(AssertionError):
            return await poll_async(condition, what, 1.0)
    raise AssertionError(what)


async def test_waiting_for_a_turn_counts_against_the_deadline(proxy: FaultProxy) -> None:
    async with connect_to(proxy, timeout=3600.0, pool_size=1) as client:
        await proxy.hang()
        calls = [asyncio.create_task(contents(client, [KEY])) for _ in range(3)]
        await poll_async(lambda: bool(proxy.received), "the first one has its turn")
        let_pass(3000.0)
        # Bytes arrive, so memcached is slow but not down: the breaker stays closed.
        await proxy.say(b"VA 1000 c1\r\n")
        heard = client._pool
        now = asyncio.get_running_loop().time()
        await poll_async(lambda: heard.last_heard >= now - 600.0, "it has heard of it")
        let_pass(600.0)
        async with asyncio.timeout(10):
            for call in calls:
                with pytest.raises(CacheUnavailable, match="too slow"):
                    await call
        assert client.available


async def test_the_pause_between_probes_has_a_bound(proxy: FaultProxy) -> None:
    async with connect_to(proxy, timeout=10.0) as client:
        await proxy.reset()
        with pytest.raises(CacheUnavailable):
            await contents(client, [KEY])
        await probes(proxy, 15, 2.0)


async def test_after_a_call_that_succeeded_the_pause_is_short_again(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memcached_client, "_LONGEST_PAUSE_SECONDS", 3600.0)
    async with connect_to(proxy, timeout=10.0) as client:
        await proxy.reset()
        with pytest.raises(CacheUnavailable):
            await contents(client, [KEY])
        for number in range(1, 13):
            await hour_after_hour(lambda n=number: proxy.connections > n, "it probes")  # type: ignore[misc]
        await proxy.pass_through()
        await hour_after_hour(lambda: client.available, "it is back")
        assert await contents(client, [KEY]) == {}
        await proxy.reset()
        with pytest.raises(CacheUnavailable):
            await contents(client, [KEY])
        await probes(proxy, 1, 0.2)
