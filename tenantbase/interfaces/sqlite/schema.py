"""The database file: its tables, and what is made sure of before it is used."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Final, NamedTuple
from urllib.parse import quote

from tenantbase.errors import CannotOpen, Damaged, DiskFailed, StoreFull, StoreUnavailable
from tenantbase.interfaces.sqlite.file import make_file, sync_directory
from tenantbase.interfaces.sqlite.foreign import APPLICATION_ID
from tenantbase.interfaces.sqlite.recovery import LeftLog, LogMark, LogNotSafe

log = logging.getLogger("tenantbase")

SECRET_BYTES: Final = 32

# One tuple of statements for each step from one schema version to the next; ``:secret`` in one
# stands for new random bytes. Steps that were released are never edited: a database that has
# taken them would stay as it was.
#
# entries: ``created`` is the version that made the entry. It is also the row's number, so the
# index on ``key`` holds it, and whether a deleted prefix covers a row is known without
# reading the row. ``value`` comes last: SQLite reads a row from its front and need not touch
# the overflow pages of a large value to reach the columns before it. A table WITHOUT ROWID
# scans faster but takes new keys at a third of the speed, and large values at a fifth.
#
# changes: every version given out has exactly one row here, so versions have no gaps. The newest
# row is never removed: it says which version was the last. A counter of its own would be one
# page more in every commit, which for a single write is a third of its pages.
#
# deleted_prefixes: entries with ``low <= key < high`` made at or before ``version`` are gone,
# though their rows may still be there. ``low`` rises while they are being removed.
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        """
        CREATE TABLE entries (
            created INTEGER PRIMARY KEY,
            key TEXT NOT NULL UNIQUE,
            version INTEGER NOT NULL,
            expires_at REAL,
            id TEXT NOT NULL,
            content_type TEXT NOT NULL,
            value BLOB NOT NULL
        )
        """,
        "CREATE INDEX entries_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL",
        "CREATE TABLE changes (version INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL)",
        """
        CREATE TABLE deleted_prefixes (
            version INTEGER PRIMARY KEY,
            low TEXT NOT NULL,
            high TEXT NOT NULL
        )
        """,
        "CREATE TABLE state (secret BLOB NOT NULL)",
        "INSERT INTO state VALUES (:secret)",
    ),
    # Keys are scoped: those that were there belong to the tenant "default". The entries are
    # copied: changed in place, ``a`` would collide with a key that is ``default/a`` already.
    (
        """
        CREATE TABLE scoped_entries (
            created INTEGER PRIMARY KEY,
            key TEXT NOT NULL UNIQUE,
            version INTEGER NOT NULL,
            expires_at REAL,
            id TEXT NOT NULL,
            content_type TEXT NOT NULL,
            value BLOB NOT NULL
        )
        """,
        """
        INSERT INTO scoped_entries
        SELECT created, 'default/' || key, version, expires_at, id, content_type, value
        FROM entries ORDER BY created
        """,
        "DROP TABLE entries",
        "ALTER TABLE scoped_entries RENAME TO entries",
        "CREATE INDEX entries_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL",
        "UPDATE changes SET key = 'default/' || key",
        "UPDATE deleted_prefixes SET low = 'default/' || low, high = 'default/' || high",
    ),
)

_OPEN_WAIT: Final = 2.0

# synchronous 2 is FULL: a commit is on disk before it returns. The fullfsync pair makes macOS
# flush the drive's own cache; elsewhere it changes nothing. Checkpoints are made by
# sql_commit.py: SQLite ignores the errors of automatic ones. cache_size is in KiB. With
# secure_delete, the default of Debian's SQLite, pages are zeroed when they are freed: deleting much
# would write as much to the log, and on a full disk there is no room for that.
_WRITER: Final = (
    ("synchronous", 2),
    ("fullfsync", 1),
    ("checkpoint_fullfsync", 1),
    ("wal_autocheckpoint", 0),
    ("journal_size_limit", 64 * 1024 * 1024),
    ("cache_size", -16384),
    ("temp_store", 2),
    ("secure_delete", 0),
)
_READER: Final = (("query_only", 1), ("cache_size", -8192), ("temp_store", 2))


def reason(error: Exception) -> str:
    """What a driver's error means, as the end of a sentence about the database."""
    code = error_code(error)
    return _REASONS.get(code & 0xFF, f"SQLite reports error {code}")


_REASONS: Final = {
    sqlite3.SQLITE_BUSY: "it is locked by another program",
    sqlite3.SQLITE_LOCKED: "it is locked by another program",
    sqlite3.SQLITE_PERM: "access to it is denied",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_CANTOPEN: "it, or a file beside it, cannot be opened",
    sqlite3.SQLITE_NOTADB: "it is not a database",
    sqlite3.SQLITE_CORRUPT: "it is damaged",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
}


_KINDS: Final[dict[int, type[StoreUnavailable]]] = {
    sqlite3.SQLITE_FULL: StoreFull,
    sqlite3.SQLITE_CORRUPT: Damaged,
    sqlite3.SQLITE_IOERR: DiskFailed,
}


def unavailable(error: Exception, what: str) -> StoreUnavailable:
    """A driver's error as one of ours; ``what`` begins the sentence."""
    kind = _KINDS.get(error_code(error) & 0xFF, StoreUnavailable)
    return kind(f"{what}: {reason(error)}")


def error_code(error: Exception) -> int:
    """SQLite's extended result code; 1 (SQLITE_ERROR) where an error has none."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)


def identity(path: str) -> tuple[int, int]:
    """Device and inode: which file a path names now.

    A look at the path only. Opening and closing the file would drop every lock this process
    holds on it (fcntl(2), "Advisory record locking").
    """
    found = os.stat(path)
    return found.st_dev, found.st_ino


class Opened(NamedTuple):
    """The writing connection, which file it is on, and the random bytes made with the database."""

    connection: sqlite3.Connection
    identity: tuple[int, int]
    secret: bytes


def open_writer(path: str, busy_timeout: float, mark: LogMark | None = None) -> Opened:
    """Open the writing connection: make the file if there is none, bring its schema up to date.

    The caller holds the write lock. ``path`` is absolute, ``busy_timeout`` in seconds. Without
    a ``mark`` nothing is known of the log that may be there.

    Raises:
        CannotOpen: one line that names the file and says why.
    """
    opened = make_file(path)
    left = None if mark is not None and mark.log_is_safe else LeftLog(path)
    try:
        connection = _connect(path, "rw", _OPEN_WAIT)
        try:
            _recognise(path, connection, left, mark)
            if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
                raise CannotOpen(f"cannot open {path}: no write-ahead log on this file system")
            _configure(path, connection, _WRITER)
            migrate(connection)
            secret = _read_secret(path, connection)
            connection.execute(f"PRAGMA busy_timeout = {round(busy_timeout * 1000)}")
            if left is not None:
                sync_directory(path)
            if identity(path) != opened:
                raise CannotOpen(f"cannot open {path}: it was replaced meanwhile")
        except LogNotSafe:
            _close_without_checkpoint(path, connection)
            raise
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise CannotOpen(f"cannot open {path}: {reason(error)}") from error
    if mark is not None:
        mark.log_was_made_safe()
    return Opened(connection, opened, secret)


def open_reader(path: str, busy_timeout: float) -> sqlite3.Connection:
    """Open a connection that only reads, while the writing one is open.

    Its descriptor is read-only, so it can't get the exclusive lock that a checkpoint on
    closing needs, whatever the order in which connections are closed.

    Raises:
        CannotOpen: one line that names the file and says why.
    """
    try:
        connection = _connect(path, "ro", busy_timeout)
        try:
            _configure(path, connection, _READER)
            _read_secret(path, connection)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise CannotOpen(f"cannot open {path}: {reason(error)}") from error
    return connection


def migrate(
    connection: sqlite3.Connection, migrations: Sequence[Sequence[str]] = MIGRATIONS
) -> None:
    """Take the steps the database has not taken yet, each in a transaction of its own."""
    for version in range(_pragma(connection, "user_version"), len(migrations)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in migrations[version]:
                connection.execute(statement, {"secret": secrets.token_bytes(SECRET_BYTES)})
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def _connect(path: str, mode: str, wait: float) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode={mode}",
        uri=True,
        timeout=wait,
        isolation_level=None,
    )


def _close_without_checkpoint(path: str, connection: sqlite3.Connection) -> None:
    """Close a connection, but not as the last one; who closes last must not write (see above)."""
    with closing(_connect(path, "ro", 0.0)) as other, closing(connection):
        other.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _recognise(
    path: str, connection: sqlite3.Connection, left: LeftLog | None, mark: LogMark | None
) -> None:
    """Make sure, before anything is written, that the file is ours and can be written."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        application = _pragma(connection, "application_id")
        version = _pragma(connection, "user_version")
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION_ID and (application or version or tables):
            raise CannotOpen(f"cannot open {path}: it is a database of another program")
        if left is not None:
            left.write_again()
    finally:
        connection.execute("ROLLBACK")
    if version > len(MIGRATIONS):
        raise CannotOpen(
            f"cannot open {path}: it was made by a newer tenantbase "
            f"(schema {version}, this one knows {len(MIGRATIONS)})"
        )
    if 0 < version < len(MIGRATIONS) and mark is not None:
        # A process of the earlier version would go on with the tables it knows.
        if not mark.is_alone():
            raise CannotOpen(
                f"cannot open {path}: it is to be converted from schema {version} to"
                f" {len(MIGRATIONS)}, and another process has it open; end that one first"
            )
        log.warning(
            "converting %s from schema %d to %d; this may take minutes if it is large",
            path,
            version,
            len(MIGRATIONS),
        )


def _configure(
    path: str, connection: sqlite3.Connection, settings: Sequence[tuple[str, int]]
) -> None:
    for name, value in settings:
        connection.execute(f"PRAGMA {name} = {value}")
        if _pragma(connection, name) != value:
            raise CannotOpen(f"cannot open {path}: this SQLite refuses {name} = {value}")


def _read_secret(path: str, connection: sqlite3.Connection) -> bytes:
    row = connection.execute("SELECT secret FROM state").fetchone()
    if row is None or not isinstance(row[0], bytes) or len(row[0]) != SECRET_BYTES:
        raise CannotOpen(f"cannot open {path}: it is damaged")
    return bytes(row[0])


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)
