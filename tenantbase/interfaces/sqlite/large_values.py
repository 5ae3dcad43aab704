"""Copies large values between Python and the database's pages, without copies in between.

A value that is bound to a statement is in memory three times: ours, SQLite's copy of the parameter, and
the row that it assembles. The parameter even stays until the statement is used again. A value in a
result is in memory twice. So the row is written with zeros in place of the value, and SQLite's blob
interface (https://sqlite.org/c3ref/blob_open.html) fills them in, in the same transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from tenantbase.interfaces.sqlite.odd_rows import VALUE

LARGE_BYTES: Final = 4 << 20
"""A larger value is written and read by itself."""


def unless_larger(size: int) -> str:
    """SQL for the value of an entry, or null if it is larger, so that ``read_large`` must read it.

    SQLite knows the length from the front of the row, without touching the value's pages.
    """
    return f"CASE WHEN length(value) > {size} THEN NULL ELSE {VALUE} END"


UNLESS_LARGE: Final = unless_larger(LARGE_BYTES)
"""SQL for the value of an entry, or null if it must be read by itself."""

_CREATED: Final = "SELECT created FROM entries WHERE key = ?"
_VALUE_AT: Final = -2
_CREATED_AT: Final = -1


def write_rows(connection: sqlite3.Connection, statement: str, rows: Sequence[Any]) -> None:
    """Insert or update rows of ``entries``, within a transaction.

    Args:
        statement: with ``{}`` in place of the value's parameter.
        rows: the parameters of each; the last two are the value and the row's ``created``.
    """
    small = rows
    if large := [row for row in rows if len(row[_VALUE_AT]) > LARGE_BYTES]:
        small = [row for row in rows if len(row[_VALUE_AT]) <= LARGE_BYTES]
    if small:
        connection.executemany(statement.format("?"), small)
    for row in large:
        value, created = row[_VALUE_AT], row[_CREATED_AT]
        connection.execute(statement.format("zeroblob(?)"), (*row[:_VALUE_AT], len(value), created))
        with connection.blobopen("entries", "value", created) as blob:
            blob.write(value)


def read_large(connection: sqlite3.Connection, key: str) -> bytes:
    """The value of a key that has a row. Called in the snapshot in which the row was read."""
    (created,) = connection.execute(_CREATED, (key,)).fetchone()
    with connection.blobopen("entries", "value", created, readonly=True) as blob:
        return blob.read()
