"""Fills memcached: seals entries and sends them, in pieces that keep the event loop free."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from typing import Final

from tenantbase.coherence.authority import Tag
from tenantbase.coherence.sealed_item import CACHED_BYTES, OVERHEAD_BYTES, ItemSealer
from tenantbase.entry import Entry
from tenantbase.errors import CacheUnavailable
from tenantbase.figures import CACHE_FAILURES
from tenantbase.interfaces.cache import Item, Memcache

Fill = tuple[bytes, Tag, Entry | None, int]
"""A name, the tag to seal the item under, the entry or None, and memcached's expiry in seconds."""

HEAVY_BYTES: Final = 512 << 10
"""Values that add up to more are sealed, or opened, in a thread: that takes a millisecond."""

_BATCH_ITEMS: Final = 256
_BATCH_BYTES: Final = 1 << 20
_MAX_LIFETIME_SECONDS: Final = 30 * 24 * 3600  # memcached reads a larger number as an absolute time


class Filler:
    """Decides what to store in memcached, seals it and stores it.

    Args:
        memcache: None if there is none; then nothing is stored.
        counts: records failures of memcached.
        max_item_bytes: larger sealed items are not offered.
    """

    def __init__(
        self,
        sealer: ItemSealer,
        memcache: Memcache | None,
        figures: memoryview,
        max_item_bytes: int,
    ) -> None:
        self._sealer = sealer
        self._memcache = memcache
        self._figures = figures
        self._max_value_bytes = min(max_item_bytes - OVERHEAD_BYTES, CACHED_BYTES)

    @property
    def available(self) -> bool:
        """Whether there is a memcached to store anything in."""
        return self._memcache is not None and self._memcache.available

    def offer(
        self, fills: list[Fill], name: bytes, tag: Tag, entry: Entry | None, now: float
    ) -> None:
        """Add an entry to ``fills``, if memcached is available and can hold it."""
        if not self.available:
            return
        lifetime = 0
        if entry is not None:
            if len(entry.value) > self._max_value_bytes:
                return
            if entry.expires_at is not None:
                # The item itself says when it expires; this only frees memory early.
                remaining = math.ceil(entry.expires_at - now) + 1
                lifetime = max(remaining, 1) if remaining <= _MAX_LIFETIME_SECONDS else 0
        fills.append((name, tag, entry, lifetime))

    async def store(self, fills: Sequence[Fill]) -> None:
        """Store entries; however many there are, it takes one timeout of memcached at most."""
        if self._memcache is None or not fills:
            return
        memcache = self._memcache
        if len(fills) <= _BATCH_ITEMS and _value_bytes(fills) <= HEAVY_BYTES:
            await self._send(memcache, self._seal(fills))
            return
        # Seal batch by batch, so that the event loop gets its turn, but send all batches at once:
        # otherwise each would have its own timeout.
        sending = []
        for batch in _batches(fills):
            if _value_bytes(batch) > HEAVY_BYTES:
                items = await asyncio.to_thread(self._seal, batch)
            else:
                items = self._seal(batch)
            sending.append(asyncio.ensure_future(self._send(memcache, items)))
            await asyncio.sleep(0)
        for ended in await asyncio.gather(*sending, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended

    def _seal(self, fills: Sequence[Fill]) -> list[Item]:
        seal = self._sealer.seal
        return [(name, seal(name, tag, entry), lifetime) for name, tag, entry, lifetime in fills]

    async def _send(self, memcache: Memcache, items: Sequence[Item]) -> None:
        try:
            await memcache.set_many(items)
        except CacheUnavailable as error:
            self._figures[CACHE_FAILURES[error.reason]] += 1


def _value_bytes(fills: Sequence[Fill]) -> int:
    return sum(len(entry.value) for _, _, entry, _ in fills if entry is not None)


def _batches(fills: Sequence[Fill]) -> Iterator[Sequence[Fill]]:
    """The same fills in order, in pieces of bounded size."""
    begin = held = 0
    for at, (_, _, entry, _) in enumerate(fills):
        size = 0 if entry is None else len(entry.value)
        if at > begin and (at - begin >= _BATCH_ITEMS or held + size > _BATCH_BYTES):
            yield fills[begin:at]
            begin, held = at, 0
        held += size
    yield fills[begin:]
