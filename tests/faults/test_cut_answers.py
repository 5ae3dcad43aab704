"""Cutting memcached's answers after any number of bytes never changes the policy's answers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tenantbase.coherence.policy import Cache
from tenantbase.coherence.sealed_item import ItemSealer, bucket_of
from tenantbase.coherence.tag_file import TagFile
from tenantbase.coherence.tag_seqlock import TagSeqlock, WriteLock
from tenantbase.commands import Set
from tenantbase.entry import JSON
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.interfaces.memcached.client import MemcacheClient
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.lookup import CacheStatus
from tests.servers import FaultProxy, MemcachedProcess


class Bench:
    """A database and a memcached, and any number of policies on them."""

    def __init__(
        self, tags: TagFile, lock: WriteLock, store: SqliteStore, proxy: FaultProxy
    ) -> None:
        self._tags = tags
        self._store = store
        self._lock = lock
        self.proxy = proxy

    @asynccontextmanager
    async def cache(self) -> AsyncIterator[Cache]:
        """A policy that has yet to connect to its memcached."""
        sealer = ItemSealer(self._store.secret)
        seqlock = TagSeqlock(self._tags, self._lock, lambda key: bucket_of(sealer.name(key)))
        address = MemcacheAddress.parse(self.proxy.address)
        async with MemcacheClient(address, timeout=2.0) as memcache:
            cache = Cache(
                self._store,
                self._tags,
                lambda group, now: self._store.write(group, now, seqlock),
                sealer,
                memcache,
                clock=time.time,
            )
            yield cache
            await cache.drained()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        memcached = stack.enter_context(MemcachedProcess())
        proxy = await stack.enter_async_context(FaultProxy(memcached.address))
        tags = TagFile.open(tmp_path / "x.db-tags")
        stack.callback(tags.close)
        lock = WriteLock(tmp_path / "x.db-lock")
        stack.callback(lock.close)
        store = await SqliteStore.open(tmp_path / "x.db", lock.held)
        stack.push_async_callback(store.close)
        yield Bench(tags, lock, store, proxy)


async def test_an_answer_to_a_read_ends_after_any_number_of_bytes(bench: Bench) -> None:
    async with bench.cache() as cache:
        await cache.write(Set("default/k", b'"value"', JSON))
    sources: list[CacheStatus] = []
    while not sources or sources[-1] is not CacheStatus.HIT:
        await bench.proxy.cut_after(len(sources))
        async with bench.cache() as cache:
            found = await cache.get("default/k")
            assert found.entry is not None and found.entry.value == b'"value"'
            sources.append(found.cache_status)
            await bench.proxy.pass_through()  # so that missed entries can be stored again
    assert len(sources) > 150, "a sealed item and its header are longer than that"
    assert set(sources[:-1]) <= {CacheStatus.BYPASS, CacheStatus.MISS}


async def test_an_answer_to_a_write_ends_after_any_number_of_bytes(bench: Bench) -> None:
    for after in range(len("STORED\r\n") + 1):
        await bench.proxy.cut_after(after)
        value = b"%d" % after
        async with bench.cache() as cache:
            await cache.write(Set("default/k", value, JSON))
        await bench.proxy.pass_through()
        async with bench.cache() as cache:
            for _ in range(2):
                entry = (await cache.get("default/k")).entry
                assert entry is not None and entry.value == value
