"""``Database``: the one service that every port calls, and nothing below it.

Each operation takes a ``Scope`` and plain keys. It is validated here, its keys are scoped, which
checks that the scope includes them, and its size is limited. The key in an ``Entry`` stays scoped,
because changing it would take a copy: ports show the key that they asked for, or
``entry.key[scope.plain]``. Keys become scoped in the ``_scoped`` methods and ``validation.py``
alone, and every write passes through ``_write``: a check or a count that concerns all of them is
one edit there. Tenants and tokens are in ``administration.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from tenantbase.changes.feed import Feed
from tenantbase.coherence.policy import Cache
from tenantbase.commands import Applied, Command, Condition, Delete, DeletePrefix, Increment, Set
from tenantbase.database.administration import Administration
from tenantbase.database.bulk_read import Room, Unlimited, read_in_chunks
from tenantbase.database.import_batch import ImportBatch
from tenantbase.database.limits import Limits
from tenantbase.database.validation import Draft, combined, completed, draft, set_command
from tenantbase.database.watch import Changes
from tenantbase.entry import check_key, check_keys, check_text, expiry
from tenantbase.errors import Forbidden, InvalidRequest
from tenantbase.interfaces.store import StoreSize
from tenantbase.json_requests import Read, SetValue, check_count, place
from tenantbase.lookup import Lookup
from tenantbase.scope import Scope, ScopedKey
from tenantbase.troubles import Trouble
from tenantbase.waits import delivering

_UNLIMITED: Final = Unlimited()


class Database(Administration):
    """All operations on one database.

    Methods that write check their input before they return: they raise InvalidRequest, TooLarge or
    Forbidden at once, and nothing is done. What they return is awaited for the outcome, and raises:

        ConditionFailed, WrongType, NoSuchTenant, QuotaExceeded: nothing was done.
        Overloaded, StoreUnavailable, StoreFull: nothing was done; it may be tried again.
        OutcomeUnknown: it may or may not have been done.

    Cancelling the wait for a write does not stop the write.

    Args:
        cache: the policy.
        limits: the limits of one operation.
        heartbeat: seconds between heartbeats for a watcher without events.
    """

    def __init__(self, cache: Cache, limits: Limits, *, heartbeat: float) -> None:
        super().__init__(cache)
        self._cache = cache
        self._feed = Feed(cache, heartbeat=heartbeat, figures=cache.figures)
        self.limits: Final = limits

    # Reading: see also Reader

    def get_then(
        self, scope: Scope, key: str, receive: Callable[[Lookup | Exception], None]
    ) -> None:
        """As ``get``, but ``receive`` is called with the result or the exception.

        For frequent calls: this needs neither a future nor a task. ``receive`` is never called
        before this returns.

        Raises:
            InvalidRequest, Forbidden: it cannot be done; ``receive`` is not called.
        """
        self._cache.get_then(self._scoped(scope, key), receive)

    def get_many(
        self, scope: Scope, keys: Sequence[str], room: Room = _UNLIMITED
    ) -> AsyncIterator[list[tuple[str, Lookup]]]:
        """Read many entries, some at a time, so that the values held are bounded.

        Args:
            room: for the values that were yielded last.

        Yields: keys with their results, each key once, in the order of ``keys``.

        Raises:
            InvalidRequest, TooLarge, Forbidden: at once, before anything is read.
            StoreError: the database was needed and cannot serve.
        """
        scoped = scope.keys_to_read(self._checked_keys(keys))
        return read_in_chunks(self._cache.get_many, scoped, room)

    # Writing

    def set(
        self,
        scope: Scope,
        given: SetValue,
        condition: Condition | None = None,
        value: bytes | InvalidRequest | None = None,
    ) -> Awaitable[Applied]:
        """Store one entry that was given as JSON.

        Args:
            condition: what must hold besides ``given.if_version`` and ``given.if_absent``.
            value: the decoded value, or the error in it, if already known.
        """
        return self._one(self._write(scope, self._set_command(scope, given, condition, value)))

    def set_then(
        self, scope: Scope, given: SetValue, receive: Callable[[Applied | BaseException], None]
    ) -> None:
        """As ``set``, but ``receive`` is called, later, with the outcome or the exception.

        Raises:
            InvalidRequest, TooLarge, Forbidden: nothing was done; ``receive`` is not called.
        """
        self._write_then(scope, self._set_command(scope, given, None, None), receive)

    def draft(
        self,
        scope: Scope,
        key: str,
        content_type: str,
        *,
        ttl: float | None = None,
        expires_at: float | None = None,
        condition: Condition | None = None,
        if_version: int | None = None,
        if_absent: bool = False,
        content_type_field: str = "content_type",
    ) -> Draft:
        """Check a write whose value has yet to arrive; ``put`` then stores it.

        Args:
            ttl, expires_at: seconds from now, or Unix seconds; at most one of them.
            condition, if_version, if_absent: conditions that must all hold.
            content_type_field: the name of the content type in error messages.

        Raises:
            InvalidRequest: the write is invalid, whatever its value.
        """
        return draft(
            scope,
            key,
            content_type,
            self.now(),
            ttl=ttl,
            expires_at=expires_at,
            condition=combined(condition, if_version, if_absent),
            content_type_field=content_type_field,
        )

    def put(
        self, scope: Scope, drafted: Draft, value: bytes, *, json_checked: bool = False
    ) -> Awaitable[Applied]:
        """Store a value as bytes.

        Args:
            json_checked: the value is known to be valid JSON. Otherwise it is checked if its
                content type is JSON.
        """
        limit = self.limits.max_value_bytes
        command = completed(drafted, value, limit, json_checked=json_checked)
        return self._one(self._write(scope, command))

    def set_many(
        self, scope: Scope, entries: Iterable[Read], condition: Condition | None = None
    ) -> Awaitable[list[tuple[str, Applied]]]:
        """Store entries that were given as JSON, in one transaction.

        Returns: keys with their results, in order.

        Args:
            condition: what must hold of each besides its own fields.
        """
        commands: dict[str, Set] = {}  # by plain key
        for index, (given, value) in enumerate(entries):
            try:
                command = self._set_command(scope, given, condition, value)
                if given.key in commands:
                    raise InvalidRequest(f"key {given.key!r} is given twice", "key")
            except InvalidRequest as error:
                place(error, index)
                raise
            commands[given.key] = command
        check_count(len(commands), self.limits.max_batch_entries, "values")
        return self._many(list(commands), self._write(scope, *commands.values()))

    def delete(
        self,
        scope: Scope,
        key: str,
        condition: Condition | None = None,
        *,
        if_version: int | None = None,
    ) -> Awaitable[int]:
        """Remove an entry. Returns: how many were removed, 0 or 1."""
        command = Delete(self._scoped_write(scope, key), combined(condition, if_version, False))
        return self._removed(self._write(scope, command))

    def delete_then(
        self, scope: Scope, key: str, receive: Callable[[Applied | BaseException], None]
    ) -> None:
        """As ``delete``, but ``receive`` is called, later, with the outcome or the exception.

        Raises:
            InvalidRequest, Forbidden: it cannot be done; ``receive`` is not called.
        """
        self._write_then(scope, Delete(self._scoped_write(scope, key)), receive)

    def delete_many(
        self, scope: Scope, keys: Sequence[str], condition: Condition | None = None
    ) -> Awaitable[int]:
        """Remove entries in one transaction. Returns: how many were removed.

        Args:
            condition: what must hold of each.
        """
        scoped = scope.keys_to_write(self._checked_keys(keys))
        commands = [Delete(key, condition) for key in scoped.values()]
        return self._removed(self._write(scope, *commands))

    def delete_prefix(
        self, scope: Scope, prefix: str, condition: Condition | None = None
    ) -> Awaitable[int]:
        """Remove every entry whose key begins with ``prefix``. Returns: how many were removed.

        Without a prefix: all that the scope includes.

        Args:
            condition: must be None.
        """
        if condition is not None:
            raise InvalidRequest("a prefix is deleted without conditions", "prefix")
        command = DeletePrefix(scope.prefix_to_write(check_text(prefix, "prefix")))
        return self._removed(self._write(scope, command))

    def increment(
        self,
        scope: Scope,
        key: str,
        by: int = 1,
        initial: int = 0,
        *,
        ttl: float | None = None,
        expires_at: float | None = None,
        condition: Condition | None = None,
        if_version: int | None = None,
        if_absent: bool = False,
    ) -> Awaitable[Applied]:
        """Add to the JSON integer at a key; an absent key counts as ``initial``.

        Args:
            ttl, expires_at: as for ``draft``; without them, an existing counter keeps its expiry.
            condition, if_version, if_absent: conditions that must all hold.
        """
        command = Increment(
            self._scoped_write(scope, key),
            by,
            initial,
            expiry(self.now(), ttl, expires_at),
            combined(condition, if_version, if_absent),
        )
        return self._one(self._write(scope, command))

    def import_batch(self, scope: Scope) -> ImportBatch:
        """An empty batch of entries from another database."""
        return ImportBatch(
            lambda given: self._set_command(scope, given, None, None),
            lambda commands: self._write(scope, *commands),
            self.now,
        )

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

    async def end_watches(self) -> None:
        """End all watches, after their queued events, and accept no more."""
        await self._feed.close()

    # State

    @property
    def cache_available(self) -> bool | None:
        """Whether memcached answers; None when there is none."""
        return self._cache.cache_available

    @property
    def troubles(self) -> Sequence[Trouble]:
        """Current problems of the database, while it still serves."""
        return self._cache.troubles

    @property
    def figures(self) -> memoryview:
        """Where this worker counts; see ``figures.py``."""
        return self._cache.figures

    @property
    def watchers(self) -> int:
        """Watches that last."""
        return self._feed.watchers

    async def size(self) -> StoreSize:
        """How large the database is. Raises StoreError."""
        return await self._cache.size()

    async def check(self) -> None:
        """Check that the database can serve. Raises StoreError."""
        await self._cache.check()

    async def sweep(self) -> bool:
        """Remove a batch of expired rows; True when there may be more.

        Raises StoreError, Overloaded."""
        return await self._cache.sweep()

    # Shared by all operations

    def _scoped_write(self, scope: Scope, key: str) -> ScopedKey:
        return scope.to_write(check_key(key))

    def _checked_keys(self, keys: Sequence[str]) -> Sequence[str]:
        check_count(len(keys), self.limits.max_batch_entries, "keys")
        return check_keys(keys, "keys")

    def _set_command(
        self,
        scope: Scope,
        given: SetValue,
        condition: Condition | None,
        value: bytes | InvalidRequest | None,
    ) -> Set:
        return set_command(
            scope,
            given,
            self.now(),
            self.limits.max_value_bytes,
            condition=condition,
            value=value,
        )

    def _write(self, scope: Scope, *commands: Command) -> asyncio.Future[tuple[Applied, ...]]:
        """Make valid commands in one transaction."""
        if not scope.may_write:
            raise Forbidden("the token's scope does not allow this")
        if not commands:
            nothing = asyncio.get_running_loop().create_future()
            nothing.set_result(())
            return nothing
        return self._cache.write(*commands)

    def _write_then(
        self,
        scope: Scope,
        command: Command,
        receive: Callable[[Applied | BaseException], None],
    ) -> None:
        def deliver(written: asyncio.Future[tuple[Applied, ...]]) -> None:
            error = written.exception()
            with delivering(written):
                receive(written.result()[0] if error is None else error)

        self._write(scope, command).add_done_callback(deliver)

    # These await the outcome for the methods that write, whose own frames would hold the value
    # meanwhile.

    async def _one(self, written: asyncio.Future[tuple[Applied, ...]]) -> Applied:
        (applied,) = await written
        return applied

    async def _many(
        self, keys: Sequence[str], written: asyncio.Future[tuple[Applied, ...]]
    ) -> list[tuple[str, Applied]]:
        return list(zip(keys, await written, strict=True))

    async def _removed(self, written: asyncio.Future[tuple[Applied, ...]]) -> int:
        return sum(applied.removed for applied in await written)
