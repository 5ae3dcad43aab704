"""Reading: which rows count, and the queries for them. Plain functions of a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain, islice, starmap
from operator import attrgetter
from typing import Any, Final, cast

from msgspec.structs import replace

from tenantbase.entry import Entry
from tenantbase.errors import LeftOut, StoreError
from tenantbase.events import ChangeEvent, EventKind
from tenantbase.interfaces.sqlite.driver_errors import concerns_a_row, is_bad_text, unavailable
from tenantbase.interfaces.sqlite.large_values import UNLESS_LARGE, read_large, unless_larger
from tenantbase.interfaces.sqlite.odd_rows import (
    TYPE,
    despite_bad_text,
    entry_of,
    fetched,
    is_legal_line,
    meta_of,
    rows_of_keys,
)
from tenantbase.interfaces.sqlite.plain_rows import scan_plain
from tenantbase.listing import EntryMeta, Folded, KeyRange, Place
from tenantbase.plain_entries import Render
from tenantbase.scope import ScopedKey, plain_key

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

_ENTRY: Final = f"key, {UNLESS_LARGE}, {TYPE}, id, version, expires_at"
_KEYS_A_QUERY: Final = 256
_READ_BYTES: Final = 4 << 20  # of values read in one query, not counting the last one
_READ: Final = f"SELECT {_ENTRY} FROM entries WHERE key IN ({{}}) AND {ALIVE}"
_LEAST_PLAIN_ROWS: Final = 16  # for fewer, another statement is not worth it
# Other rows of a list are fetched in chunks, without looking at each. Larger values are read by
# themselves, so that a chunk is at most a mebibyte.
_CHUNK_ROWS: Final = 32
_CHUNK_VALUE_BYTES: Final = 32 << 10
_SCANNED: Final = f"key, {unless_larger(_CHUNK_VALUE_BYTES)}, {TYPE}, id, version, expires_at"
_VALUE: Final = attrgetter("value")
_META: Final = f"key, length(value), {TYPE}, id, version, expires_at"
_RANGE: Final = (
    f"SELECT {{}} FROM entries WHERE key >= ? AND key < ? AND {ALIVE} ORDER BY key {{}} LIMIT ?"
)
# SQLite knows the length of a value without reading it, provided only the length leaves the subquery.
_COUNT: Final = f"""
    SELECT count(*), coalesce(sum(length(CAST(key AS BLOB)) + size), 0), max(key)
    FROM ({_RANGE.format("key, length(value) AS size", "ASC")})
"""

_CHANGES: Final = (
    "SELECT version, kind, key, size, content_type, expires_at FROM changes"
    " WHERE version > ? ORDER BY version LIMIT ?"
)


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
                found[row[0]] = entry_of(*row)
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
        rows = rows_of_keys(connection, _READ.format("?"), (key, now))
        return _entry(connection, rows[0]) if rows else None
    except sqlite3.DatabaseError as error:
        if not concerns_a_row(error):
            raise
        return unavailable(error, f"the entry of key {plain_key(key)!r} cannot be read")


def _entry(connection: sqlite3.Connection, row: Sequence[Any]) -> Entry:
    """The entry of a row, in the snapshot in which it was read."""
    key, value, *rest = row
    return entry_of(key, read_large(connection, key) if value is None else value, *rest)


def scan(
    connection: sqlite3.Connection,
    wanted: KeyRange,
    limit: int,
    max_bytes: int,
    now: float,
    render: Render | None = None,
) -> tuple[Sequence[Entry | Folded], bool]:
    """See ``Store.scan``."""

    def scan_rows(
        wanted: KeyRange, limit: int, max_bytes: int
    ) -> tuple[list[Entry | Folded], bool]:
        scan = partial(_scan_rows, connection, wanted, limit, max_bytes, now)
        return despite_bad_text(connection, scan)

    if wanted.delimiter or wanted.descending or limit < _LEAST_PLAIN_ROWS:
        return scan_rows(wanted, limit, max_bytes)
    with snapshot(connection):
        low, high = wanted.bounds()
        found = scan_plain(connection, low, high, limit, max_bytes)
        if found is None:
            return scan_rows(wanted, limit, max_bytes)
        plain, columns, following = found
        size = plain.value_bytes
        if len(plain) < limit and size < max_bytes and following < high:
            rest = replace(wanted, start=following)
            left, more = scan_rows(rest, limit - len(plain), max_bytes - size)
            return [*plain, *left], more
    if render is not None:
        plain.rendered = render(columns)
    return plain, following < high


def _scan_rows(
    connection: sqlite3.Connection, wanted: KeyRange, limit: int, max_bytes: int, now: float
) -> tuple[list[Entry | Folded], bool]:
    items: list[Entry | Folded] = []
    with closing(_rows(connection, _SCANNED, wanted, limit, now)) as rows:
        if wanted.delimiter:
            found = (row if isinstance(row, Folded) else entry_of(*row) for row in rows)
            return items, _add_one_by_one(connection, items, found, limit, max_bytes)
        entries = starmap(entry_of, cast("sqlite3.Cursor", rows))
        size = 0
        while chunk := list(islice(entries, min(_CHUNK_ROWS, limit - len(items)))):
            try:
                held = sum(map(len, map(_VALUE, chunk)))
            except TypeError:  # one is null
                held = max_bytes
            if size + held >= max_bytes:
                left = chain(chunk, entries)
                return items, _add_one_by_one(connection, items, left, limit, max_bytes - size)
            items += chunk
            size += held
        return items, next(entries, None) is not None


def _add_one_by_one(
    connection: sqlite3.Connection,
    items: list[Entry | Folded],
    found: Iterable[Entry | Folded],
    limit: int,
    max_bytes: int,
) -> bool:
    """Add what was found to ``items``, up to ``limit`` of them, or until their values reach
    ``max_bytes``; read the values that are missing. Returns: whether there may be more."""
    size = 0
    for item in found:
        if len(items) == limit:
            return True
        if isinstance(item, Entry):
            value: Any = item.value
            if value is None:
                item = replace(item, value=read_large(connection, item.key))
            size += len(item.value)
        items.append(item)
        if size >= max_bytes:
            return True
    return False


def scan_meta(
    connection: sqlite3.Connection, wanted: KeyRange, limit: int, now: float
) -> tuple[list[EntryMeta | Folded], bool]:
    """See ``Store.scan_meta``."""
    return despite_bad_text(connection, partial(_scan_meta, connection, wanted, limit, now))


def _scan_meta(
    connection: sqlite3.Connection, wanted: KeyRange, limit: int, now: float
) -> tuple[list[EntryMeta | Folded], bool]:
    items: list[EntryMeta | Folded] = []
    with closing(_rows(connection, _META, wanted, limit, now)) as rows:
        for row in rows:
            if len(items) == limit:
                return items, True
            items.append(row if isinstance(row, Folded) else meta_of(*row))
    return items, False


def _rows(
    connection: sqlite3.Connection, columns: str, wanted: KeyRange, limit: int, now: float
) -> sqlite3.Cursor | Generator[Sequence[Any] | Folded]:
    """At most one item more than ``limit``, which shows whether there are more.

    A cursor that is not read to its end holds its snapshot until it is closed.
    """
    query = _RANGE.format(columns, "DESC" if wanted.descending else "ASC")
    if wanted.delimiter:
        return _folding_rows(connection, query, wanted, limit, now)
    return fetched(connection, query, (*wanted.bounds(), now, limit + 1))


def _folding_rows(
    connection: sqlite3.Connection, query: str, wanted: KeyRange, limit: int, now: float
) -> Generator[Sequence[Any] | Folded]:
    """After each folded key, a new index search skips what was folded, however much that is."""
    left = limit + 1
    with snapshot(connection):
        while left > 0:
            folded = None
            with closing(fetched(connection, query, (*wanted.bounds(), now, left))) as rows:
                for row in rows:
                    left -= 1
                    folded = wanted.folded(row[0])
                    if folded is not None:
                        break
                    yield row
            if folded is None:
                return
            yield Folded(folded)
            wanted = wanted.after(Place(folded, folded=True))


def count(
    connection: sqlite3.Connection, wanted: KeyRange, limit: int, now: float
) -> tuple[int, int, ScopedKey | None]:
    """See ``Store.count``."""
    entries, size, last = connection.execute(_COUNT, (*wanted.bounds(), now, limit)).fetchone()
    return entries, size, last if entries == limit else None


def changes(
    connection: sqlite3.Connection, after: int, limit: int
) -> tuple[list[ChangeEvent], bool]:
    """See ``Store.changes``. A line that was changed by hand is missing, as if the log had been trimmed."""
    with snapshot(connection):
        newest = last_version(connection)
        (oldest,) = connection.execute("SELECT min(version) FROM changes").fetchone()
        if not (oldest or 1) - 1 <= after <= newest:
            return [], False
        events: list[ChangeEvent] = []
        try:
            for line in connection.execute(_CHANGES, (after, limit)):
                if not is_legal_line(*line):
                    return [], False
                version, kind, *rest = line
                events.append(ChangeEvent(version, EventKind(kind), *rest))
        except sqlite3.OperationalError as error:
            if not is_bad_text(error):
                raise
            return [], False
        return events, True


def last_version(connection: sqlite3.Connection) -> int:
    """See ``Store.last_version``."""
    (version,) = connection.execute("SELECT max(version) FROM changes").fetchone()
    return version or 0
