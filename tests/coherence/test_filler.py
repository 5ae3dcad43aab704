"""Filling a real memcached: all entries arrive, in bounded pieces."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from tenantbase.coherence.authority import Tag
from tenantbase.coherence.filler import HEAVY_BYTES, Fill, Filler
from tenantbase.coherence.sealed_item import ItemSealer
from tenantbase.entry import JSON, Entry
from tenantbase.figures import CACHE_FAILURES, private_cells
from tenantbase.interfaces.cache import Item
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.interfaces.memcached.client import MemcacheClient
from tenantbase.scope import ScopedKey
from tests.servers import MemcachedProcess, contents

TAG: Tag = (b"e" * 16, 2)
ID = "00000000-0000-0000-0000-000000000001"
KIB = 1 << 10
MAX_ITEM_BYTES = 1 << 20


class Sealer(ItemSealer):
    """Records the threads it works in."""

    def __init__(self) -> None:
        super().__init__(bytes(32))
        self.threads: set[int] = set()

    def seal(self, name: bytes, tag: Tag, entry: Entry | None) -> bytes:
        self.threads.add(threading.get_ident())
        return super().seal(name, tag, entry)


class Memcache(MemcacheClient):
    """Records the items of each call. With ``broken`` it fails as if it had a bug."""

    broken = False

    def __init__(self, memcached: MemcachedProcess) -> None:
        super().__init__(MemcacheAddress.parse(memcached.address), timeout=10.0)
        self.batches: list[list[int]] = []

    async def set_many(self, items: Sequence[Item]) -> None:
        self.batches.append([len(data) for _, data, _ in items])
        if self.broken:
            raise RuntimeError("a mistake")
        await super().set_many(items)


@pytest.fixture
def memcached() -> Iterator[MemcachedProcess]:
    with MemcachedProcess() as process:
        yield process


def fills(sealer: ItemSealer, count: int, size: int) -> list[Fill]:
    made: list[Fill] = []
    for number in range(count):
        key = f"k{number}"
        # Every third key is cached as absent.
        absent = number % 3 == 2
        entry = None if absent else Entry(ScopedKey(key), b"x" * size, JSON, ID, number + 1, None)
        made.append((sealer.name(key), TAG, entry, 0))
    return made


@pytest.mark.parametrize(
    ("count", "size", "batches"),
    [(1, 10, 1), (256, 10, 1), (257, 10, 2), (1_000, 10, 4), (120, 30 * KIB, 3)],
)
async def test_all_entries_arrive_in_batches(
    memcached: MemcachedProcess, count: int, size: int, batches: int
) -> None:
    sealer = Sealer()
    async with (memcache := Memcache(memcached)):
        given = fills(sealer, count, size)
        await Filler(sealer, memcache, private_cells(), MAX_ITEM_BYTES).store(given)
        found = await contents(memcache, [name for name, *_ in given])
        for name, tag, entry, _ in given:
            assert found[name] == sealer.seal(name, tag, entry)
        assert sum(len(batch) for batch in memcache.batches) == count
        assert len(memcache.batches) == batches
        for batch in memcache.batches:
            assert len(batch) <= 256
            assert sum(batch) <= (1 << 20) + 256 * KIB  # with the overhead of sealing


@pytest.mark.parametrize(("count", "size"), [(1, HEAVY_BYTES + 1), (100, 30 * KIB)])
async def test_large_items_are_not_sealed_by_the_event_loop(
    memcached: MemcachedProcess, count: int, size: int
) -> None:
    sealer = Sealer()
    async with (memcache := Memcache(memcached)):
        await Filler(sealer, memcache, private_cells(), MAX_ITEM_BYTES).store(
            fills(sealer, count, size)
        )
    assert sealer.threads and threading.get_ident() not in sealer.threads


@pytest.mark.parametrize("count", [1, 600])
async def test_an_unavailable_memcached_is_counted_not_raised(
    memcached: MemcachedProcess, count: int
) -> None:
    sealer, figures = Sealer(), private_cells()
    async with (memcache := Memcache(memcached)):
        memcached.kill()
        await Filler(sealer, memcache, figures, MAX_ITEM_BYTES).store(fills(sealer, count, 10))
        assert sum(figures[cell] for cell in CACHE_FAILURES.values()) == len(memcache.batches) > 0


@pytest.mark.parametrize("count", [1, 600])
async def test_any_other_error_is_raised(memcached: MemcachedProcess, count: int) -> None:
    sealer = Sealer()
    async with (memcache := Memcache(memcached)):
        memcache.broken = True
        with pytest.raises(RuntimeError, match="a mistake"):
            await Filler(sealer, memcache, private_cells(), MAX_ITEM_BYTES).store(
                fills(sealer, count, 10)
            )
