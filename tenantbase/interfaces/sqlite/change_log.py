"""The change log: every version assigned, and the change that has it."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Final

from tenantbase.entry import JSON
from tenantbase.events import EventKind
from tenantbase.interfaces.planning.change_log import ChangeLog
from tenantbase.interfaces.sqlite.queries import last_version

_WRITE: Final = "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?)"
# For a set of a JSON value without an expiry, as nearly all are: each parameter costs the driver a
# thousand instructions.
_WRITE_PLAIN: Final = f"INSERT INTO changes VALUES (?, '{EventKind.SET}', ?, ?, '{JSON}', NULL)"
# Rows are copied in a third of the time that it takes to bind their columns again.
_WRITE_CREATED: Final = f"""
    INSERT INTO changes
    SELECT created, '{EventKind.SET}', key, length(value), content_type, expires_at
    FROM entries WHERE created >= ? AND created < ?
"""


class SqliteChangeLog(ChangeLog):
    """The versions assigned in one SQLite transaction.

    Some are those of created rows, which have no line here; they come before all lines.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(last_version(connection))
        self._begin = self._first
        self._connection = connection
        self._created: list[str] = []
        self._created_bytes = 0

    @property
    def changed(self) -> bool:
        """Whether anything was recorded."""
        return bool(self.lines or self._created)

    @property
    def keys(self) -> Collection[str] | None:
        keys = super().keys
        return keys if keys is None or not self._created else {*keys, *self._created}

    @property
    def value_bytes(self) -> int:
        return super().value_bytes + self._created_bytes

    def write_created(self, keys: Sequence[str], value_bytes: int) -> None:
        """Write lines for rows that were just created, with the next versions in the order of ``keys``.

        Called before anything else is recorded.

        Args:
            value_bytes: the size of all their values.
        """
        end = self._first + len(keys)
        self._connection.execute(_WRITE_CREATED, (self._first, end))
        self._first = end
        self._created += keys
        self._created_bytes += value_bytes

    def write(self) -> None:
        """Write the lines to the table."""
        others = []
        plain = []
        for line in self.lines:
            version, _, key, size, content_type, expires_at = line
            if content_type == JSON and expires_at is None:
                plain.append((version, key, size))
            else:
                others.append(line)
        if plain:
            self._connection.executemany(_WRITE_PLAIN, plain)
        if others:
            self._connection.executemany(_WRITE, others)

    def trim(self, size: int, limit: int) -> int:
        """Remove lines of earlier transactions, ``limit`` at most, so that ``size`` remain; returns how many.

        The newest line always stays: versions continue from it.
        """
        (oldest,) = self._connection.execute("SELECT min(version) FROM changes").fetchone()
        # Each version has one line, so they are counted without reading them.
        surplus = self._begin - (oldest or self._begin) - max(size, 1)
        count = max(0, min(surplus, limit))
        if count:
            self._connection.execute("DELETE FROM changes WHERE version < ?", (oldest + count,))
        return count
