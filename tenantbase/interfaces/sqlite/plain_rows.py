"""Reads many plain rows in one row of a result.

SQLite's driver takes several thousand instructions for each row that it fetches, and about a thousand
for each column: it locks a mutex for each of them, and releases and takes the interpreter's lock for
each row. So rows are joined in SQL, a column at a time, and split again in Python.
"""

from __future__ import annotations

import sqlite3
from operator import methodcaller
from typing import Final

from tenantbase.entry import JSON
from tenantbase.plain_entries import PlainEntries

ROWS: Final = 128
"""How many rows are read at once, at most."""

# Rows with larger values are read elsewhere, so that one read has at most half a mebibyte.
_VALUE_BYTES: Final = 4 << 10

# JSON texts have no control characters but line breaks and tabs. A key that has this one is read
# elsewhere. A separator that is not a literal text would double the cost.
_SEPARATOR: Final = "\x01"

# A row made after the last prefix was deleted is under no deleted prefix.
_READ: Final = f"""
    SELECT following, group_concat(key, '{_SEPARATOR}'),
        CAST(group_concat(value, '{_SEPARATOR}') AS BLOB),
        CAST(group_concat(id, '{_SEPARATOR}') AS BLOB),
        CAST(group_concat(version, '{_SEPARATOR}') AS BLOB)
    FROM (
        SELECT key AS following FROM entries WHERE key >= ?1 AND key < ?2
        ORDER BY key LIMIT 1 OFFSET ?3
    ) CROSS JOIN entries
    WHERE key >= ?1 AND key < following AND expires_at IS NULL AND content_type = '{JSON}'
        AND length(value) <= {_VALUE_BYTES}
        AND created > (SELECT coalesce(max(version), 0) FROM deleted_prefixes)
"""
_divided: Final = methodcaller("split", _SEPARATOR.encode())


def scan_plain(
    connection: sqlite3.Connection, low: str, high: str, limit: int, max_bytes: int
) -> tuple[PlainEntries, int, str]:
    """The first entries of a range of keys, ``low <= key < high``, in ascending order, while all of
    them are plain. Called in a snapshot.

    Returns: at most ``limit`` entries, whose values have less than ``max_bytes``; the bytes of their
        values; and the key after them. It stops early at a row that is not a plain entry, is deleted
        or has a value above 4 KiB, and at most ``ROWS`` rows before the end of the range.
    """
    entries = PlainEntries([], [], [], [])
    size = 0
    while len(entries) < limit:
        read = _read(connection, low, high, min(ROWS, limit - len(entries)))
        if read is None:
            break
        more, following = read
        held = sum(map(len, more.values))
        if size + held >= max_bytes:
            break
        entries.extend(more)
        size += held
        low = following
    return entries, size, low


def _read(
    connection: sqlite3.Connection, low: str, high: str, count: int
) -> tuple[PlainEntries, str] | None:
    """The first ``count`` rows of a range, and the key after them.

    None if one of these rows is not a plain entry, or if the range ends with them.
    """
    following, joined, *others = connection.execute(_READ, (low, high, count)).fetchone()
    if joined is None:
        return None
    keys = joined.split(_SEPARATOR)
    entries = PlainEntries(keys, *map(_divided, others))
    # SQLite joins rows in the order in which it finds them, which is that of the keys; but it promises
    # no order.
    if keys != sorted(keys) or any(len(column) != count for column in entries.columns):
        return None
    return entries, following
