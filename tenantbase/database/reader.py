"""The reading half of the service, and all of it for a database opened read-only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from tenantbase.access import Access, Tenant, Token
from tenantbase.database.limits import MAX_PAGE_ENTRIES
from tenantbase.entry import Entry, check_key, check_text
from tenantbase.errors import InvalidRequest
from tenantbase.lookup import Lookup
from tenantbase.scope import Scope


class Entries(Protocol):
    """A source of entries by scoped key: the policy, or a read-only database."""

    def now(self) -> float: ...

    def access(self, known: int | None) -> Awaitable[Access | None]: ...

    def get(self, key: str) -> Awaitable[Lookup]: ...

    def scan(
        self,
        prefix: str = "",
        after: str = "",
        *,
        limit: int | None = None,
        values: bool = True,
    ) -> AsyncIterator[tuple[list[Entry], bool]]: ...


class Reader:
    """Reads of one key and lists. Keys are plain; only the key in an ``Entry`` is scoped."""

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
        prefix: str = "",
        after: str = "",
        *,
        limit: int | None = None,
        values: bool = True,
    ) -> AsyncIterator[tuple[list[Entry], bool]]:
        """Entries whose key begins with ``prefix`` and is greater than ``after``.

        Without a prefix: all that the scope includes.

        They come in the byte order of keys, in pieces of bounded size. A key that exists throughout
        is listed exactly once.

        Args:
            limit: entries at most, 1 to 10,000; None: all of them.
            values: whether to read values; if not, they are empty.

        Yields:
            A piece, and whether there may be entries after it.

        Raises:
            InvalidRequest, Forbidden: at once, before anything is read.
            StoreError: the database cannot serve.
        """
        check_text(after, "cursor")
        if limit is not None and not 1 <= limit <= MAX_PAGE_ENTRIES:
            raise InvalidRequest(f"limit is a number from 1 to {MAX_PAGE_ENTRIES:,}", "limit")
        return self._entries.scan(
            self._scoped_prefix(scope, prefix), scope.prefix(after), limit=limit, values=values
        )

    async def access(self, known: int | None) -> Access | None:
        """Tenants and tokens; None if their version is still ``known``, which costs little.

        Raises:
            StoreError: the database cannot serve.
        """
        return await self._entries.access(known)

    async def current_access(self) -> Access:
        """Tenants and tokens as they are now. Raises StoreError."""
        access = await self._entries.access(None)
        assert access is not None  # it is left out only if its version is known
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
            return scope.start + check_key(key)  # inlined scope.to_read, because reads are frequent
        return scope.to_read(check_key(key))

    def _scoped_prefix(self, scope: Scope, prefix: str) -> str:
        return scope.prefix_to_read(check_text(prefix, "prefix"))
