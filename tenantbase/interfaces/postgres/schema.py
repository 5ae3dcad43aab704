"""The tables, their migrations, and the checks before a database is used.

All tables and functions are in a schema of their own. The functions are in ``functions.py``.
"""

from __future__ import annotations

import secrets
from typing import Final

from tenantbase.errors import CannotOpen, StoreUnavailable
from tenantbase.interfaces.postgres.connection import SCHEMA, Connection
from tenantbase.interfaces.postgres.driver_errors import sqlstate_of
from tenantbase.interfaces.postgres.functions import FUNCTIONS

SECRET_BYTES: Final = 32

# One text of statements for each schema version. Never edit a released one: databases that have
# applied it would not change.
#
# clock: one row, updated by every group, and locked until its COMMIT has ended. So positions become
# visible in their order. Its pages stay nearly empty: every new version of the row then fits beside the
# old one, and no index is touched. ``at`` is the database's time in Unix seconds, ``trimmed`` the
# position up to which rows of commits were removed, ``prefixes`` the position of the last row of
# deleted_prefixes, ``access`` the version of tenants, their limits and tokens, ``groups`` how many
# groups there were, ``epoch`` that of the newest term.
#
# terms: one row for each promotion. ``inherited`` is the position at which the term began. It does not
# order the terms: without a write before the first promotion, the first two begin at position 0.
#
# commits: ``position`` is that of the group's last change, null if no key changed. ``made`` is false
# for a mark: a group with that token was not made and never will be. ``hashes`` are the 32-bit hashes of
# the changed keys, little endian; null: any key may have changed.
#
# changes: one row for each position that was given out.
#
# entries: ``created`` is the position that made the entry, ``version`` that of its last change.
# Compressing values would cost more than it saves: many are small, or compressed already.
#
# deleted_prefixes: entries with ``low <= key < high`` created at or before ``version`` are gone,
# though their rows may still be there. ``low`` rises while they are being removed.
#
# tenants: ``entries`` and ``bytes`` count every row not under a deleted prefix, expired ones included.
#
# tokens: ``digest`` is the SHA-256 of the token. ``number`` is their order.
MIGRATIONS: Final[tuple[str, ...]] = (
    """
    CREATE TABLE clock (
        position bigint NOT NULL,
        at double precision NOT NULL,
        trimmed bigint NOT NULL,
        prefixes bigint NOT NULL,
        access bigint NOT NULL,
        closed boolean NOT NULL,
        groups bigint NOT NULL,
        epoch bytea
    ) WITH (fillfactor = 10);
    CREATE TABLE terms (
        system bigint,
        timeline bigint,
        epoch bytea NOT NULL UNIQUE,
        inherited bigint NOT NULL,
        number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
        PRIMARY KEY (system, timeline)
    );
    CREATE TABLE commits (
        token uuid PRIMARY KEY,
        made boolean NOT NULL,
        position bigint UNIQUE,
        number bigint NOT NULL,
        at double precision NOT NULL,
        hashes bytea
    );
    CREATE INDEX commits_number ON commits (number);
    CREATE TABLE changes (
        position bigint PRIMARY KEY,
        kind text NOT NULL,
        key text COLLATE "C" NOT NULL,
        size bigint,
        content_type text,
        expires_at double precision
    );
    CREATE TABLE entries (
        key text COLLATE "C" PRIMARY KEY,
        created bigint NOT NULL,
        version bigint NOT NULL,
        expires_at double precision,
        id uuid NOT NULL,
        content_type text NOT NULL,
        value bytea NOT NULL
    );
    ALTER TABLE entries ALTER COLUMN value SET STORAGE EXTERNAL;
    CREATE INDEX entries_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL;
    CREATE TABLE deleted_prefixes (
        version bigint PRIMARY KEY,
        low text COLLATE "C" NOT NULL,
        high text COLLATE "C" NOT NULL
    );
    CREATE TABLE tenants (
        name text COLLATE "C" PRIMARY KEY,
        entries bigint NOT NULL,
        bytes bigint NOT NULL,
        max_entries bigint,
        max_bytes bigint,
        max_requests_per_second bigint
    );
    INSERT INTO tenants (name, entries, bytes) VALUES ('default', 0, 0);
    CREATE TABLE tokens (
        number bigint PRIMARY KEY,
        id text NOT NULL UNIQUE,
        digest bytea NOT NULL UNIQUE,
        name text NOT NULL,
        scope text NOT NULL,
        tenant text,
        prefix text,
        created_at double precision NOT NULL,
        expires_at double precision
    );
    INSERT INTO clock VALUES (0, 0, 0, 0, 1, false, 0, NULL);
    """ + FUNCTIONS,
)

_EXISTS: Final = "SELECT to_regnamespace($1) IS NOT NULL AS schema, to_regclass($2) AS ours"
_STATE: Final = "SELECT secret, schema FROM state FOR UPDATE"
_TRIES: Final = 3
# Another node makes the same tables: a unique violation, or an object that has just been made.
_MADE_BY_ANOTHER: Final = {"23505", "42P06", "42P07"}
_MAKE: Final = f"""
    CREATE SCHEMA {SCHEMA};
    CREATE TABLE state (secret bytea NOT NULL, schema integer NOT NULL);
"""


async def migrate(connection: Connection) -> None:
    """Create the tables, or bring them to the newest version, in one transaction.

    Raises:
        CannotOpen: they are of a newer version, or not ours.
        StoreError: the server refuses.
    """
    for left in reversed(range(_TRIES)):
        version = await schema_version(connection)
        if version == len(MIGRATIONS):
            return
        try:
            return await _migrate(connection, version)
        except StoreUnavailable as error:
            if not left or sqlstate_of(error.__cause__) not in _MADE_BY_ANOTHER:
                raise


async def _migrate(connection: Connection, version: int | None) -> None:
    async with connection.transaction():
        if version is None:
            await connection.execute(_MAKE)
            secret = secrets.token_bytes(SECRET_BYTES)
            await connection.fetch("INSERT INTO state VALUES ($1, 0)", secret)
        ((_, version),) = await connection.fetch(_STATE)
        for migration in MIGRATIONS[version:]:
            await connection.execute(migration)
        await connection.fetch("UPDATE state SET schema = $1", len(MIGRATIONS))


async def schema_version(connection: Connection) -> int | None:
    """The version of the tables; None: there are none yet.

    Raises:
        CannotOpen: they are of a newer version, or not ours.
    """
    ((schema, ours),) = await connection.fetch(_EXISTS, SCHEMA, f"{SCHEMA}.state")
    if not schema:
        return None
    if ours is None:
        raise CannotOpen(f"its schema {SCHEMA!r} was not made by tenantbase")
    ((version,),) = await connection.fetch("SELECT schema FROM state")
    if version > len(MIGRATIONS):
        raise CannotOpen(
            f"its tables have version {version}, and this tenantbase knows only"
            f" {len(MIGRATIONS)}: update tenantbase"
        )
    return int(version)
