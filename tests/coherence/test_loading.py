"""The second step of a read: which keys are read together, and which loads are shared."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tenantbase.coherence.authority import Tag
from tenantbase.coherence.filler import Filler
from tenantbase.coherence.loading import BATCH_KEYS, Loaded, Loader
from tenantbase.coherence.sealed_item import ItemSealer
from tenantbase.entry import JSON, Entry
from tenantbase.errors import StoreError, StoreUnavailable
from tenantbase.figures import private_cells
from tenantbase.lookup import CacheStatus, Lookup
from tenantbase.scope import ScopedKey

TAG: Tag = (b"e" * 16, 2)
NOW = 1_000_000.0


def entry_of(key: str) -> Entry:
    return Entry(ScopedKey(key), b"1", JSON, "00000000-0000-0000-0000-000000000001", 1, None)


class Store:
    """Reads keys once the test allows it.

    Attributes:
        reads: the keys of each read.
        failing: keys that cannot be read.
        broken: it fails as if it had a bug.
    """

    def __init__(self) -> None:
        self.reads: list[list[str]] = []
        self.failing: set[str] = set()
        self.broken = False
        self.gate = asyncio.Event()

    async def load(
        self, keys: Sequence[str], now: float, bulk: bool
    ) -> tuple[Sequence[Loaded], Tag | None]:
        self.reads.append(list(keys))
        await self.gate.wait()
        if self.broken:
            raise RuntimeError("a mistake")
        damaged = StoreUnavailable("it is damaged")
        return [damaged if key in self.failing else entry_of(key) for key in keys], None


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def loader(store: Store) -> Loader:
    filler = Filler(ItemSealer(bytes(32)), None, private_cells(), 1 << 20)
    return Loader(store.load, filler, lambda: NOW, 60.0)


Reading = asyncio.Future[dict[str, Lookup | StoreError]]


def begin(loader: Loader, *keys: str, lane: str = "") -> Reading:
    """Begin to load keys that memcached did not have."""
    missed = {key: (key.encode(), TAG) for key in keys}
    return asyncio.ensure_future(loader.load(missed, [], lane, NOW, 1, False))


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_failed_load_fails_no_other_key_of_those_that_joined_it(
    loader: Loader, store: Store
) -> None:
    store.failing = {"a"}
    first = begin(loader, "a")
    await turns()
    second = begin(loader, "a", "b")
    await turns()
    store.gate.set()
    assert isinstance((await first)["a"], StoreUnavailable)
    found = await second
    assert isinstance(found["a"], StoreUnavailable)
    assert found["b"] == Lookup(entry_of("b"), CacheStatus.MISS)
    assert store.reads == [["a"], ["b"]]


async def test_a_mistake_leaves_no_load_that_later_reads_wait_for(
    loader: Loader, store: Store
) -> None:
    store.broken = True
    store.gate.set()
    with pytest.raises(RuntimeError, match="a mistake"):
        await begin(loader, "a")
    store.broken = False
    async with asyncio.timeout(10):
        assert await begin(loader, "a") == {"a": Lookup(entry_of("a"), CacheStatus.MISS)}


async def test_a_query_has_a_bounded_number_of_keys(loader: Loader, store: Store) -> None:
    store.gate.set()
    third = BATCH_KEYS // 3
    names = [[f"{part}/{at}" for at in range(third)] for part in range(7)]
    await asyncio.gather(*(begin(loader, *keys) for keys in names))
    assert [len(keys) for keys in store.reads] == [3 * third, 3 * third, third]


async def test_queries_are_shared_out_among_lanes(loader: Loader, store: Store) -> None:
    store.gate.set()
    half = BATCH_KEYS // 2
    busy = [begin(loader, *(f"{part}/{at}" for at in range(half)), lane="busy") for part in "abcd"]
    other = begin(loader, "other/k", lane="other")
    await asyncio.gather(*busy, other)
    assert "other/k" in store.reads[0], "not behind all that came before it"
