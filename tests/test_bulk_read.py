"""How many keys a bulk read reads at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tenantbase.database import bulk_read
from tenantbase.database.bulk_read import CHUNK_KEYS, Unlimited, UsualSizes, read_in_chunks
from tenantbase.entry import OCTETS, Entry
from tenantbase.lookup import CacheStatus, Lookup
from tenantbase.scope import DEFAULT, ScopedKey

ENOUGH = 256 << 10


class Store:
    """Values of one size.

    Attributes:
        chunks: how many keys it was asked for, and about how many bytes were expected.
    """

    def __init__(self, value: bytes) -> None:
        self.value = value
        self.chunks: list[tuple[int, int]] = []

    async def get_many(self, keys: Sequence[ScopedKey], size: int) -> list[Lookup]:
        self.chunks.append((len(keys), size))
        return [
            Lookup(Entry(key, self.value, OCTETS, "i", 1, None), CacheStatus.HIT) for key in keys
        ]

    async def read(self, keys: int, sizes: UsualSizes, tenant: str = "t") -> list[int]:
        """Returns: how many keys each call of ``get_many`` asked for."""
        self.chunks.clear()
        wanted = {f"{number}": DEFAULT.key(f"{number}") for number in range(keys)}
        found = []
        async for pairs in read_in_chunks(self.get_many, wanted, Unlimited(), sizes, tenant):
            found += [key for key, _ in pairs]
        assert found == list(wanted)
        return [count for count, _ in self.chunks]


async def test_small_values_are_read_many_at_a_time() -> None:
    store, sizes = Store(b"x"), UsualSizes()
    assert await store.read(CHUNK_KEYS, sizes) == [CHUNK_KEYS]
    assert await store.read(2 * CHUNK_KEYS, sizes) == [CHUNK_KEYS] * 2


async def test_large_values_are_read_a_few_at_a_time() -> None:
    store, sizes = Store(b"x" * (16 << 10)), UsualSizes()
    for first in (32, 16):  # the second time, it is known from the beginning
        counts = await store.read(1_000, sizes)
        assert counts[0] == first
        assert set(counts[1:-1]) == {16}
        assert all(size in (0, count * len(store.value)) for count, size in store.chunks)
    assert (await store.read(1_000, sizes, "another"))[0] == 32


async def test_values_that_exceed_a_chunk_are_read_one_by_one() -> None:
    store, sizes = Store(b"x" * (2 * ENOUGH)), UsualSizes()
    sizes.note("t", len(store.value))
    assert await store.read(3, sizes) == [1, 1, 1]


async def test_keys_without_values_are_read_many_at_a_time() -> None:
    store, sizes = Store(b""), UsualSizes()
    await store.read(CHUNK_KEYS, sizes)
    assert await store.read(2 * CHUNK_KEYS, sizes) == [CHUNK_KEYS] * 2


def test_what_fits_is_known_once_values_were_read() -> None:
    sizes = UsualSizes()
    assert not sizes.fit("t", 1, ENOUGH), "it is not known"
    sizes.note("t", 100.0)
    assert sizes.fit("t", 3, 300)
    assert not sizes.fit("t", 3, 299)
    assert not sizes.fit("t", 4, 300)
    assert not sizes.fit("another", 1, ENOUGH)
    sizes.note("t", 0.0)
    assert sizes.fit("t", CHUNK_KEYS, 0)
    assert not sizes.fit("t", CHUNK_KEYS + 1, ENOUGH)


def test_the_sizes_of_some_tenants_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_read, "_MOST_TENANTS", 3)
    sizes = UsualSizes()
    for number in range(10):
        sizes.note(f"{number}", 1.0)
        known = [sizes.of(f"{other}") for other in range(10)]
        assert known[number] == 1.0
        assert len(known) - known.count(None) <= 3
