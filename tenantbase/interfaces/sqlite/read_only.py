"""Reads a database that this process may not write, without memcached, tag file or write lock."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from tenantbase.access import Access
from tenantbase.errors import StoreError
from tenantbase.interfaces.sqlite import queries as sql_queries
from tenantbase.interfaces.sqlite.access import read_access
from tenantbase.interfaces.sqlite.open_read_only import open_readonly
from tenantbase.listing import Item, KeyRange, place_of
from tenantbase.lookup import CacheStatus, Lookup
from tenantbase.plain_entries import Render
from tenantbase.scope import ScopedKey

_SCAN_ENTRIES: Final = 1000
_SCAN_BYTES: Final = 4 << 20


class ReadOnly:
    """The reading half of ``Cache``, one read after the other. It blocks the event loop, which is
    fine for the command line, where nothing else is in flight.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def now(self) -> float:
        """The current time in Unix seconds."""
        return time.time()

    async def get(self, key: str) -> Lookup:
        """Read one entry. Raises StoreError if its row is damaged."""
        (entry,) = sql_queries.read(self._connection, [key], self.now())
        if isinstance(entry, StoreError):
            raise entry
        return Lookup(entry, CacheStatus.BYPASS)

    async def scan(
        self,
        wanted: KeyRange,
        *,
        limit: int | None = None,
        values: bool = True,
        render: Render | None = None,
    ) -> AsyncIterator[tuple[Sequence[Item], bool]]:
        """The items of a range; as ``Cache.scan``."""
        more = True
        piece: Sequence[Item]
        while more and (limit is None or limit > 0):
            size = _SCAN_ENTRIES if limit is None else min(limit, _SCAN_ENTRIES)
            if values:
                piece, more = sql_queries.scan(
                    self._connection, wanted, size, _SCAN_BYTES, self.now(), render
                )
            else:
                piece, more = sql_queries.scan_meta(self._connection, wanted, size, self.now())
            if limit is not None:
                limit -= len(piece)
            if piece:
                wanted = wanted.after(place_of(piece[-1]))
            yield piece, more

    async def count(self, wanted: KeyRange, limit: int) -> tuple[int, int, ScopedKey | None]:
        """Count the first entries of a range; as ``Cache.count``."""
        return sql_queries.count(self._connection, wanted, limit, self.now())

    async def access(self, known: int | None) -> Access | None:
        """Tenants and tokens; as ``Cache.access``."""
        return read_access(self._connection, known)


@contextmanager
def reading(path: str) -> Iterator[ReadOnly]:
    """The entries of a database; raises as ``open_readonly`` does."""
    with open_readonly(path) as connection:
        yield ReadOnly(connection)
