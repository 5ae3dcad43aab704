"""Opens the database file: the connections to it, and the checks before it is used."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Final, NamedTuple
from urllib.parse import quote

from tenantbase.errors import CannotOpen
from tenantbase.interfaces.sqlite.driver_errors import reason
from tenantbase.interfaces.sqlite.file import make_file, sync_directory
from tenantbase.interfaces.sqlite.foreign import APPLICATION_ID
from tenantbase.interfaces.sqlite.recovery import LeftoverWal, WalMark, WalNotSafe
from tenantbase.interfaces.sqlite.schema import MIGRATIONS, SECRET_BYTES, migrate, pragma

log = logging.getLogger("tenantbase")

_OPEN_WAIT: Final = 2.0

# synchronous 2 is FULL: a commit is on disk before it returns. The fullfsync pair makes macOS
# flush the drive's own cache; elsewhere it changes nothing. Checkpoints are made by
# checkpoints.py: SQLite ignores the errors of automatic ones. cache_size is in KiB. With
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


def identity(path: str) -> tuple[int, int]:
    """Device and inode: which file a path names now.

    Looks at the path only. Opening and closing the file would drop every lock this process holds on
    it (fcntl(2), "Advisory record locking").
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
    ``mark``, an existing write-ahead log is taken to be unsafe. Without ``convert``, the schema stays
    as it is, and the connection is for maintenance.

    Raises:
        CannotOpen: one line that names the file and says why.
    """
    opened = make_file(path)
    left = None if mark is not None and mark.wal_is_safe else LeftoverWal(path)
    try:
        connection = _connect(path, "rw", _OPEN_WAIT)
        try:
            # Not by ``PRAGMA page_count``: after it, SQLite lets a file be written whose format says
            # that it is read-only.
            if not os.path.getsize(path):
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


def open_reader(path: str, busy_timeout: float, *, any_thread: bool = False) -> sqlite3.Connection:
    """Open a read-only connection, while the writing one is open.

    Its descriptor is read-only, so it can't get the exclusive lock that a checkpoint on
    closing needs, whatever the order in which connections are closed.

    Args:
        any_thread: any thread may use it, one at a time.

    Raises:
        CannotOpen: one line that names the file and says why.
    """
    try:
        connection = _connect(path, "ro", busy_timeout, any_thread)
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


def _connect(path: str, mode: str, wait: float, any_thread: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode={mode}",
        uri=True,
        timeout=wait,
        isolation_level=None,
        check_same_thread=not any_thread,
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
        application = pragma(connection, "application_id")
        version = pragma(connection, "user_version")
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
        # A process of the earlier version would continue to use the old tables.
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
        if pragma(connection, name) != value:
            raise CannotOpen(f"cannot open {path}: this SQLite refuses {name} = {value}")


def _read_secret(path: str, connection: sqlite3.Connection) -> bytes:
    row = connection.execute("SELECT secret FROM state").fetchone()
    if row is None or not isinstance(row[0], bytes) or len(row[0]) != SECRET_BYTES:
        raise CannotOpen(f"cannot open {path}: it is damaged")
    return bytes(row[0])
