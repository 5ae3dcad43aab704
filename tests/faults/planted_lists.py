"""Planted bugs in lists: remembered pages that outlive what they show."""

from __future__ import annotations

import sqlite3
from collections.abc import Hashable, Sequence
from typing import Any

from tenantbase.entry import Entry
from tenantbase.interfaces.sqlite.remembered_pages import RememberedPages
from tenantbase.listing import Folded


class Unforgotten(RememberedPages):
    """A remembered page is not forgotten when the data version changes."""

    def scan(
        self, connection: sqlite3.Connection, *asked: Any
    ) -> tuple[Sequence[Entry | Folded], bool]:
        return super().scan(_Unchanged(connection), *asked)  # type: ignore[arg-type]


class _Unchanged:
    """A connection to a database that never changes, according to its data version."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *args: Any) -> sqlite3.Cursor:
        if statement == "PRAGMA data_version":
            statement = "SELECT 1"
        return self._connection.execute(statement, *args)


class LateVersion(RememberedPages):
    """A page is remembered with the data version from after it was read."""

    def scan(
        self, connection: sqlite3.Connection, *asked: Any
    ) -> tuple[Sequence[Entry | Folded], bool]:
        self._connection = connection
        return super().scan(connection, *asked)

    def _note(self, asked: Hashable, page: Any) -> None:
        super()._note(asked, page)
        if page is not None:
            found = self._connection.execute("PRAGMA data_version").fetchone()
            (self._data_version,) = found
