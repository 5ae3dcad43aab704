"""``Database``: the one service that every port calls, and nothing below it.

Each operation takes a ``Scope`` and plain keys. Here it is validated, its keys are scoped, which
checks that the scope includes them, and its size is limited. The key in an ``Entry`` stays scoped,
because changing it would mean copying the entry: ports show the key that they asked for, or
``entry.key[scope.plain]``. Only the ``_scoped`` methods and ``validation.py`` scope keys, and every
write passes through ``_check`` in ``writer.py``, so a check or a count for all of them is one edit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from tenantbase.changes.feed import Feed
from tenantbase.coherence.policy import Cache
from tenantbase.database.administration import Administration
from tenantbase.database.bulk_read import Room, Unlimited, UsualSizes, read_in_chunks
from tenantbase.database.limits import Limits
from tenantbase.database.watch import Changes
from tenantbase.database.writer import Writer
from tenantbase.entry import Entry
from tenantbase.interfaces.store import StoreSize
from tenantbase.listing import Folded, KeyRange, Place
from tenantbase.lookup import Lookup
from tenantbase.plain_entries import Render
from tenantbase.scope import Scope, tenant_of
from tenantbase.troubles import Trouble

_UNLIMITED: Final = Unlimited()


class Database(Writer, Administration):
    """All operations on one database; see also its bases.

    Args:
        cache: the policy.
        limits: the limits of one operation.
        heartbeat: seconds between heartbeats for a watcher without events.
    """

    def __init__(self, cache: Cache, limits: Limits, *, heartbeat: float) -> None:
        super().__init__(cache)
        self._cache = cache
        self._feed = Feed(cache, heartbeat=heartbeat, figures=cache.figures)
        self._sizes = UsualSizes()
        self.limits = limits

    # Reading: see also Reader

    async def get(self, scope: Scope, key: str, *, max_stale: float | None = None) -> Lookup:
        """As ``Reader.get``.

        Args:
            max_stale: a copy will do that was valid at most so many seconds ago, if the database is
                one that several machines share.
        """
        return await self._cache.get(self._scoped(scope, key), max_stale)

    def get_then(
        self, scope: Scope, key: str, receive: Callable[[Lookup | Exception], None]
    ) -> None:
        """As ``get``, but ``receive`` is called with the result or the exception.

        For frequent calls: this needs neither a future nor a task. ``receive`` is never called
        before this returns.

        Raises:
            InvalidRequest, Forbidden: nothing was read; ``receive`` is not called.
        """
        self._cache.get_then(self._scoped(scope, key), receive)

    async def refresh(self, scope: Scope, key: str) -> Lookup:
        """As ``get``, but from the database, and memcached gets a fresh copy."""
        (found,) = await self._cache.refresh([self._scoped(scope, key)])
        return found

    def get_many(
        self,
        scope: Scope,
        keys: Sequence[str],
        room: Room = _UNLIMITED,
        *,
        refresh: bool = False,
        max_stale: float | None = None,
    ) -> AsyncIterator[list[tuple[str, Lookup]]]:
        """Read many entries, some at a time, so that the values held are bounded.

        Args:
            room: for the values that were yielded last.
            refresh: read from the database; memcached gets fresh copies.
            max_stale: see ``get``.

        Yields: keys with their results, each key once, in the order of ``keys``.

        Raises:
            InvalidRequest, TooLarge, Forbidden: at once, before anything is read.
            StoreError: the database was needed and cannot serve.
        """
        scoped = scope.keys_to_read(self._checked_keys(keys))
        read = (
            self._cache.refresh if refresh else partial(self._cache.get_many, max_stale=max_stale)
        )
        return read_in_chunks(read, scoped, room, self._sizes, scope.tenant)

    def page(
        self,
        scope: Scope,
        wanted: KeyRange,
        after: Place | None,
        limit: int,
        render: Render,
    ) -> Callable[[], Awaitable[tuple[Sequence[Entry | Folded], bool]]]:
        """A function that reads the first piece of ``scan``, and whether there may be items after it.

        Args:
            limit: the most items, 1 to ``PAGE_ENTRIES``.

        Raises:
            InvalidRequest, Forbidden: at once, before anything is read.
            StoreError: the database cannot serve; raised when the function is called.
        """
        scoped = self._scoped_range(scope, wanted, after)
        return partial(self._cache.page, scoped, limit, render)

    def get_few_then(
        self,
        scope: Scope,
        keys: Sequence[str],
        size: int,
        receive: Callable[[Sequence[str], Sequence[Lookup] | Exception], None],
    ) -> bool:
        """Read entries that are few and probably small, without a future or a task.

        Args:
            size: the most bytes that they may be expected to have.
            receive: called with each key once, in order, and the results, or the exception. There
                may be fewer results than keys, as with ``Cache.get_many``. It is never called before
                this returns.

        Returns: False if they are not few and small, as far as is known. Then nothing is read, and
            ``receive`` is not called; use ``get_many``.

        Raises:
            InvalidRequest, TooLarge, Forbidden: nothing was read; ``receive`` is not called.
        """
        if not self._sizes.fit(scope.tenant, len(keys), size):
            return False
        scoped = scope.keys_to_read(self._checked_keys(keys))
        plain = list(scoped)
        self._cache.get_many_then(list(scoped.values()), lambda result: receive(plain, result))
        return True

    # Changes

    @asynccontextmanager
    async def watch(
        self, scope: Scope, prefix: str, after: int | None, on_drop: Callable[[], object]
    ) -> AsyncIterator[Changes]:
        """Watch the keys that begin with ``prefix`` for as long as the block lasts.

        Without a prefix: all that the scope includes.

        Args:
            after: only events after this version; None: from now on.
            on_drop: called when events are not taken for too long; it must interrupt what the
                watcher is waiting for.

        Raises:
            InvalidRequest: this cannot be a prefix.
            Forbidden: the scope does not include it.
            StoreError: the database cannot serve.
        """
        scoped = self._scoped_prefix(scope, prefix)
        async with self._feed.subscribe(scoped, after, on_drop) as subscription:
            yield Changes(subscription, scope)

    def pace_watches(self, pace: Callable[[str], Awaitable[object]]) -> None:
        """Have ``pace`` awaited, with their tenant, before a few watchers get their events.

        See ``Feed.pace``.
        """
        self._feed.pace = lambda prefix: pace(tenant_of(prefix))

    async def end_watches(self) -> None:
        """End all watches, after their queued events, and accept no more."""
        await self._feed.close()

    # State

    @property
    def cache_available(self) -> bool | None:
        """Whether memcached, or any server of it, answers; None when there is none."""
        return self._cache.cache_available

    @property
    def cache_away(self) -> Sequence[int]:
        """The servers of memcached that do not answer, by their number from 0."""
        return self._cache.cache_away

    @property
    def troubles(self) -> Sequence[Trouble]:
        """Current problems of the database, while it still serves."""
        return self._cache.troubles

    @property
    def figures(self) -> memoryview:
        """The worker's cells; see ``figures.py``."""
        return self._cache.figures

    @property
    def watchers(self) -> int:
        """How many watches are open."""
        return self._feed.watchers

    async def size(self) -> StoreSize:
        """The size of the database. Raises StoreError."""
        return await self._cache.size()

    async def check(self) -> None:
        """Check that the database can serve. Raises StoreError."""
        await self._cache.check()

    async def sweep(self) -> bool:
        """Remove a batch of expired rows; True when there may be more.

        Raises StoreError, Overloaded."""
        return await self._cache.sweep()

    async def sweep_after(self, written: int) -> None:
        """Remove as much as this many writes added to the change log, if that is too long.

        Raises StoreError, Overloaded."""
        await self._cache.sweep(written)
