"""The change log: every version assigned, and the change that has it."""

from __future__ import annotations

import sqlite3

from tenantbase.interfaces.planning.change_log import ChangeLog
from tenantbase.interfaces.sqlite.queries import last_version


class SqliteChangeLog(ChangeLog):
    """The versions assigned in one SQLite transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(last_version(connection))
        self._connection = connection

    def write(self) -> None:
        """Write the lines to the table."""
        if self.lines:
            self._connection.executemany(
                "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?)", self.lines
            )

    def trim(self, size: int, limit: int) -> int:
        """Remove old lines, ``limit`` at most, so that ``size`` remain; returns how many.

        The newest line always stays: versions continue from it.
        """
        (oldest,) = self._connection.execute("SELECT min(version) FROM changes").fetchone()
        # Each version has one line, so they are counted without reading them.
        surplus = self._first - (oldest or self._first) - max(size, 1)
        count = max(0, min(surplus, limit))
        if count:
            self._connection.execute("DELETE FROM changes WHERE version < ?", (oldest + count,))
        return count
