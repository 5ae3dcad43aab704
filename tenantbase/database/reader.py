"""The reading half of the service, which is all that a read-only database has."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol

from tenantbase.access import Access, Tenant, Token
from tenantbase.database.limits import MAX_PAGE_ENTRIES
from tenantbase.entry import check_key, check_text
from tenantbase.errors import InvalidRequest
from tenantbase.listing import Item, KeyRange, Place
from tenantbase.lookup import Lookup
from tenantbase.plain_entries import Render
from tenantbase.scope import Scope, ScopedKey

EVERYTHING: Final = KeyRange()
COUNT_SECONDS: Final = 0.8
_COUNTED_AT_ONCE: Final = 5_000  # entries in one query, which takes some milliseconds


class Entries(Protocol):
    """A source of entries by scoped key: the policy, or a read-only database."""

    def now(self) -> float: ...

    def access(self, known: int | None) -> Awaitable[Access | None]: ...

    def get(self, key: str) -> Awaitable[Lookup]: ...

    def scan(
        self,
        wanted: KeyRange,
        *,
        limit: int | None = None,
        values: bool = True,
        render: Render | None = None,
    ) -> AsyncIterator[tuple[Sequence[Item], bool]]: ...

    def count(
        self, wanted: KeyRange, limit: int
    ) -> Awaitable[tuple[int, int, ScopedKey | None]]: ...


class Count(NamedTuple):
    """Entries counted.

    Attributes:
        entries: how many.
        bytes: of their keys and values.
        after: the place of the last one, if the time was up before all were counted.
    """

    entries: int
    bytes: int
    after: Place | None


class Reader:
    """Reads and lists. Keys are plain, except that the key in an ``Entry`` is scoped."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self.now: Callable[[], float] = entries.now
        """The current time in Unix seconds, as expiry sees it."""

    async def get(self, scope: Scope, key: str) -> Lookup:
        """Read one entry.

        Raises:
            InvalidRequest: this cannot be a key.
            Forbidden: the scope does not include it.
            StoreError: the database was needed and cannot serve.
        """
        return await self._entries.get(self._scoped(scope, key))

    def scan(
        self,
        scope: Scope,
        wanted: KeyRange = EVERYTHING,
        after: Place | None = None,
        *,
        limit: int | None = None,
        values: bool = True,
        render: Render | None = None,
    ) -> AsyncIterator[tuple[Sequence[Item], bool]]:
        """The items of a range of plain keys. Without a prefix: all that the scope includes.

        They come in byte order of keys, ascending or descending, in pieces of bounded size. A key
        that exists throughout is listed exactly once.

        Args:
            after: where the list continues.
            limit: the most items, 1 to 10,000; None: all of them.
            values: whether to read values, so that items are ``Entry`` instead of ``EntryMeta``.
            render: may be called with pieces; see ``Store.scan``.

        Yields:
            A piece, and whether there may be items after it.

        Raises:
            InvalidRequest, Forbidden: at once, before anything is read.
            StoreError: the database cannot serve.
        """
        if limit is not None and not 1 <= limit <= MAX_PAGE_ENTRIES:
            raise InvalidRequest(f"limit is a number from 1 to {MAX_PAGE_ENTRIES:,}", "limit")
        scoped = self._scoped_range(scope, wanted, after)
        return self._entries.scan(scoped, limit=limit, values=values, render=render)

    async def count(self, scope: Scope, prefix: str = "", after: Place | None = None) -> Count:
        """Count the entries whose key begins with ``prefix``, for at most about a second.

        Without a prefix: all that the scope includes. Writes in the meantime may or may not be
        counted.

        Args:
            after: where the count continues.

        Raises:
            InvalidRequest, Forbidden: nothing was read.
            StoreError: the database cannot serve.
        """
        wanted = self._scoped_range(scope, KeyRange(prefix), after)
        deadline = time.monotonic() + COUNT_SECONDS
        entries = size = 0
        while True:
            counted, scoped_bytes, last = await self._entries.count(wanted, _COUNTED_AT_ONCE)
            entries += counted
            size += scoped_bytes - counted * len(scope.start)
            if last is None:
                return Count(entries, size, None)
            if time.monotonic() > deadline:
                return Count(entries, size, Place(last[scope.plain]))
            wanted = wanted.after(Place(last))

    async def access(self, known: int | None) -> Access | None:
        """Tenants and tokens; None if their version is still ``known``, which is cheap to find out.

        Raises:
            StoreError: the database cannot serve.
        """
        return await self._entries.access(known)

    async def current_access(self) -> Access:
        """Tenants and tokens as they are now. Raises StoreError."""
        access = await self._entries.access(None)
        assert access is not None  # None only if a version is known
        return access

    async def tenants(self) -> Sequence[Tenant]:
        """All tenants with their usage, in order of their names. Raises StoreError."""
        return list((await self.current_access()).tenants.values())

    async def tokens(self) -> Sequence[Token]:
        """All tokens, in order of their creation; some may have expired. Raises StoreError."""
        return list((await self.current_access()).tokens.values())

    # Every read passes through one of these, which check what the scope allows.

    def _scoped(self, scope: Scope, key: str) -> str:
        if scope.reads_all:
            return scope.start + check_key(key)  # scope.to_read inlined, because reads are frequent
        return scope.to_read(check_key(key))

    def _scoped_range(self, scope: Scope, wanted: KeyRange, after: Place | None) -> KeyRange:
        for field in ("start", "end", "delimiter"):
            check_text(getattr(wanted, field), field)
        scoped = KeyRange(
            self._scoped_prefix(scope, wanted.prefix),
            scope.prefix(wanted.start),
            scope.prefix(wanted.end) if wanted.end else "",
            wanted.descending,
            wanted.delimiter,
        )
        if after is None:
            return scoped
        return scoped.after(Place(scope.prefix(check_text(after.key, "cursor")), after.folded))

    def _scoped_prefix(self, scope: Scope, prefix: str) -> str:
        return scope.prefix_to_read(check_text(prefix, "prefix"))
