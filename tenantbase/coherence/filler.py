"""Entries on their way into memcached: sealed and sent, in pieces that keep the event loop free."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from tenantbase.entry import Entry
from tenantbase.errors import CacheUnavailable
from tenantbase.lookup import Counters
from tenantbase.coherence.sealed_item import ItemSealer
from tenantbase.interfaces.cache import Item, Memcache
from tenantbase.coherence.tag_file import Tag

Fill = tuple[bytes, Tag, Entry | None, int]
"""What is to be stored: a name, the tag it goes under, the entry or None, and its lifetime."""

HEAVY_BYTES: Final = 512 << 10
"""More than that is sealed or opened by another thread: it takes a millisecond or more."""

_BATCH: Final = 256
_BATCH_BYTES: Final = 1 << 20


class Filler:
    """Seals entries and stores them.

    Args:
        counters: told when memcached fails.
    """

    def __init__(self, sealer: ItemSealer, memcache: Memcache, counters: Counters) -> None:
        self._sealer = sealer
        self._memcache = memcache
        self._counters = counters

    async def store(self, fills: Sequence[Fill]) -> None:
        """Store entries; however many there are, it takes one deadline at most."""
        if len(fills) <= _BATCH and _value_bytes(fills) <= HEAVY_BYTES:
            await self._store_items(self._seal(fills))
            return
        # A batch at a time is sealed, so that the event loop gets its turn, and sent at once:
        # each would have a deadline of its own if they were sent one after the other.
        storing = []
        for batch in _batches(fills):
            if _value_bytes(batch) > HEAVY_BYTES:
                items = await asyncio.to_thread(self._seal, batch)
            else:
                items = self._seal(batch)
            storing.append(asyncio.ensure_future(self._store_items(items)))
            await asyncio.sleep(0)
        for ended in await asyncio.gather(*storing, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended

    def _seal(self, fills: Sequence[Fill]) -> list[Item]:
        encode = self._sealer.encode
        return [(name, encode(name, tag, entry), life) for name, tag, entry, life in fills]

    async def _store_items(self, items: Sequence[Item]) -> None:
        try:
            await self._memcache.set_many(items)
        except CacheUnavailable:
            self._counters.cache_failures += 1


def _value_bytes(fills: Sequence[Fill]) -> int:
    return sum(len(entry.value) for _, _, entry, _ in fills if entry is not None)


def _batches(fills: Sequence[Fill]) -> Iterator[Sequence[Fill]]:
    """The same in order, in pieces of bounded size."""
    begin = held = 0
    for at, (_, _, entry, _) in enumerate(fills):
        size = 0 if entry is None else len(entry.value)
        if at > begin and (at - begin >= _BATCH or held + size > _BATCH_BYTES):
            yield fills[begin:at]
            begin, held = at, 0
        held += size
    yield fills[begin:]
