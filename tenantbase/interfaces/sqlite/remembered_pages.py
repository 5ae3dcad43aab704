"""Remembers rendered pages of lists until anything in the database changes.

Clients that poll ask for the same list again and again, while few of them write. A page takes about a
millisecond to read and render; to see that nothing has changed takes some microseconds.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Hashable, Sequence
from sys import getsizeof
from typing import Final, NamedTuple

from tenantbase.entry import Entry
from tenantbase.interfaces.sqlite.queries import scan
from tenantbase.listing import Folded, KeyRange
from tenantbase.plain_entries import PlainEntries, Render

# For each connection.
_MOST_PAGES: Final = 64  # including those that were asked for only once
_MOST_BYTES: Final = 8 << 20
_LARGEST_BYTES: Final = _MOST_BYTES // 4  # a page above this is not remembered


class _Page(NamedTuple):
    entries: PlainEntries
    more: bool

    @property
    def size(self) -> int:
        entries = self.entries
        columns = (entries.keys, entries.values, entries.ids, entries.versions)
        return sum(map(getsizeof, (entries.rendered, *columns)))


class RememberedPages(threading.local):
    """The pages that were read last. Each thread has its own, as it has its own connection.

    A page is remembered from the second time on that it is asked for. Nearly all pages of a long list
    are never asked for again, and to keep them would take memory out of the processor's caches.

    Only pages of plain entries are remembered: these never expire, so a page depends on nothing but
    what is stored.
    """

    def __init__(self) -> None:
        # Those used last are at the end. None: it was asked for once.
        self._pages: dict[Hashable, _Page | None] = {}
        self._bytes = 0
        self._data_version: int | None = None

    def scan(
        self,
        connection: sqlite3.Connection,
        wanted: KeyRange,
        limit: int,
        max_bytes: int,
        now: float,
        render: Render | None,
    ) -> tuple[Sequence[Entry | Folded], bool]:
        """See ``Store.scan``."""
        if render is None:
            return scan(connection, wanted, limit, max_bytes, now)
        asked = (wanted, limit, max_bytes, render.form)
        again = asked in self._pages
        if again:  # another list does not pay for this query
            # The data version changes whenever another connection commits, and this one never writes. It
            # is read first: if something is committed before the page is read, the page is newer than the
            # version it is remembered with, and is only forgotten too early.
            (data_version,) = connection.execute("PRAGMA data_version").fetchone()
            if data_version != self._data_version:
                self._pages = dict.fromkeys(self._pages)  # still asked for, but forgotten
                self._bytes = 0
                self._data_version = data_version
            page = self._pages.get(asked)
            if page is not None:
                self._note(asked, page)
                return page
        items, more = scan(connection, wanted, limit, max_bytes, now, render)
        if isinstance(items, PlainEntries):
            self._note(asked, _Page(items, more) if again else None)
        return items, more

    def _note(self, asked: Hashable, page: _Page | None) -> None:
        """Note that a page was asked for, and remember it if it is given."""
        self._drop(asked)
        if page is not None and page.size > _LARGEST_BYTES:
            return
        self._pages[asked] = page
        self._bytes += page.size if page is not None else 0
        while len(self._pages) > _MOST_PAGES or self._bytes > _MOST_BYTES:
            self._drop(next(iter(self._pages)))

    def _drop(self, asked: Hashable) -> None:
        page = self._pages.pop(asked, None)
        if page is not None:
            self._bytes -= page.size
