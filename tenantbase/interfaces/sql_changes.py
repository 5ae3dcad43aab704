"""What the changes of a group do to the tables. Plain code, run in the writing thread.

A group of transactions is worked out in memory from the rows it touches, which are read in
one query, and written at the end in a few statements, however many transactions it has. A
transaction that fails leaves nothing behind because nothing was written for it yet. A prefix
delete or a sweep works on rows nobody has named, so it stands alone in its transaction and
parts the group: what came before is written first.
"""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Final, cast

from tenantbase.entry import JSON, Entry, is_json
from tenantbase.errors import ConditionFailed, InvalidRequest, TenantbaseError, WrongType
from tenantbase.interfaces.sql_queries import (
    ALIVE,
    DELETED,
    key_batches,
    last_version,
    prefix_range,
)
from tenantbase.interfaces.store import (
    Applied,
    Delete,
    DeletePrefix,
    Increment,
    Set,
    Sweep,
    Transaction,
)

Outcome = tuple[Applied, ...] | TenantbaseError
_Named = Set | Delete | Increment
_NamedTransaction = tuple[_Named, ...]

# Up to here a prefix delete removes its keys one by one, each with its line in the change log.
ONE_BY_ONE: Final = 1_000
MAX_DIGITS: Final = 1_000
_TOO_LARGE: Final = 10**MAX_DIGITS
_INTEGER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)")
_WHITESPACE: Final = b" \t\n\r"  # what JSON allows around a value (RFC 8259, section 2)

_LOOK_UP: Final = (
    f"SELECT {ALIVE}, key, {{}}, content_type, id, version, expires_at"
    " FROM entries WHERE key IN ({})"
)
_UPSERT: Final = """
    INSERT INTO entries (created, key, version, expires_at, id, content_type, value)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET
        version = excluded.version, expires_at = excluded.expires_at, id = excluded.id,
        content_type = excluded.content_type, value = excluded.value
"""
_DELETE: Final = "DELETE FROM entries WHERE key = ?"
_DELETE_ROW: Final = "DELETE FROM entries WHERE created = ?"
_IN_PREFIX: Final = f"SELECT key FROM entries WHERE key >= ? AND key < ? AND {ALIVE} LIMIT ?"
# Both are read from an index alone, but for rows that have expired and were not swept yet.
_COUNT_ROWS: Final = f"SELECT count(*) FROM entries WHERE key >= ? AND key < ? AND NOT {DELETED}"
_COUNT_EXPIRED: Final = (
    "SELECT count(*) FROM entries INDEXED BY entries_expiry"
    f" WHERE expires_at <= ? AND key >= ? AND key < ? AND NOT {DELETED}"
)
_EXPIRED: Final = (
    f"SELECT created, key, {DELETED} FROM entries"
    " WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
)


class Batch:
    """Applies groups of transactions inside one transaction of the connection.

    Attributes:
        touched: the keys that changed, None for any key.
        changed: whether there is anything to commit.
        value_bytes: how many bytes of values were written.
    """

    def __init__(self, connection: sqlite3.Connection, now: float, log_size: int) -> None:
        self._connection = connection
        self._now = now
        self._log_size = log_size
        self._events: list[tuple[int, str, str]] = []
        self._first = last_version(connection) + 1
        self._covers_all = False
        self._swept = False
        self.value_bytes = 0

    @property
    def changed(self) -> bool:
        return bool(self._events) or self._swept

    @property
    def touched(self) -> Collection[str] | None:
        return None if self._covers_all else {key for _, _, key in self._events}

    def apply(self, transactions: Iterable[Transaction]) -> list[Outcome]:
        """Apply them in order; each sees those before it that were made."""
        outcomes: list[Outcome] = []
        for alone, run in groupby(transactions, _stands_alone):
            if alone:
                outcomes.extend(self._apply_alone(transaction) for transaction in run)
            else:
                outcomes.extend(self._apply_run(cast("list[_NamedTransaction]", list(run))))
        self._write_log()
        return outcomes

    def _apply_alone(self, transaction: Transaction) -> Outcome:
        match transaction:
            case (DeletePrefix() as change,):
                return (self._delete_prefix(change.prefix),)
            case (Sweep() as change,):
                return (self._sweep(change.limit),)
        return InvalidRequest("a prefix is deleted in a request of its own")

    # Changes of named keys

    def _apply_run(self, transactions: Sequence[_NamedTransaction]) -> list[Outcome]:
        rows = _Rows(self._connection, self._now, transactions)
        outcomes: list[Outcome] = []
        for transaction in transactions:
            events = len(self._events)
            try:
                outcomes.append(self._apply_named(transaction, rows))
                rows.accept()
            except TenantbaseError as error:
                outcomes.append(error)
                rows.reject()
                del self._events[events:]
        self.value_bytes += rows.write()
        return outcomes

    def _apply_named(
        self, transaction: _NamedTransaction, rows: _Rows
    ) -> tuple[Applied, ...]:
        # Conditions speak of the state the sender knew: the one before the transaction.
        for change in transaction:
            if change.condition is not None:
                before = rows.get(change.key)
                version = None if before is None else before.version
                if not change.condition.holds(version):
                    raise ConditionFailed(change.key, version)
        results = []
        for change in transaction:
            applied = _outcome(change, rows.get(change.key), self._next_version)
            if applied.entry is not None or applied.removed:
                rows.put(change.key, applied.entry)
                self._record("set" if applied.entry is not None else "delete", change.key)
            results.append(applied)
        return tuple(results)

    # Changes of keys nobody has named

    def _delete_prefix(self, prefix: str) -> Applied:
        execute = self._connection.execute
        low, high = prefix_range(prefix)
        keys = execute(_IN_PREFIX, (low, high, self._now, ONE_BY_ONE + 1)).fetchall()
        if len(keys) <= ONE_BY_ONE:
            self._connection.executemany(_DELETE, keys)
            for (key,) in keys:
                self._record("delete", key)
            return Applied(removed=len(keys))
        (rows,) = execute(_COUNT_ROWS, (low, high)).fetchone()
        (expired,) = execute(_COUNT_EXPIRED, (self._now, low, high)).fetchone()
        # What lies within the new range needs no line of its own any more.
        execute("DELETE FROM deleted_prefixes WHERE low >= ? AND high <= ?", (low, high))
        execute(
            "INSERT INTO deleted_prefixes (version, low, high) VALUES (?, ?, ?)",
            (self._next_version, low, high),
        )
        self._record("reset", prefix)
        self._covers_all = True
        return Applied(removed=rows - expired)

    def _sweep(self, limit: int) -> Applied:
        removed = self._remove_expired(limit)
        removed += self._remove_deleted(limit - removed)
        removed += self._trim_log(limit - removed)
        self._swept |= removed > 0
        return Applied(removed=removed)

    def _remove_expired(self, limit: int) -> int:
        rows = self._connection.execute(_EXPIRED, (self._now, limit)).fetchall()
        self._connection.executemany(_DELETE_ROW, [(created,) for created, _, _ in rows])
        for _, key, deleted in rows:
            if not deleted:
                self._record("expire", key)
        return len(rows)

    def _remove_deleted(self, limit: int) -> int:
        """Remove rows under deleted prefixes. Nobody sees them any more, so nobody is told."""
        execute = self._connection.execute
        done = 0
        while done < limit and (
            prefix := execute("SELECT version, low, high FROM deleted_prefixes LIMIT 1").fetchone()
        ):
            version, low, high = prefix
            rows = execute(
                "SELECT created, key FROM entries WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
                (low, high, limit - done),
            ).fetchall()
            self._connection.executemany(
                _DELETE_ROW, [(created,) for created, _ in rows if created <= version]
            )
            done += len(rows)
            if done < limit:
                execute("DELETE FROM deleted_prefixes WHERE version = ?", (version,))
                self._swept = True
            else:
                # Newer entries stay: the next batch must not walk over them again.
                execute(
                    "UPDATE deleted_prefixes SET low = ? WHERE version = ?",
                    (rows[-1][1] + "\0", version),
                )
        return done

    def _trim_log(self, limit: int) -> int:
        execute = self._connection.execute
        (oldest,) = execute("SELECT min(version) FROM changes").fetchone()
        if oldest is None:
            return 0
        surplus = self._next_version - oldest - self._log_size
        count = max(0, min(surplus, limit))
        if count:
            execute("DELETE FROM changes WHERE version < ?", (oldest + count,))
        return count

    # The log

    @property
    def _next_version(self) -> int:
        return self._first + len(self._events)

    def _record(self, kind: str, key: str) -> None:
        self._events.append((self._next_version, kind, key))

    def _write_log(self) -> None:
        if self._events:
            self._connection.executemany("INSERT INTO changes VALUES (?, ?, ?)", self._events)
            self._connection.execute(
                "UPDATE state SET last_version = ?", (self._next_version - 1,)
            )


class _Rows:
    """The rows a run of transactions names: as they are, as they will be."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        now: float,
        transactions: Sequence[_NamedTransaction],
    ) -> None:
        self._connection = connection
        self._now = now
        self._entries: dict[str, Entry | None] = {}
        self._dead: set[str] = set()
        self._pending: dict[str, Entry | None] = {}
        self._accepted: dict[str, Entry | None] = {}
        named = [change for transaction in transactions for change in transaction]
        counters = {change.key for change in named if isinstance(change, Increment)}
        self._look_up(sorted(counters), "value")
        # A value that nobody computes with may be large, and is left where it is.
        self._look_up(sorted({change.key for change in named} - counters), "x''")

    def _look_up(self, keys: Sequence[str], value: str) -> None:
        for marks, batch in key_batches(keys):
            query = _LOOK_UP.format(value, marks)
            for alive, *row in self._connection.execute(query, (self._now, *batch)):
                if alive:
                    self._entries[row[0]] = Entry(*row)
                else:
                    self._dead.add(row[0])

    def get(self, key: str) -> Entry | None:
        """The living entry of a key as the transaction under way has left it."""
        if key in self._pending:
            entry = self._pending[key]
        elif key in self._accepted:
            entry = self._accepted[key]
        else:
            return self._entries.get(key)
        # It may have been stored a moment after the end of its time.
        return entry if entry is not None and entry.alive(self._now) else None

    def put(self, key: str, entry: Entry | None) -> None:
        """Change a key in the transaction under way."""
        self._pending[key] = entry

    def accept(self) -> None:
        """The transaction is made."""
        self._accepted.update(self._pending)
        self._pending.clear()

    def reject(self) -> None:
        """The transaction is not made."""
        self._pending.clear()

    def write(self) -> int:
        """Write the last state of every key that was changed; returns the bytes of values."""
        # A row that no longer counts is replaced and not updated: its successor would be
        # under the same deleted prefix.
        gone = [
            (key,) for key, entry in self._accepted.items() if entry is None or key in self._dead
        ]
        stored = [
            (e.version, e.key, e.version, e.expires_at, e.id, e.content_type, e.value)
            for e in self._accepted.values()
            if e is not None
        ]
        if gone:
            self._connection.executemany(_DELETE, gone)
        if stored:
            self._connection.executemany(_UPSERT, stored)
        return sum(len(row[-1]) for row in stored)


def _stands_alone(transaction: Transaction) -> bool:
    return any(isinstance(change, DeletePrefix | Sweep) for change in transaction)


def _outcome(change: _Named, before: Entry | None, version: int) -> Applied:
    """What a change makes of the entry that is there."""
    if isinstance(change, Delete):
        return Applied(removed=0 if before is None else 1)
    content_type, expires_at = JSON, change.expires_at
    if isinstance(change, Set):
        value, content_type = change.value, change.content_type
    elif before is None:
        value = _sum(change.initial, change.by)
    else:
        value, content_type = _sum(_integer(before), change.by), before.content_type
        expires_at = before.expires_at if expires_at is None else expires_at
    identifier = str(uuid.uuid4()) if before is None else before.id
    return Applied(
        entry=Entry(change.key, value, content_type, identifier, version, expires_at),
        created=before is None,
    )


def _integer(entry: Entry) -> int:
    text = entry.value.strip(_WHITESPACE)
    if not is_json(entry.content_type) or _INTEGER.fullmatch(text) is None:
        raise WrongType(f"the value of key {entry.key!r} is not an integer")
    if len(text) > MAX_DIGITS + 1:
        raise WrongType(f"the integer of key {entry.key!r} has more than {MAX_DIGITS:,} digits")
    return int(text)


def _sum(number: int, by: int) -> bytes:
    result = number + by
    # Compared as numbers: Python refuses to print very long ones.
    if abs(result) >= _TOO_LARGE:
        raise InvalidRequest(f"the result would have more than {MAX_DIGITS:,} digits", "by")
    return b"%d" % result
