"""Commands that name their keys: worked out in memory, written in a few statements.

The rows that a run of transactions names are read in one query and written at the end. So a
transaction costs no statement of its own, and one that fails leaves nothing behind.
"""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Collection, Sequence
from typing import Final

from tenantbase.commands import Applied, Delete, Increment, KeyCommand, Set
from tenantbase.entry import JSON, Entry, is_json
from tenantbase.errors import InvalidRequest, WrongType
from tenantbase.interfaces.sqlite.queries import ALIVE, key_batches
from tenantbase.scope import ScopedKey, plain_key

MAX_DIGITS: Final = 1_000
_TOO_LARGE: Final = 10**MAX_DIGITS
_INTEGER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)")
_WHITESPACE: Final = b" \t\n\r"  # what JSON allows around a value (RFC 8259, section 2)

_LOOK_UP: Final = (
    f"SELECT created, {ALIVE}, key, {{}}, content_type, id, version, expires_at"
    " FROM entries WHERE key IN ({})"
)
_INSERT: Final = """
    INSERT INTO entries (version, expires_at, id, content_type, value, created, key)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_UPDATE: Final = """
    UPDATE entries SET version = ?, expires_at = ?, id = ?, content_type = ?, value = ?
    WHERE created = ?
"""
_DELETE: Final = "DELETE FROM entries WHERE created = ?"
# As a deleted prefix that covers this row alone, made by the same version: no other line has it.
_HIDE: Final = "INSERT INTO deleted_prefixes VALUES (?, ?, ?)"


class Rows:
    """The rows that a run of transactions names, as they are and as the transactions leave them.

    Args:
        damaged: rows, by ``created``, that cannot be removed: deleting their keys hides them.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        now: float,
        commands: Sequence[KeyCommand],
        damaged: Collection[int] = (),
    ) -> None:
        self._connection = connection
        self._now = now
        self._damaged = damaged
        self._entries: dict[str, Entry] = {}
        self._created: dict[str, int] = {}
        self._dead: dict[str, int] = {}
        self._pending: dict[str, Entry | None] = {}
        self._accepted: dict[str, Entry | None] = {}
        counters = {command.key for command in commands if isinstance(command, Increment)}
        self._look_up(sorted(counters), "value")
        # A value that is not needed may be large, and is left where it is.
        self._look_up(sorted({command.key for command in commands} - counters), "x''")

    def _look_up(self, keys: Sequence[str], value: str) -> None:
        for marks, batch in key_batches(keys):
            query = _LOOK_UP.format(value, marks)
            for created, alive, *row in self._connection.execute(query, (self._now, *batch)):
                key = row[0]
                if alive:
                    self._entries[key] = Entry(*row)
                    self._created[key] = created
                else:
                    self._dead[key] = created

    def get(self, key: str) -> Entry | None:
        """The living entry of a key, as the current transaction has left it."""
        if key in self._pending:
            entry = self._pending[key]
        elif key in self._accepted:
            entry = self._accepted[key]
        else:
            return self._entries.get(key)
        # It may have been stored a moment after it expired.
        return entry if entry is not None and entry.alive(self._now) else None

    def put(self, key: str, entry: Entry | None) -> None:
        """Change one key in the current transaction."""
        self._pending[key] = entry

    def accept(self) -> None:
        """The transaction succeeded: keep its changes."""
        self._accepted.update(self._pending)
        self._pending.clear()

    def reject(self) -> None:
        """The transaction failed: drop its changes."""
        self._pending.clear()

    def write(self) -> None:
        """Write the last state of every key that was changed."""
        deleted, updated, inserted, hidden = [], [], [], []
        for key, entry in self._accepted.items():
            created = self._created.get(key)
            if entry is None:
                if created in self._damaged:
                    hidden.append((created, key, key + "\0"))
                elif created is not None:
                    deleted.append((created,))
                continue
            row = (entry.version, entry.expires_at, entry.id, entry.content_type, entry.value)
            if created is not None:
                updated.append((*row, created))
                continue
            inserted.append((*row, entry.version, key))
            if key in self._dead:
                # Not updated: the deleted prefix would still cover it.
                deleted.append((self._dead[key],))
        for statement, rows in (
            (_DELETE, deleted),
            (_UPDATE, updated),
            (_INSERT, inserted),
            (_HIDE, hidden),
        ):
            if rows:
                self._connection.executemany(statement, rows)


def outcome(command: KeyCommand, before: Entry | None, version: int) -> Applied:
    """What a command makes of the entry that is there."""
    if isinstance(command, Delete):
        return Applied(removed=0 if before is None else 1)
    content_type, expires_at = JSON, command.expires_at
    if isinstance(command, Set):
        value, content_type = command.value, command.content_type
    elif before is None:
        value = _sum(command.initial, command.by)
    else:
        value, content_type = _sum(_integer(before), command.by), before.content_type
        expires_at = before.expires_at if expires_at is None else expires_at
    identifier = str(uuid.uuid4()) if before is None else before.id
    return Applied(
        entry=Entry(ScopedKey(command.key), value, content_type, identifier, version, expires_at),
        created=before is None,
    )


def _integer(entry: Entry) -> int:
    text = entry.value.strip(_WHITESPACE)
    if not is_json(entry.content_type) or _INTEGER.fullmatch(text) is None:
        raise WrongType(f"the value of key {plain_key(entry.key)!r} is not an integer")
    if len(text.lstrip(b"-")) > MAX_DIGITS:
        raise WrongType(
            f"the integer of key {plain_key(entry.key)!r} has more than {MAX_DIGITS:,} digits"
        )
    return int(text)


def _sum(number: int, by: int) -> bytes:
    result = number + by
    # Compared as numbers: Python refuses to print very long ones.
    if abs(result) >= _TOO_LARGE:
        raise InvalidRequest(f"the result would have more than {MAX_DIGITS:,} digits", "by")
    return b"%d" % result
