"""The table of values of the naive and the FastAPI service."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

# As durable as tenantbase, and the fastest such setting: a commit is one fsync of the log.
PRAGMAS: Final = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
CREATE: Final = "CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
SELECT: Final = "SELECT value FROM entries WHERE key = ?"
SELECT_FROM: Final = "SELECT key, value FROM entries WHERE key >= ? ORDER BY key LIMIT ?"
UPSERT: Final = "INSERT OR REPLACE INTO entries (key, value) VALUES (?, ?)"


def create(path: Path, entries: Mapping[str, str]) -> None:
    """Create a database with these entries."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(PRAGMAS)
        with database:
            database.execute(CREATE)
            database.executemany(UPSERT, entries.items())
