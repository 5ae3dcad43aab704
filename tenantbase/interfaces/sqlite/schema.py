"""The tables of a database file, and the migrations that make them."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from tenantbase.interfaces.sqlite.driver_errors import concerns_a_row
from tenantbase.interfaces.sqlite.foreign import APPLICATION_ID
from tenantbase.interfaces.sqlite.salvage import (
    count_sound_entries,
    find_sound_entries,
    set_aside_entries,
)

SECRET_BYTES: Final = 32
LOWEST_ROW: Final = -(1 << 63)
"""The lowest number of a row. Ours begin with 1, but a row may have been changed by hand."""

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


def migrate(
    connection: sqlite3.Connection, migrations: Sequence[Sequence[str]] = MIGRATIONS
) -> None:
    """Apply the migrations that the database lacks, each in its own transaction."""
    for version in range(pragma(connection, "user_version"), len(migrations)):
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


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """The value of a pragma that is a number."""
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)
