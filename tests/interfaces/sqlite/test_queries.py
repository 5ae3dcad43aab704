"""Queries during concurrent writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tenantbase.interfaces.sqlite import queries as sql_queries


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.db"
    with _connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(
            "CREATE TABLE changes (version INTEGER PRIMARY KEY, kind TEXT, key TEXT,"
            " size INTEGER, content_type TEXT, expires_at REAL)"
        )
        lines = [(version, "set", f"k{version}") for version in range(1, 11)]
        connection.executemany("INSERT INTO changes (version, kind, key) VALUES (?, ?, ?)", lines)
    return path


@pytest.fixture
def reader(path: Path) -> Iterator[sqlite3.Connection]:
    with _connect(path) as connection:
        yield connection


def _connect(path: Path) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(path, isolation_level=None))


def test_a_page_of_the_log_is_complete_despite_concurrent_trimming(
    path: Path, reader: sqlite3.Connection
) -> None:
    def trim(statement: str) -> None:
        if statement.startswith("SELECT version, kind, key"):  # it is about to begin
            with _connect(path) as other:
                other.execute("DELETE FROM changes WHERE version < 6")

    reader.set_trace_callback(trim)
    events, complete = sql_queries.changes(reader, 2, 100)
    assert complete and [event.version for event in events] == list(range(3, 11))
    assert sql_queries.changes(reader, 2, 100) == ([], False)  # that it was trimmed is reported


def test_an_error_ends_the_snapshot(path: Path, reader: sqlite3.Connection) -> None:
    with pytest.raises(KeyError), sql_queries.snapshot(reader):
        assert sql_queries.last_version(reader) == 10
        raise KeyError
    assert not reader.in_transaction
    with _connect(path) as other:
        other.execute("INSERT INTO changes (version, kind, key) VALUES (11, 'set', 'k')")
    assert sql_queries.last_version(reader) == 11
