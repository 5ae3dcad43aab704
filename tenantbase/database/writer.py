"""The operations that change entries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from tenantbase.coherence.policy import Cache
from tenantbase.commands import (
    Applied,
    Command,
    Condition,
    Delete,
    Increment,
    Rename,
    Set,
    Touch,
    Transaction,
)
from tenantbase.database.import_batch import ImportBatch
from tenantbase.database.limits import Limits
from tenantbase.database.reader import Reader
from tenantbase.database.set_batch import SetBatch
from tenantbase.database.validation import (
    Draft,
    combined,
    completed,
    draft,
    set_command,
    set_commands,
)
from tenantbase.entry import Entry, check_key, check_keys, check_text, expiry
from tenantbase.errors import Forbidden, InvalidRequest
from tenantbase.json_requests import Read, SetValue, check_count
from tenantbase.scope import Scope, ScopedKey


class Writer(Reader):
    """The part of ``Database`` that changes entries.

    Its methods check their input before they return. InvalidRequest, TooLarge and Forbidden are
    raised at once, and so is Overloaded by ``delete_many``; nothing was done. Then await what the
    methods return, which raises:

        ConditionFailed, WrongType, NoSuchTenant, QuotaExceeded: nothing was done.
        Overloaded, StoreUnavailable, StoreFull: nothing was done; it may be tried again.
        OutcomeUnknown: it may or may not have been done.

    Cancelling the wait does not stop the write.
    """

    _cache: Cache
    limits: Limits

    def set(
        self,
        scope: Scope,
        given: SetValue,
        condition: Condition | None = None,
        value: bytes | InvalidRequest | None = None,
    ) -> Awaitable[Applied]:
        """Store one entry given as JSON.

        Args:
            condition: what must hold besides ``given.if_version`` and ``given.if_absent``.
            value: the decoded value, or the error in it, if already decoded.
        """
        return self._one(self._write(scope, self._set_command(scope, given, condition, value)))

    def set_then(
        self, scope: Scope, given: SetValue, receive: Callable[[Applied | Exception], None]
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
        keep_ttl: bool = False,
        condition: Condition | None = None,
        if_version: int | None = None,
        if_absent: bool = False,
        content_type_field: str = "content_type",
    ) -> Draft:
        """Check a write whose value has yet to arrive; ``put`` then stores it.

        Args:
            ttl, expires_at, keep_ttl: seconds from now, Unix seconds, or the entry's present expiry;
                at most one of them.
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
            keep_ttl=keep_ttl,
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

    def check_room(self, scope: Scope, entries: int) -> None:
        """Raise Overloaded if too many writes wait for one of this many entries to be accepted now.

        Preparing a large write takes 30 ms, which a flood of writes to be refused must not cost.
        """
        self._cache.check_room(scope.start, entries)

    def set_many(
        self, scope: Scope, entries: Iterable[Read], condition: Condition | None = None
    ) -> Awaitable[list[tuple[str, Applied]]]:
        """Store entries given as JSON, in one transaction.

        Returns: keys with their results, in order.

        Args:
            condition: what must hold for each entry besides its own fields.
        """
        batch = self.set_batch(scope, condition)
        for read in entries:
            batch.add(read)
        return batch.write()

    def set_batch(self, scope: Scope, condition: Condition | None = None) -> SetBatch:
        """Like ``set_many``, for entries that are added one by one."""
        return SetBatch(
            lambda read: self._set_command(scope, read.given, condition, read.value),
            lambda keys, commands: self._many(keys, self._write(scope, *commands)),
            self.limits.max_batch_entries,
        )

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
        self, scope: Scope, key: str, receive: Callable[[Applied | Exception], None]
    ) -> None:
        """As ``delete``, but ``receive`` is called, later, with the outcome or the exception.

        Raises:
            InvalidRequest, Forbidden: nothing was done; ``receive`` is not called.
        """
        self._write_then(scope, Delete(self._scoped_write(scope, key)), receive)

    def delete_many(
        self,
        scope: Scope,
        keys: Sequence[str],
        condition: Condition | None = None,
        *,
        if_versions: Sequence[int | None] | None = None,
    ) -> Awaitable[int]:
        """Remove entries in one transaction. Returns: how many were removed.

        Args:
            condition: what must hold for each entry.
            if_versions: for each key, the version that its entry must have, or None.
        """
        commands = self._deletes(scope, keys, condition, if_versions, returned=False)
        return self._removed(self._write(scope, *commands.values()))

    def pop_many(
        self,
        scope: Scope,
        keys: Sequence[str],
        condition: Condition | None = None,
        *,
        if_versions: Sequence[int | None] | None = None,
    ) -> Awaitable[list[tuple[str, Entry]]]:
        """Remove entries in one transaction, as ``delete_many`` does.

        Returns: keys with the entries that were removed, in the order of ``keys``.

        Raises (the awaitable does):
            TooLarge: the values have more than ``MAX_RETURNED_BYTES`` together; nothing was done.
        """
        commands = self._deletes(scope, keys, condition, if_versions, returned=True)
        return self._popped(list(commands), self._write(scope, *commands.values()))

    def _deletes(
        self,
        scope: Scope,
        keys: Sequence[str],
        condition: Condition | None,
        if_versions: Sequence[int | None] | None,
        *,
        returned: bool,
    ) -> dict[str, Delete]:
        """The commands by plain key."""
        scoped = scope.keys_to_write(self._checked_keys(keys))
        self.check_room(scope, len(scoped))
        if if_versions is None:
            return {key: Delete(each, condition, returned) for key, each in scoped.items()}
        if len(scoped) < len(keys):
            raise InvalidRequest("a key is given twice", "entries")
        return {
            key: Delete(each, combined(condition, version, False), returned)
            for (key, each), version in zip(scoped.items(), if_versions, strict=True)
        }

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
        scoped = scope.prefix_to_write(check_text(prefix, "prefix"))
        _check(scope)
        return self._cache.delete_prefix(scoped)

    def increment(
        self,
        scope: Scope,
        key: str,
        by: int = 1,
        initial: int = 0,
        *,
        ttl: float | None = None,
        expires_at: float | None = None,
        keep_ttl: bool = False,
        condition: Condition | None = None,
        if_version: int | None = None,
        if_absent: bool = False,
    ) -> Awaitable[Applied]:
        """Add to the JSON integer at a key; an absent key counts as ``initial``.

        Args:
            ttl, expires_at, keep_ttl: as for ``draft``; without them, an existing counter keeps its
                expiry.
            condition, if_version, if_absent: conditions that must all hold.
        """
        command = Increment(
            self._scoped_write(scope, key),
            by,
            initial,
            expiry(self.now(), ttl, expires_at, keep_ttl),
            combined(condition, if_version, if_absent),
        )
        return self._one(self._write(scope, command))

    def touch(
        self,
        scope: Scope,
        key: str,
        *,
        ttl: float | None = None,
        expires_at: float | None = None,
        condition: Condition | None = None,
        if_version: int | None = None,
    ) -> Awaitable[Applied]:
        """Change the expiry of an entry. The entry in the result has no value.

        Args:
            ttl, expires_at: as for ``draft``; without them, the entry never expires.
            condition, if_version: conditions that must all hold.

        Raises (the awaitable does):
            NoSuchKey: there is no entry to change.
        """
        command = Touch(
            self._scoped_write(scope, key),
            expiry(self.now(), ttl, expires_at),
            combined(condition, if_version, False),
        )
        return self._one(self._write(scope, command))

    def rename(
        self,
        scope: Scope,
        key: str,
        to: str,
        *,
        copy: bool = False,
        replace: bool = False,
        condition: Condition | None = None,
        if_version: int | None = None,
    ) -> Awaitable[Applied]:
        """Move an entry, with its media type and expiry, to another key.

        Returns: the entry at ``to``, without its value.

        Args:
            copy: the entry also stays at ``key``.
            replace: an entry at ``to`` is replaced, and its id kept.
            condition, if_version: conditions on the entry at ``key`` that must all hold.

        Raises (the awaitable does):
            NoSuchKey: there is no entry at ``key``.
            ConditionFailed: a condition does not hold, or there is an entry at ``to``.
        """
        source = self._scoped_write(scope, key)
        target = scope.to_write(check_key(to, "to"))
        if source == target:
            raise InvalidRequest("to must be another key", "to")
        command = Rename(source, target, copy, replace, combined(condition, if_version, False))
        return self._one(self._write(scope, command))

    def import_batch(self, scope: Scope) -> ImportBatch:
        """An empty batch of entries from another database."""
        return ImportBatch(
            lambda given: set_commands(scope, given, self.now(), self.limits.max_value_bytes),
            lambda transaction: self._write_all(scope, transaction),
            self.now,
        )

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

    # Every write passes through one of these, which check what the scope allows.

    def _write(self, scope: Scope, *commands: Command) -> asyncio.Future[tuple[Applied, ...]]:
        """Carry out valid commands in one transaction."""
        _check(scope)
        return self._cache.write(*commands) if commands else _nothing()

    def _write_all(
        self, scope: Scope, transaction: Transaction
    ) -> asyncio.Future[tuple[Applied, ...]]:
        """As ``_write``, of a transaction that is not a tuple."""
        _check(scope)
        return self._cache.write_all(transaction) if transaction else _nothing()

    def _write_then(
        self, scope: Scope, command: Command, receive: Callable[[Applied | Exception], None]
    ) -> None:
        def deliver(outcome: tuple[Applied, ...] | Exception) -> None:
            receive(outcome if isinstance(outcome, Exception) else outcome[0])

        _check(scope)
        self._cache.write_then(command, deliver)

    # These await the outcome for the methods above, whose frames would keep the value in memory.

    async def _one(self, written: asyncio.Future[tuple[Applied, ...]]) -> Applied:
        (applied,) = await written
        return applied

    async def _many(
        self, keys: Sequence[str], written: asyncio.Future[tuple[Applied, ...]]
    ) -> list[tuple[str, Applied]]:
        return list(zip(keys, await written, strict=True))

    async def _popped(
        self, keys: Sequence[str], written: asyncio.Future[tuple[Applied, ...]]
    ) -> list[tuple[str, Entry]]:
        applied = zip(keys, await written, strict=True)
        return [(key, each.before) for key, each in applied if each.before is not None]

    async def _removed(self, written: asyncio.Future[tuple[Applied, ...]]) -> int:
        return sum(applied.removed for applied in await written)


def _nothing() -> asyncio.Future[tuple[Applied, ...]]:
    """The result of a transaction without commands."""
    nothing: asyncio.Future[tuple[Applied, ...]] = asyncio.get_running_loop().create_future()
    nothing.set_result(())
    return nothing


def _check(scope: Scope) -> None:
    if not scope.may_write:
        raise Forbidden("the token's scope does not allow this")
