"""Commands that name their keys: computed in memory, written in a few statements.

The rows that a run of transactions names are read in one query and written at the end. So a
transaction costs no statement of its own, and one that fails leaves nothing behind.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Final

from tenantbase.commands import MAX_RETURNED_BYTES, Increment, KeyCommand
from tenantbase.entry import JSON, Entry
from tenantbase.interfaces.planning.rows import NamedRows, returns
from tenantbase.interfaces.sqlite.large_values import write_rows
from tenantbase.interfaces.sqlite.odd_rows import TYPE, VALUE, entry_of, is_sound, rows_of_keys
from tenantbase.interfaces.sqlite.plain_sets import INSERT_PLAIN
from tenantbase.interfaces.sqlite.queries import STATE, key_batches
from tenantbase.interfaces.sqlite.usage import Usage, expired_rows
from tenantbase.scope import tenants_of

_LOOK_UP: Final = (
    f"SELECT key, {TYPE}, id, version, expires_at, created, {STATE}, length(value){{}}"
    " FROM entries WHERE key IN ({})"
)
_INSERT: Final = """
    INSERT INTO entries (key, version, expires_at, id, content_type, value, created)
    VALUES (?, ?, ?, ?, ?, {}, ?)
"""
_UPDATE: Final = """
    UPDATE entries SET version = ?, expires_at = ?, id = ?, content_type = ?, value = {}
    WHERE created = ?
"""
# Usually nothing else has changed. Each parameter costs the driver a thousand instructions, and setting
# an expiry costs a search in its index.
_UPDATE_VALUE: Final = "UPDATE entries SET version = ?, value = {} WHERE created = ?"
_DELETE: Final = "DELETE FROM entries WHERE created = ?"
# A deleted prefix that covers only this row, with the row's own version, which no other line has.
_HIDE: Final = "INSERT INTO deleted_prefixes VALUES (?, ?, ?)"


class Rows(NamedRows):
    """The rows that some transactions name.

    Args:
        usage: counts what the transactions change.
        damaged: rows, by ``created``, that cannot be removed: deleting their keys hides them.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        now: float,
        commands: Sequence[KeyCommand],
        usage: Usage,
        damaged: Collection[int] = (),
    ) -> None:
        super().__init__(now)
        self._connection = connection
        self._damaged = damaged
        self._odd: set[str] = set()  # keys of living entries with an illegal column
        counters = {command.key for command in commands if isinstance(command, Increment)}
        ordered = sorted(counters)
        others = sorted({command.key for command in commands} - counters)
        names = tenants_of(others)
        if ordered:
            names |= tenants_of(ordered)
        for name in names:
            self.add_tenant(name, usage.of(name))
        self._look_up(ordered, f", {VALUE}")
        # A value that is not needed may be large, and is left where it is.
        self._look_up(others, "")
        returned = sorted({command.key for command in commands if returns(command)})
        self.returned_bytes = sum(self.sizes.get(key, 0) for key in returned)
        if self.returned_bytes <= MAX_RETURNED_BYTES:
            self._look_up(returned, f", {VALUE}")

    def _count_expired(self, tenant: str) -> tuple[int, int]:
        return expired_rows(self._connection, tenant, self._now)

    def _look_up(self, keys: Sequence[str], value: str) -> None:
        for marks, batch in key_batches(keys):
            query = _LOOK_UP.format(value, marks)
            for row in rows_of_keys(self._connection, query, (self._now, *batch)):
                # Spelled out, because unpacking with a star creates a list for each row.
                if value:
                    key, content_type, id_, version, expires_at, created, state, size, found = row
                else:
                    key, content_type, id_, version, expires_at, created, state, size = row
                    found = b""
                if state is not None:
                    self.sizes[key] = size
                if state:
                    meta = content_type, id_, version, expires_at
                    if not is_sound(*meta):
                        self._odd.add(key)
                        self.entries[key] = entry_of(key, found, *meta)
                    else:
                        self.entries[key] = Entry(key, found, *meta)
                    self.created[key] = created
                else:
                    self.dead[key] = created

    def write(self) -> None:
        """Write the last state of every changed key, and count what has not been counted yet."""
        self.finish()
        deleted, updated, changed, hidden = [], [], [], []
        plain, inserted = [], []
        for key, entry in self.accepted.items():
            created = self.created.get(key)
            if entry is None:
                if created in self._damaged:
                    hidden.append((created, key, key + "\0"))
                elif created is not None:
                    deleted.append((created,))
                elif key in self.dead:  # set and deleted again
                    deleted.append((self.dead[key],))
                continue
            version, value = entry.version, entry.value
            meta = (entry.expires_at, entry.id, entry.content_type)
            if created is not None:
                before = self.entries[key]
                same = meta == (before.expires_at, before.id, before.content_type)
                if same and key not in self._odd:
                    updated.append((version, value, created))
                else:
                    changed.append((version, *meta, value, created))
                continue
            if entry.expires_at is None and entry.content_type == JSON:
                plain.append((key, entry.id, value, version))
            else:
                inserted.append((key, version, *meta, value, version))
            if key in self.dead:
                # Insert instead of updating: the deleted prefix would still cover the old row.
                deleted.append((self.dead[key],))
        if deleted:
            self._connection.executemany(_DELETE, deleted)
        if updated:
            write_rows(self._connection, _UPDATE_VALUE, updated)
        if changed:
            write_rows(self._connection, _UPDATE, changed)
        if plain:
            write_rows(self._connection, INSERT_PLAIN, plain)
        if inserted:
            write_rows(self._connection, _INSERT, inserted)
        if hidden:
            self._connection.executemany(_HIDE, hidden)
