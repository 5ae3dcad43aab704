"""The policy over three memcacheds: one that is away costs hits on its own keys, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tenantbase.coherence.policy import Cache
from tenantbase.commands import Set
from tenantbase.entry import JSON
from tenantbase.figures import BYPASSES, HITS, MISSES
from tenantbase.lookup import CacheStatus, Lookup
from tests.servers import FaultProxy, MemcachedProcess, poll_async
from tests.service import opened

pytestmark = pytest.mark.integration

HIT, MISS, BYPASS = CacheStatus.HIT, CacheStatus.MISS, CacheStatus.BYPASS
KEYS: Final = [f"default/{number}" for number in range(60)]


@pytest.fixture
def servers() -> Iterator[list[MemcachedProcess]]:
    with ExitStack() as stack:
        yield [stack.enter_context(MemcachedProcess()) for _ in range(3)]


@pytest.fixture
async def proxy(servers: list[MemcachedProcess]) -> AsyncIterator[FaultProxy]:
    """A proxy in front of the first server."""
    async with FaultProxy(servers[0].address) as proxy:
        yield proxy


@pytest.fixture
async def cache(
    servers: list[MemcachedProcess], proxy: FaultProxy, tmp_path: Path
) -> AsyncIterator[Cache]:
    """The policy with all keys in its database and in the ring."""
    ring = ",".join([proxy.address, servers[1].address, servers[2].address])
    async with opened(tmp_path / "x.db", ring, cache_timeout=60.0) as cache:
        await write(cache, b"1")
        assert statuses(await cache.get_many(KEYS)) == {HIT}
        yield cache


async def write(cache: Cache, value: bytes) -> None:
    await cache.write(*(Set(key, value, JSON) for key in KEYS))


def statuses(found: Sequence[Lookup]) -> set[CacheStatus]:
    return {each.cache_status for each in found}


def values(found: Sequence[Lookup]) -> set[bytes]:
    return {each.entry.value for each in found if each.entry is not None}


async def test_hits_of_the_other_servers_still_count(
    cache: Cache, servers: list[MemcachedProcess]
) -> None:
    lost = servers[1].stat("curr_items")
    servers[1].kill()
    counts = [cache.figures[cell] for cell in (HITS, MISSES, BYPASSES)]
    found = await cache.get_many(KEYS)
    bypassed = [each for each in found if each.cache_status is BYPASS]
    assert statuses(found) == {HIT, BYPASS} and values(found) == {b"1"}
    assert len(bypassed) == lost
    hits, misses, bypasses = (
        cache.figures[cell] - before
        for cell, before in zip((HITS, MISSES, BYPASSES), counts, strict=True)
    )
    assert (hits, misses, bypasses) == (len(KEYS) - len(bypassed), 0, len(bypassed))
    assert cache.cache_available and list(cache.cache_away) == [1]


async def test_single_reads_of_one_batch_are_answered_by_different_servers(
    cache: Cache, servers: list[MemcachedProcess]
) -> None:
    servers[2].kill()
    futures = [cache.get(key) for key in KEYS]
    found = [await future for future in futures]
    assert statuses(found) == {HIT, BYPASS} and values(found) == {b"1"}


async def test_a_server_that_missed_a_write_returns_no_old_value(
    cache: Cache, proxy: FaultProxy
) -> None:
    await proxy.refuse()
    assert statuses(await cache.get_many(KEYS)) == {HIT, BYPASS}
    await write(cache, b"2")
    assert values(await cache.get_many(KEYS)) == {b"2"}
    await proxy.pass_through()
    await poll_async(lambda: not cache.cache_away, "it is back")
    assert values(await cache.get_many(KEYS)) == {b"2"}
    assert statuses(await cache.get_many(KEYS)) == {HIT}


async def test_what_is_remembered_of_a_server_is_no_hit_without_it(
    cache: Cache, servers: list[MemcachedProcess]
) -> None:
    """All entries are remembered, but only their servers' answers make them hits."""
    servers[1].restart()
    found = await cache.get_many(KEYS)
    assert statuses(found) == {HIT, MISS} and values(found) == {b"1"}
    lost = [key for key, each in zip(KEYS, found, strict=True) if each.cache_status is MISS]
    servers[1].kill()
    found = await cache.get_many(KEYS)
    assert values(found) == {b"1"}
    away = [key for key, each in zip(KEYS, found, strict=True) if each.cache_status is BYPASS]
    assert away == lost


async def test_without_any_server_the_database_answers(
    cache: Cache, servers: list[MemcachedProcess]
) -> None:
    for server in servers:
        server.kill()
    for _ in range(2):
        found = await cache.get_many(KEYS)
        assert statuses(found) == {BYPASS} and values(found) == {b"1"}
    assert cache.cache_available is False and list(cache.cache_away) == [0, 1, 2]
