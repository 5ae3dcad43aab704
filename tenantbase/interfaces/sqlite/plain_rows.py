"""Reads many plain rows in one row of a result.

SQLite's driver takes several thousand instructions for each row that it fetches, and about a thousand
for each column: it locks a mutex for each of them, and releases and takes the interpreter's lock for
each row. So rows are joined in SQL, a column at a time, and split again in Python.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from itertools import accumulate
from typing import Final, NamedTuple

from tenantbase.entry import JSON
from tenantbase.plain_entries import DIVIDER, SEPARATOR, Columns, PlainEntries, joined

FIRST_ROWS: Final = 128
"""How many rows are read at once at first, at most. After them, the sizes of the values are known."""

_MOST_ROWS: Final = 1024

# Rows with larger values are read elsewhere, so that the first read has at most half a mebibyte, and another
# one at most four.
_VALUE_BYTES: Final = 4 << 10

# A separator that is not a literal text would double the cost.
_COLUMNS: Final = f"""
    group_concat(key, '{SEPARATOR}'),
    CAST(group_concat(value, '{SEPARATOR}') AS BLOB),
    CAST(group_concat(id, '{SEPARATOR}') AS BLOB),
    CAST(group_concat(version, '{SEPARATOR}') AS BLOB)
"""
# A row made after the last prefix was deleted is under no deleted prefix. A blob is greater than anything
# else; ``typeof`` would cost the query a fifth more.
_IS_PLAIN: Final = f"""
    expires_at IS NULL AND content_type = '{JSON}' AND length(value) <= {_VALUE_BYTES} AND value >= x''
    AND created > (SELECT coalesce(max(version), 0) FROM deleted_prefixes)
"""
_READ: Final = f"""
    SELECT following, {_COLUMNS}
    FROM (
        SELECT key AS following FROM entries WHERE key >= ?1 AND key < ?2
        ORDER BY key LIMIT 1 OFFSET ?3
    ) CROSS JOIN entries
    WHERE key >= ?1 AND key < following AND {_IS_PLAIN}
"""
_COUNT: Final = "SELECT count(*) FROM (SELECT 1 FROM entries WHERE key >= ?1 AND key < ?2 LIMIT ?3)"
_READ_ALL: Final = f"SELECT {_COLUMNS} FROM entries WHERE key >= ?1 AND key < ?2 AND {_IS_PLAIN}"

# Ids and versions are rendered as they are, so nothing else may be in a row that has been tampered with; see
# ``odd_rows.py``.
_ID_CHARACTERS: Final = b"0123456789abcdef-" + DIVIDER
_ID_BYTES: Final = 36 + len(DIVIDER)
_DIGITS: Final = b"0123456789" + DIVIDER


class PlainRows(NamedTuple):
    """Entries, their columns, and the key after them."""

    entries: PlainEntries
    columns: Columns
    following: str


def scan_plain(
    connection: sqlite3.Connection, low: str, high: str, limit: int, max_bytes: int
) -> PlainRows | None:
    """The first entries of a range of keys, ``low <= key < high``, in ascending order, while all of
    them are plain. Called in a snapshot.

    Returns: at most ``limit`` entries, or fewer once their values reach ``max_bytes``. The key after them
        is ``high`` at the end of the range. It stops early, at most ``FIRST_ROWS`` rows before a row that is
        not a plain entry, is deleted or has a value above 4 KiB. None if there is no entry before that.
    """
    parts: list[PlainEntries] = []
    columns = Columns([], [], [], [])
    count = size = 0
    rows = FIRST_ROWS
    while count < limit and size < max_bytes and low < high:
        read = _read(connection, low, high, min(rows, limit - count))
        if read is not None:
            part, added, low = _cut(read, max_bytes - size)
            parts.append(part)
            for column, more in zip(columns, added, strict=True):
                column += more  # type: ignore[operator]  # both have the same type
            count += len(part)
            size += part.value_bytes
            rows = min(_MOST_ROWS, (max_bytes - size) * count // max(size, 1) + 1)
        elif rows > FIRST_ROWS:
            rows = FIRST_ROWS  # these may still be plain
        else:
            break
    return PlainRows(joined(parts), columns, low) if parts else None


def _cut(read: PlainRows, max_bytes: int) -> PlainRows:
    """The first of the rows, until their values reach ``max_bytes``."""
    if read.entries.value_bytes <= max_bytes:  # nearly always
        return read
    keys, values, ids, versions = read.columns
    fitting = bisect_left(list(accumulate(map(len, values))), max_bytes) + 1
    if fitting == len(keys):
        return read
    first = Columns(keys[:fitting], values[:fitting], ids[:fitting], versions[:fitting])
    return PlainRows(PlainEntries.of(first), first, keys[fitting])


def _read(connection: sqlite3.Connection, low: str, high: str, count: int) -> PlainRows | None:
    """The first ``count`` rows of a range, or all of them if there are fewer.

    None if one of these rows is not a plain entry, or if there is none.
    """
    following, *joined_columns = connection.execute(_READ, (low, high, count)).fetchone()
    if following is None:
        (found,) = connection.execute(_COUNT, (low, high, count + 1)).fetchone()
        if found > count:
            return None  # not one of them is plain
        following, count = high, found
        joined_columns = connection.execute(_READ_ALL, (low, high)).fetchone()
    keys, values, ids, versions = joined_columns
    if keys is None or versions.translate(None, _DIGITS):
        return None
    if ids.translate(None, _ID_CHARACTERS) or len(ids) != _ID_BYTES * count - len(DIVIDER):
        return None
    columns = Columns(
        keys.split(SEPARATOR), values.split(DIVIDER), ids.split(DIVIDER), versions.split(DIVIDER)
    )
    # SQLite joins rows in the order in which it finds them, which is that of the keys; but it promises
    # no order.
    if any(len(column) != count for column in columns) or columns.keys != sorted(columns.keys):
        return None
    return PlainRows(PlainEntries(count, *joined_columns), columns, following)
