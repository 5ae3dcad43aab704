"""The change log: every version assigned, and the change that has it."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Final

from tenantbase.events import EventKind
from tenantbase.interfaces.sqlite.queries import last_version

_SET: Final = str(EventKind.SET)
_Line = tuple[int, str, str, int | None, str | None, float | None]


class ChangeLog:
    """The versions assigned in one SQLite transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._first = last_version(connection) + 1
        self._events: list[_Line] = []

    def __len__(self) -> int:
        return len(self._events)

    @property
    def next_version(self) -> int:
        """The version that the next change will get."""
        return self._first + len(self._events)

    @property
    def keys(self) -> Collection[str] | None:
        """Every key that changed; None means that any key may have."""
        if any(event[1] == EventKind.RESET for event in self._events):
            return None
        return {event[2] for event in self._events}

    @property
    def value_bytes(self) -> int:
        """The total size of the values that were set."""
        return sum([event[3] or 0 for event in self._events])

    def record(self, kind: EventKind, key: str) -> None:
        """Assign the next version; see ``ChangeEvent``."""
        # As a plain str: sqlite3 searches its adapters for any subclass.
        self._events.append((self.next_version, str(kind), key, None, None, None))

    def record_set(self, key: str, size: int, content_type: str, expires_at: float | None) -> None:
        """Assign the next version to an entry that was set."""
        self._events.append((self.next_version, _SET, key, size, content_type, expires_at))

    def take_back(self, length: int) -> None:
        """Forget all but the first ``length`` versions, whose changes were undone."""
        del self._events[length:]

    def write(self) -> None:
        """Write the lines to the table."""
        if self._events:
            self._connection.executemany(
                "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?)", self._events
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
