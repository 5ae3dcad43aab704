"""The database file: its tables, migrations and connections, and the checks before it is used."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import quote

from tenantbase.errors import CannotOpen
from tenantbase.interfaces.sqlite.driver_errors import concerns_a_row, reason
from tenantbase.interfaces.sqlite.file import make_file, sync_directory
from tenantbase.interfaces.sqlite.foreign import APPLICATION_ID
from tenantbase.interfaces.sqlite.recovery import LeftoverWal, WalMark, WalNotSafe
from tenantbase.interfaces.sqlite.salvage import (
    count_sound_entries,
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
_USAGE: Final = """
        SELECT count(*), coalesce(sum(length(CAST(key AS BLOB)) - 8 + length(value)), 0)
        FROM entries WHERE NOT EXISTS (
            SELECT 1 FROM deleted_prefixes
            WHERE created <= deleted_prefixes.version AND key >= low AND key < high
        )
        """
_COUNT_DEFAULT: Final = f"""
        INSERT INTO tenants (name, entries, bytes)
        SELECT 'default', * FROM ({_USAGE})
        """

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
# every commit, which for a single write is a third of its pages. ``size``, ``content_type`` and
# ``expires_at`` belong to an entry that was set, and are null in rows of other kinds.
#
# deleted_prefixes: entries with ``low <= key < high`` made at or before ``version`` are gone,
# though their rows may still be there. ``low`` rises while they are being removed.
#
# tenants: ``entries`` and ``bytes`` are the usage: of every row not under a deleted prefix, so
# including what has expired and is not swept yet. It changes in the transaction that changes the
# rows, and costs it one page. The bytes are those of the plain key and of the value, whose length
# SQLite knows from the front of the row. ``recount`` (usage.py) compares it with the rows.
#
# tokens: ``digest`` is the SHA-256 of the token. Rows are in order of creation.
#
# access: one row. ``version`` changes with tenants, limits and tokens, but not with usage, so
# that a process learns in one small query whether what it remembers of them is still true.
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
    # Tenants and tokens. Until now there was one tenant, whose name and slash take 8 bytes.
    (
        """
        CREATE TABLE tenants (
            name TEXT PRIMARY KEY,
            entries INTEGER NOT NULL,
            bytes INTEGER NOT NULL,
            max_entries INTEGER,
            max_bytes INTEGER,
            max_requests_per_second INTEGER
        ) WITHOUT ROWID
        """,
        _COUNT_DEFAULT,
        """
        CREATE TABLE tokens (
            id TEXT NOT NULL UNIQUE,
            digest BLOB NOT NULL UNIQUE,
            name TEXT NOT NULL,
            scope TEXT NOT NULL,
            tenant TEXT,
            prefix TEXT,
            created_at REAL NOT NULL,
            expires_at REAL
        )
        """,
        "CREATE TABLE access (version INTEGER NOT NULL, closed INTEGER NOT NULL)",
        "INSERT INTO access VALUES (1, 0)",
    ),
    # Watchers learn what was set, not only that something was.
    (
        "ALTER TABLE changes ADD COLUMN size INTEGER",
        "ALTER TABLE changes ADD COLUMN content_type TEXT",
        "ALTER TABLE changes ADD COLUMN expires_at REAL",
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


def migrate(
    connection: sqlite3.Connection, migrations: Sequence[Sequence[str]] = MIGRATIONS
) -> None:
    """Apply the migrations that the database lacks, each in its own transaction."""
    for version in range(_pragma(connection, "user_version"), len(migrations)):
        try:
            _step(connection, migrations[version], version + 1)
        except sqlite3.Error as error:
            if version + 1 not in (2, 3) or not concerns_a_row(error):
                raise
            detours = _around_damage(connection, version + 1)
            _step(connection, migrations[version], version + 1, detours)


_Detours = Mapping[str, Callable[[], object]]
"""What to do instead of some statements of a migration."""


def _around_damage(connection: sqlite3.Connection, version: int) -> _Detours:
    """Find what is sound. Called outside of any transaction."""
    if version == 2:
        sound = find_sound_entries(connection, concerns_a_row)
        return {
            _COPY_ENTRIES: lambda: set_aside_entries(connection, _COPY_ENTRIES, sound),
            _DROP_ENTRIES: lambda: None,
        }
    usage = count_sound_entries(connection, f"{_USAGE} AND created = ?", concerns_a_row)
    insert = "INSERT INTO tenants (name, entries, bytes) VALUES ('default', ?, ?)"
    return {_COUNT_DEFAULT: lambda: connection.execute(insert, usage)}


def _step(
    connection: sqlite3.Connection,
    statements: Sequence[str],
    version: int,
    detours: _Detours = MappingProxyType({}),
) -> None:
    """Take a step in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            if statement in detours:
                detours[statement]()
            else:
                connection.execute(statement, {"secret": secrets.token_bytes(SECRET_BYTES)})
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


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
