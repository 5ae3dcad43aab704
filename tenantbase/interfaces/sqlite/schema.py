"""The database file: its tables, migrations and connections, and the checks before it is used."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Final, NamedTuple
from urllib.parse import quote

from tenantbase.errors import CannotOpen, Damaged, DiskFailed, StoreFull, StoreUnavailable
from tenantbase.interfaces.sqlite.file import make_file, sync_directory
from tenantbase.interfaces.sqlite.foreign import APPLICATION_ID
from tenantbase.interfaces.sqlite.recovery import LeftoverWal, WalMark, WalNotSafe
from tenantbase.interfaces.sqlite.salvage import (
    Sound,
    find_sound_entries,
    set_aside_entries,
)

log = logging.getLogger("tenantbase")

SECRET_BYTES: Final = 32

EXPIRY_INDEX: Final = (
    "CREATE INDEX entries_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL"
)
_COPY_ENTRIES: Final = """
        INSERT INTO scoped_entries
        SELECT created, 'default/' || key, version, expires_at, id, content_type, value
        FROM entries ORDER BY created
        """
_DROP_ENTRIES: Final = "DROP TABLE entries"

# The migrations: one tuple of statements for each schema version, where ``:secret`` stands for new
# random bytes. Never edit a released one: databases that have applied it would not change.
#
# entries: ``created`` is the version that made the entry. It is also the row's number, so the
# index on ``key`` holds it, and whether a deleted prefix covers a row is known without
# reading the row. ``value`` comes last: SQLite reads a row from its front and need not touch
# the overflow pages of a large value to reach the columns before it. A table WITHOUT ROWID
# scans faster but takes new keys at a third of the speed, and large values at a fifth.
#
# changes: every version given out has exactly one row here, so versions have no gaps. The newest
# row is never removed: it says which version was the last. A separate counter would add a page to
# every commit, which for a single write is a third of its pages.
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
        EXPIRY_INDEX,
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
    # Keys become scoped: existing ones belong to the tenant "default". The entries are copied:
    # changed in place, ``a`` would collide with an existing key ``default/a``.
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
        _COPY_ENTRIES,
        _DROP_ENTRIES,
        "ALTER TABLE scoped_entries RENAME TO entries",
        EXPIRY_INDEX,
        "UPDATE changes SET key = 'default/' || key",
        "UPDATE deleted_prefixes SET low = 'default/' || low, high = 'default/' || high",
    ),
)

_OPEN_WAIT: Final = 2.0

# synchronous 2 is FULL: a commit is on disk before it returns. The fullfsync pair makes macOS
# flush the drive's own cache; elsewhere it changes nothing. Checkpoints are made by
# commit.py: SQLite ignores the errors of automatic ones. cache_size is in KiB. With
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
    """A driver's error in plain words, as the end of a sentence about the database."""
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


_READ_ERRORS: Final = {
    sqlite3.SQLITE_IOERR_READ,
    sqlite3.SQLITE_IOERR_SHORT_READ,
    sqlite3.SQLITE_IOERR_CORRUPTFS,
}


def unavailable(error: Exception, what: str) -> StoreUnavailable:
    """Translate a driver's error into one of ours; ``what`` begins its sentence."""
    kind = _KINDS.get(error_code(error) & 0xFF, StoreUnavailable)
    return kind(f"{what}: {reason(error)}")


def error_code(error: Exception) -> int:
    """SQLite's extended result code; 1 (SQLITE_ERROR) where an error has none."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)


def concerns_a_row(error: sqlite3.Error) -> bool:
    """Whether an error may concern a single row: a page is damaged or cannot be read."""
    code = error_code(error)
    return code & 0xFF == sqlite3.SQLITE_CORRUPT or code in _READ_ERRORS


def identity(path: str) -> tuple[int, int]:
    """Device and inode: which file a path names now.

    A look at the path only. Opening and closing the file would drop every lock this process
    holds on it (fcntl(2), "Advisory record locking").
    """
    found = os.stat(path)
    return found.st_dev, found.st_ino


class Opened(NamedTuple):
    """The writing connection, its file's identity, and the database's random bytes."""

    connection: sqlite3.Connection
    identity: tuple[int, int]
    secret: bytes


def open_writer(
    path: str, busy_timeout: float, mark: WalMark | None = None, *, convert: bool = True
) -> Opened:
    """Open the writing connection, creating the file or migrating its schema as needed.

    The caller holds the write lock. ``path`` is absolute, ``busy_timeout`` in seconds. Without a
    ``mark``, a write-ahead log that is there may be unsafe. Without ``convert``, the schema stays
    as it is, and the connection is for maintenance.

    Raises:
        CannotOpen: one line that names the file and says why.
    """
    opened = make_file(path)
    left = None if mark is not None and mark.wal_is_safe else LeftoverWal(path)
    try:
        connection = _connect(path, "rw", _OPEN_WAIT)
        try:
            if not _pragma(connection, "page_count"):
                # Free pages of a new database can be given back in steps.
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            _check_ownership(path, connection, left, mark if convert else None)
            if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
                raise CannotOpen(f"cannot open {path}: no write-ahead log on this file system")
            _configure(path, connection, _WRITER)
            if convert:
                migrate(connection)
            secret = _read_secret(path, connection)
            connection.execute(f"PRAGMA busy_timeout = {round(busy_timeout * 1000)}")
            if left is not None:
                sync_directory(path)
            if identity(path) != opened:
                raise CannotOpen(f"cannot open {path}: it was replaced in the meantime")
        except WalNotSafe:
            close_without_checkpoint(path, connection)
            raise
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise CannotOpen(f"cannot open {path}: {reason(error)}") from error
    if mark is not None:
        mark.wal_was_made_safe()
    return Opened(connection, opened, secret)


def open_reader(path: str, busy_timeout: float) -> sqlite3.Connection:
    """Open a read-only connection, while the writing one is open.

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


@contextmanager
def busy_timeout(connection: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """Use another busy timeout in the block."""
    (before,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA busy_timeout = {before}")


def migrate(
    connection: sqlite3.Connection, migrations: Sequence[Sequence[str]] = MIGRATIONS
) -> None:
    """Apply the migrations that the database lacks, each in its own transaction."""
    for version in range(_pragma(connection, "user_version"), len(migrations)):
        try:
            _step(connection, migrations[version], version + 1)
        except sqlite3.Error as error:
            if version + 1 != 2 or not concerns_a_row(error):
                raise
            sound = find_sound_entries(connection, concerns_a_row)
            _step(connection, migrations[version], version + 1, sound)


def _step(
    connection: sqlite3.Connection,
    statements: Sequence[str],
    version: int,
    sound: Sound | None = None,
) -> None:
    """Take a step in one transaction; if something is damaged, with what is ``sound``."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            if sound is not None and statement == _COPY_ENTRIES:
                set_aside_entries(connection, statement, sound)
            elif sound is None or statement != _DROP_ENTRIES:
                connection.execute(statement, {"secret": secrets.token_bytes(SECRET_BYTES)})
        connection.execute(f"PRAGMA user_version = {version}")
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


def close_without_checkpoint(path: str, connection: sqlite3.Connection) -> None:
    """Close a connection, but not as the last one, which would make a checkpoint."""
    with closing(_connect(path, "ro", 0.0)) as other, closing(connection):
        other.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _check_ownership(
    path: str, connection: sqlite3.Connection, left: LeftoverWal | None, mark: WalMark | None
) -> None:
    """Check, before anything is written, that the file is ours and can be written."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        application = _pragma(connection, "application_id")
        version = _pragma(connection, "user_version")
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION_ID and (application or version or tables):
            raise CannotOpen(f"cannot open {path}: it is a database of another program")
        if left is not None:
            left.rewrite()
    finally:
        connection.execute("ROLLBACK")
    if version > len(MIGRATIONS):
        raise CannotOpen(
            f"cannot open {path}: it was made by a newer tenantbase "
            f"(schema {version}, this one knows {len(MIGRATIONS)})"
        )
    if 0 < version < len(MIGRATIONS) and mark is not None:
        # A process of the earlier version would go on using the old tables.
        if not mark.is_alone():
            raise CannotOpen(
                f"cannot open {path}: it must be converted from schema {version} to"
                f" {len(MIGRATIONS)}, and another process has it open; stop that one first"
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
