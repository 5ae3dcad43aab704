"""Copies a live database, row by row, to one of its versions.

SQLite's ways to copy a database hold one snapshot from beginning to end. Meanwhile the write-ahead
log cannot start over, and grows by everything that is written. SQLite's backup interface can pause
instead, but starts again after each commit of another process.

So this works as replication does. Entries are copied in short queries, in the order of their row
numbers; then those that have changed in the meantime, by the change log, are copied again. When few
changes are left, they and the small tables are copied in one snapshot, whose version is that of the
copy. If the change log is trimmed before the copy has caught up, one long snapshot is used after all.

The copy contains what is reachable, and the last line of the change log, but no rows under deleted
prefixes and no free pages.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from tenantbase.events import EventKind
from tenantbase.interfaces.sqlite.driver_errors import is_bad_text
from tenantbase.interfaces.sqlite.foreign import APPLICATION_ID
from tenantbase.interfaces.sqlite.odd_rows import bad_text_allowed, legal_line, storable
from tenantbase.interfaces.sqlite.pacing import Pace, due_bytes
from tenantbase.interfaces.sqlite.queries import (
    DELETED,
    key_batches,
    last_version,
    snapshot,
)
from tenantbase.interfaces.sqlite.salvage import SET_ASIDE
from tenantbase.interfaces.sqlite.schema import LOWEST_ROW, SECRET_BYTES
from tenantbase.listing import prefix_range

_STEP_ROWS: Final = 500
_STEP_BYTES: Final = 1 << 20  # of values; a step takes a few milliseconds
_FOLLOW_LINES: Final = 4_000  # of the change log, read at once
_FEW_LINES: Final = 500  # are followed in the last snapshot
_MOST_ROUNDS: Final = 100  # then the last snapshot follows however many there are

# A copy that is interrupted is thrown away. In this mode SQLite makes no files beside it.
_SETTINGS: Final = (
    "PRAGMA journal_mode = OFF",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA synchronous = OFF",
    "PRAGMA cache_size = -16384",
    "PRAGMA secure_delete = 0",
)
_VERSIONS_AT: Final = 18  # which versions of the format may write and read the file: 2 means WAL
_STEP: Final = (
    f"SELECT * FROM entries WHERE created > ? AND NOT {DELETED} ORDER BY created LIMIT {_STEP_ROWS}"
)
_LINES: Final = (
    f"SELECT version, kind, key FROM changes WHERE version > ? ORDER BY version"
    f" LIMIT {_FOLLOW_LINES}"
)
_OF_KEYS: Final = f"SELECT * FROM entries WHERE key IN ({{}}) AND NOT {DELETED}"
_LAST_LINE: Final = "SELECT * FROM changes ORDER BY version DESC LIMIT 1"
_UNDER: Final = "DELETE FROM entries WHERE key >= ? AND key < ? AND created <= ?"


class Copied(NamedTuple):
    """What a copy contains.

    Attributes:
        entries: how many.
        version: as of which.
        left_out: how many rows it lacks, because their keys are not UTF-8 text: no request can name them.
    """

    entries: int
    version: int
    left_out: int


class _Piece(NamedTuple):
    """Rows that were read together.

    Attributes:
        rows: as they are written.
        last: the last one that was read, by ``created``.
        size: about how many bytes they take.
    """

    rows: Sequence[Sequence[Any]]
    last: int
    size: int


class _Overtaken(Exception):
    """Lines of the change log that were still needed are gone."""


@contextmanager
def unjournaled(path: str, fd: int) -> Iterator[sqlite3.Connection]:
    """Write a database that no other process uses, and that is thrown away if this fails.

    The file may be unlinked in the block. It has to be synced afterwards.

    Args:
        fd: the same file, open for writing. An empty file becomes a new database of ours.

    Raises:
        sqlite3.Error, OSError: it cannot be written.
    """
    new = not os.fstat(fd).st_size
    if not new:
        os.pwrite(fd, bytes((1, 1)), _VERSIONS_AT)
    uri = f"file:{quote(os.fsencode(path))}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        for setting in _SETTINGS:
            connection.execute(setting).fetchall()
        if new:
            connection.execute("PRAGMA auto_vacuum = 2")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        yield connection
    mark_as_logged(fd)


def mark_as_logged(fd: int) -> None:
    """Have SQLite use a write-ahead log for a database file, as it does for ours."""
    os.pwrite(fd, bytes((2, 2)), _VERSIONS_AT)


def copy_database(
    source: sqlite3.Connection,
    target: sqlite3.Connection,
    tell: Callable[[int], object],
    sync: Callable[[], object],
    pace: Pace,
) -> Copied:
    """Copy a database, while other processes may write to it.

    Args:
        source: a connection that reads. It holds no snapshot longer than a fraction of a second.
        target: a new database, ``unjournaled``. It gets a secret of its own, so that the copy and the
            original never believe each other's cached items.
        tell: called with the number of entries in each step.
        sync: makes what was written to the target durable. Called now and then.
        pace: rests between steps.

    Raises:
        sqlite3.Error: one of them cannot be read or written.
    """
    copying = _Copying(source, target, tell, sync, pace)
    target.execute("BEGIN")
    copying.make_tables()
    try:
        version = copying.follow()
    except _Overtaken:
        copying.start_again()
        version = copying.at_once()
    target.execute("UPDATE state SET secret = ?", (secrets.token_bytes(SECRET_BYTES),))
    (entries,) = target.execute("SELECT count(*) FROM entries").fetchone()
    target.execute("COMMIT")
    return Copied(entries, version, len(copying.left_out))


class _Copying:
    def __init__(
        self,
        source: sqlite3.Connection,
        target: sqlite3.Connection,
        tell: Callable[[int], object],
        sync: Callable[[], object],
        pace: Pace,
    ) -> None:
        self._source = source
        self._target = target
        self._tell = tell
        self._sync = sync
        self._pace = pace
        self._written = 0  # bytes
        self._synced = 0  # of those
        self._small: list[str] = []  # tables that are copied whole, in the end
        self.left_out: Final[set[int]] = set()  # rows, by ``created``
        (columns,) = source.execute("SELECT count(*) FROM pragma_table_info('entries')").fetchone()
        self._put = f"INSERT OR REPLACE INTO entries VALUES ({', '.join('?' * columns)})"

    def make_tables(self) -> None:
        """Create the tables and indexes of the source, whatever its schema."""
        for kind, name, sql in self._source.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"
            " AND name NOT LIKE 'sqlite_%' ORDER BY type DESC"
        ).fetchall():
            if name == SET_ASIDE:
                continue
            self._target.execute(sql)
            if kind == "table" and name not in ("entries", "changes", "deleted_prefixes"):
                self._small.append(name)
        (version,) = self._source.execute("PRAGMA user_version").fetchone()
        self._target.execute(f"PRAGMA user_version = {version}")

    def follow(self) -> int:
        """Copy in short queries; returns the version of the copy."""
        position = last_version(self._source)
        for _ in self._steps():
            position = self._catch_up(position, _FOLLOW_LINES)
            self._pace.rest()
            self._sync_if_due()
        for _ in range(_MOST_ROUNDS):
            before = position
            position = self._catch_up(position, _FEW_LINES)
            self._sync_if_due()
            if position == before:
                break
        with snapshot(self._source):
            position = self._catch_up(position, 0)
            self._copy_small()
        return position

    def start_again(self) -> None:
        """Empty the copy's tables."""
        for name in ("entries", "changes", *self._small):
            self._target.execute(f'DELETE FROM "{name}"')

    def at_once(self) -> int:
        """Copy in one snapshot; returns its version."""
        with snapshot(self._source):
            for _ in self._steps():
                self._sync_if_due()
            self._copy_small()
            return last_version(self._source)

    def _steps(self) -> Iterator[None]:
        """Copy the entries in the order of their rows. New ones come last."""
        after: int | None = LOWEST_ROW
        while after is not None:
            with closing(self._pieces(_STEP, (after,))) as pieces:
                piece = next(pieces, None)
            after = None
            if piece is not None:
                after = piece.last
                self._write(piece)
                self._tell(len(piece.rows))
            yield

    def _catch_up(self, position: int, few: int) -> int:
        """Copy again what has changed since a version, until at most ``few`` changes are left.

        Returns: the version up to which everything is copied.
        """
        while last_version(self._source) - position > few:
            lines = self._source.execute(_LINES, (position,)).fetchall()
            if not lines or lines[0][0] != position + 1:
                raise _Overtaken
            keys = {key: None for _, kind, key in lines if kind != EventKind.RESET}
            for version, kind, key in lines:
                if kind == EventKind.RESET:
                    self._target.execute(_UNDER, (*prefix_range(key), version))
            self._copy_keys(list(keys))
            position = lines[-1][0]
        return position

    def _copy_keys(self, keys: Sequence[str]) -> None:
        """Copy keys as they are now. Changes that are later in the change log are copied again."""
        for marks, batch in key_batches(keys):
            self._target.execute(f"DELETE FROM entries WHERE key IN ({marks})", batch)
            for piece in self._pieces(_OF_KEYS.format(marks), batch):
                self._write(piece)

    def _pieces(self, query: str, parameters: Sequence[object]) -> Generator[_Piece]:
        """Read rows of entries. Some may come twice."""
        try:
            for rows, size in _divided(self._source.execute(query, parameters)):
                named = [row for row in rows if type(row[1]) is str]
                yield self._piece(rows, named, size)
            return
        except sqlite3.OperationalError as error:
            if not is_bad_text(error):
                raise
        with bad_text_allowed(self._source):
            for rows, size in _divided(self._source.execute(query, parameters)):
                named = [row for row in map(storable, rows) if row is not None]
                yield self._piece(rows, named, size)

    def _piece(
        self, read: Sequence[Sequence[Any]], named: Sequence[Sequence[Any]], size: int
    ) -> _Piece:
        if len(named) != len(read):
            self.left_out.update({row[0] for row in read}.difference(row[0] for row in named))
        return _Piece(named, read[-1][0], size)

    def _copy_small(self) -> None:
        for name in self._small:
            self._copy_rows(name, f'SELECT * FROM "{name}"')
        with bad_text_allowed(self._source):
            line = self._source.execute(_LAST_LINE).fetchone()
        if line is None:
            return  # nothing was ever changed
        marks = ", ".join("?" * len(line))
        self._target.execute(f"INSERT INTO changes VALUES ({marks})", legal_line(line))

    def _copy_rows(self, table: str, query: str) -> None:
        for row in self._source.execute(query):
            marks = ", ".join("?" * len(row))  # the columns depend on the schema
            self._target.execute(f'INSERT INTO "{table}" VALUES ({marks})', row)

    def _write(self, piece: _Piece) -> None:
        self._target.executemany(self._put, piece.rows)
        self._written += piece.size

    def _sync_if_due(self) -> None:
        """Sync what was written, if it is enough. This is slow on purpose."""
        if self._written - self._synced >= due_bytes(self._written):
            self._synced = self._written
            self._target.execute("COMMIT")
            self._sync()
            self._target.execute("BEGIN")


def _divided(found: sqlite3.Cursor) -> Iterator[tuple[list[Sequence[Any]], int]]:
    """Rows, a few at a time, with about how many bytes they take."""
    rows: list[Sequence[Any]] = []
    size = 0
    with closing(found):  # if it is not read to its end, it holds its snapshot until it is closed
        for row in found:
            rows.append(row)
            size += _size(row)
            if size > _STEP_BYTES:
                yield rows, size
                rows, size = [], 0
    if rows:
        yield rows, size


def _size(row: Sequence[object]) -> int:
    """About how many bytes a row takes. The value comes last; the rest is small."""
    value = row[-1]
    return 200 + (len(value) if isinstance(value, bytes | str) else 0)
