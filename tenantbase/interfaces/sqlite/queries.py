"""Reading: which rows count, and the queries for them. Plain functions of a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final

from tenantbase.entry import MAX_KEY_BYTES, Entry
from tenantbase.errors import LeftOut, StoreError
from tenantbase.events import ChangeEvent, EventKind
from tenantbase.interfaces.sqlite.driver_errors import concerns_a_row, unavailable
from tenantbase.interfaces.sqlite.large_values import UNLESS_LARGE, read_large
from tenantbase.scope import plain_key

# Greater than every legal key: the highest character, one time more than fits in a key.
_ABOVE_ALL: Final = "\U0010ffff" * (MAX_KEY_BYTES // 4 + 1)

# Whether a row is under a deleted prefix. The first comparison settles it for nearly every row
# without searching that table, which is usually empty and never large.
DELETED: Final = """(
    created <= (SELECT coalesce(max(version), 0) FROM deleted_prefixes)
    AND EXISTS (
        SELECT 1 FROM deleted_prefixes
        WHERE created <= deleted_prefixes.version AND key >= low AND key < high
    )
)"""

# Whether a row is an entry at a time, its one parameter. CASE keeps SQLite from reading a deleted
# row's expiry: all that DELETED needs is in the index on key, so a million such rows are skipped
# in milliseconds.
ALIVE: Final = f"CASE WHEN {DELETED} THEN 0 ELSE expires_at IS NULL OR expires_at > ? END"

# The same, but NULL for a row under a deleted prefix.
STATE: Final = ALIVE.replace("THEN 0", "THEN NULL")

_NO_VALUE: Final = "x''"
_ENTRY: Final = "key, {}, content_type, id, version, expires_at"
_KEYS_A_QUERY: Final = 256
_READ_BYTES: Final = 4 << 20  # of values read in one query, not counting the last one
_READ: Final = f"SELECT {_ENTRY.format(UNLESS_LARGE)} FROM entries WHERE key IN ({{}}) AND {ALIVE}"
_RANGE: Final = f"FROM entries WHERE key >= ? AND key < ? AND {ALIVE} ORDER BY key LIMIT ?"
_SCAN: Final = f"SELECT {_ENTRY.format(UNLESS_LARGE)} {_RANGE}"
_SCAN_KEYS: Final = f"SELECT {_ENTRY.format(_NO_VALUE)} {_RANGE}"


def prefix_range(prefix: str) -> tuple[str, str]:
    """Bounds ``low <= key < high`` that hold for exactly the keys that begin with ``prefix``.

    SQLite compares text as the bytes of its UTF-8, which is the order of code points.
    """
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return prefix, _ABOVE_ALL
    # The code points U+D800 to U+DFFF are surrogates, which UTF-8 leaves out.
    successor = "\ue000" if stem[-1] == "\ud7ff" else chr(ord(stem[-1]) + 1)
    return prefix, stem[:-1] + successor


def key_batches(keys: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The keys in batches for ``key IN (...)``: the placeholders, and the values to bind.

    A batch is padded to a power of two with its last key. That leaves few different statements, and
    the driver's cache holds them all.
    """
    for start in range(0, len(keys), _KEYS_A_QUERY):
        batch = list(keys[start : start + _KEYS_A_QUERY])
        size = 1 << (len(batch) - 1).bit_length()
        batch.extend(batch[-1:] * (size - len(batch)))
        yield ",".join("?" * size), batch


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Run the block's statements on one state of the database."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:  # after some errors, SQLite itself has ended it
            connection.execute("ROLLBACK")


def read(
    connection: sqlite3.Connection, keys: Sequence[str], now: float
) -> list[Entry | None | StoreError]:
    """See ``Store.read``."""
    found = None
    try:
        if len(keys) > _KEYS_A_QUERY:
            with snapshot(connection):
                found = _read(connection, keys, now)
        else:
            found = _read(connection, keys, now)
    except sqlite3.DatabaseError as error:
        if not concerns_a_row(error):
            raise
    if found is not None:
        return [found.get(key) for key in keys]
    with snapshot(connection):
        return list(_read_in_order(connection, keys, now))


def _read(
    connection: sqlite3.Connection, keys: Sequence[str], now: float
) -> dict[str, Entry] | None:
    """The entries of these keys; None if they are too large to be read at once."""
    found: dict[str, Entry] = {}
    size = 0
    for marks, batch in key_batches(keys):
        with closing(connection.execute(_READ.format(marks), (*batch, now))) as rows:
            for row in rows:
                if row[1] is None:
                    return None
                found[row[0]] = Entry(*row)
                size += len(row[1])
                if size > _READ_BYTES:
                    return None
    return found


def _read_in_order(
    connection: sqlite3.Connection, keys: Sequence[str], now: float
) -> Iterator[Entry | None | StoreError]:
    """Reads keys one by one, so that each has its own error and the first ones always fit."""
    size = 0
    for key in keys:
        if size > _READ_BYTES:
            yield LeftOut("it did not fit into what is read at once")
            continue
        result = _read_alone(connection, key, now)
        size += len(result.value) if isinstance(result, Entry) else 0
        yield result


def _read_alone(connection: sqlite3.Connection, key: str, now: float) -> Entry | None | StoreError:
    try:
        row = connection.execute(_READ.format("?"), (key, now)).fetchone()
        return None if row is None else _entry(connection, row)
    except sqlite3.DatabaseError as error:
        if not concerns_a_row(error):
            raise
        return unavailable(error, f"the entry of key {plain_key(key)!r} cannot be read")


def _entry(connection: sqlite3.Connection, row: Sequence[Any]) -> Entry:
    """The entry of a row, in the snapshot in which it was read."""
    key, value, *rest = row
    return Entry(key, read_large(connection, key) if value is None else value, *rest)


def scan(
    connection: sqlite3.Connection,
    prefix: str,
    after: str,
    limit: int,
    max_bytes: int | None,
    now: float,
) -> tuple[list[Entry], bool]:
    """See ``Store.scan``; ``max_bytes`` None: ``Store.scan_keys``."""
    low, high = prefix_range(prefix)
    if after >= low:
        low = after + "\0"  # the next greater text: keys never contain this character
    query = _SCAN_KEYS if max_bytes is None else _SCAN
    entries: list[Entry] = []
    size = 0
    # A cursor that is not read to its end holds its snapshot until it is closed.
    with closing(connection.execute(query, (low, high, now, limit + 1))) as rows:
        for row in rows:
            if len(entries) == limit:
                return entries, True
            # Inline, because a call for each row took a quarter of a scan's time.
            entry = Entry(*row) if row[1] is not None else _entry(connection, row)
            entries.append(entry)
            size += len(entry.value)
            if max_bytes is not None and size >= max_bytes:
                return entries, True
    return entries, False


def changes(
    connection: sqlite3.Connection, after: int, limit: int
) -> tuple[list[ChangeEvent], bool]:
    """See ``Store.changes``."""
    with snapshot(connection):
        newest = last_version(connection)
        (oldest,) = connection.execute("SELECT min(version) FROM changes").fetchone()
        if not (oldest or 1) - 1 <= after <= newest:
            return [], False
        rows = connection.execute(
            "SELECT version, kind, key FROM changes WHERE version > ? ORDER BY version LIMIT ?",
            (after, limit),
        )
        return [ChangeEvent(version, EventKind(kind), key) for version, kind, key in rows], True


def last_version(connection: sqlite3.Connection) -> int:
    """See ``Store.last_version``."""
    (version,) = connection.execute("SELECT max(version) FROM changes").fetchone()
    return version or 0
