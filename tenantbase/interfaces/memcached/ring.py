"""Several memcacheds behind the Protocol `Memcache`: each item has its place on one of them.

Rendezvous hashing: every server gets a score for the item's name, and the highest one has the item.
Scores depend on nothing but the name and the server's address, so all processes agree without
asking each other, and a server that is added or removed moves only its own items.

While a server is away, its items have no other place. They are read from the database instead, and
are back when the server is. Nothing is stored twice, so nothing has to be removed then.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final

from tenantbase.errors import CacheUnavailable
from tenantbase.figures import CACHE_FAILURES
from tenantbase.interfaces.cache import AWAY, Answer, Item, Memcache

# Names are themselves hashes, so their first digits are as good as all of them. Four make 65,536
# places, which are worked out once each: a table look-up is faster than a hash for every server.
_DIGITS: Final = 4


class MemcacheRing:
    """Asks each server for its own items, all at the same time.

    A call never raises CacheUnavailable: each server has its own timeout and breaker, and one that
    fails only costs its own items. Its failures are counted here.

    Args:
        servers: by their addresses, of which only the text matters; the owner closes them.
        figures: the worker's cells (``figures.py``).
    """

    def __init__(self, servers: Mapping[str, Memcache], figures: memoryview) -> None:
        self._servers = tuple(servers.values())
        self._figures = figures
        self._places = _Places(tuple(servers))

    @property
    def available(self) -> bool:
        """Whether any server answers."""
        return any(server.available for server in self._servers)

    @property
    def away(self) -> Sequence[int]:
        """The servers that are down, by their number from 0."""
        return [at for at, server in enumerate(self._servers) if not server.available]

    async def get_many(
        self, names: Sequence[bytes], known: Sequence[bytes | None]
    ) -> Sequence[Answer]:
        """As the Protocol says; ``AWAY`` for each name whose server gives no answer.

        Raises:
            ValueError: a name is not 32 lowercase hexadecimal digits.
        """
        parts: defaultdict[int, list[int]] = defaultdict(list)
        for position, name in enumerate(names):
            parts[self._places[name[:_DIGITS]]].append(position)
        if len(parts) == 1:  # without a task
            (server,) = parts
            return await self._get(self._servers[server], names, known)
        answers: list[Answer] = [AWAY] * len(names)

        async def ask(server: Memcache, positions: list[int]) -> None:
            part = [names[each] for each in positions]
            found = await self._get(server, part, [known[each] for each in positions])
            for position, answer in zip(positions, found, strict=True):
                answers[position] = answer

        await asyncio.gather(*(ask(self._servers[at], part) for at, part in parts.items()))
        return answers

    async def set_many(self, items: Sequence[Item]) -> None:
        """As the Protocol says; items whose server fails are skipped.

        Raises:
            ValueError: as `get_many`.
        """
        parts: defaultdict[int, list[Item]] = defaultdict(list)
        for item in items:
            parts[self._places[item[0][:_DIGITS]]].append(item)
        await asyncio.gather(*(self._set(self._servers[at], part) for at, part in parts.items()))

    async def _get(
        self, server: Memcache, names: Sequence[bytes], known: Sequence[bytes | None]
    ) -> Sequence[Answer]:
        if server.available:
            try:
                return await server.get_many(names, known)
            except CacheUnavailable as error:
                self._count(error)
        return [AWAY] * len(names)

    async def _set(self, server: Memcache, items: list[Item]) -> None:
        if server.available:
            try:
                await server.set_many(items)
            except CacheUnavailable as error:
                self._count(error)

    def _count(self, error: CacheUnavailable) -> None:
        self._figures[CACHE_FAILURES[error.reason]] += 1


class _Places(dict[bytes, int]):
    """The number of the server for a name that begins with these digits."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__()
        self._addresses = [address.encode(errors="surrogateescape") for address in addresses]

    def __missing__(self, digits: bytes) -> int:
        # No two servers have equal scores, because no two addresses are equal.
        scores = [blake2b(digits + address).digest() for address in self._addresses]
        self[digits] = place = scores.index(max(scores))
        return place
