"""A database on PostgreSQL as the source or the target of a move; see ``interfaces/moving.py``.

The target's tables are in a schema of another name, which servers do not look for. In the end, one
transaction renames it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from secrets import token_bytes
from typing import Any, Final

import msgspec

from tenantbase.access import Access
from tenantbase.errors import CannotOpen, CannotWrite, InUse
from tenantbase.events import ChangeEvent, EventKind
from tenantbase.interfaces.moving import (
    PAGE_BYTES,
    PAGE_ROWS,
    TENANT_COLUMNS,
    TOKEN_COLUMNS,
    Progress,
    Row,
    identity_of,
    tenant_rows,
    token_rows,
)
from tenantbase.interfaces.postgres.access import read_access
from tenantbase.interfaces.postgres.address import DatabaseAddress, Host
from tenantbase.interfaces.postgres.connection import SCHEMA, Connection, Rows
from tenantbase.interfaces.postgres.driver_errors import SessionLost, Unsettled
from tenantbase.interfaces.postgres.schema import MIGRATIONS, SECRET_BYTES, schema_version
from tenantbase.interfaces.postgres.survey import (
    CONFIRM,
    ERRORS,
    NO_ANSWER,
    Found,
    check_confirms,
    check_settings,
    deadline,
    primaries_of,
    standby_of,
    survey,
    why,
)
from tenantbase.listing import prefix_range

_MOVING: Final = f"{SCHEMA}_moving"
# A statement that reads or writes a page takes a fraction of this; one on all rows may take minutes.
_PATIENCE_SECONDS: Final = 60.0
# While rows of the other database are read, a transaction may be idle for long.
_SETTINGS: Final = {
    "lock_timeout": "0",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "tcp_user_timeout": "5000",
    "tcp_keepalives_idle": "5",
    "client_connection_check_interval": "1000",
}
_ROW: Final = "key, created, version, expires_at, id, content_type, value"
# The sizes of values are known without reading them, so a page of large values is never read whole.
_PAGE: Final = f"""
    SELECT {_ROW} FROM entries JOIN (
        SELECT key, sum(octet_length(value)) OVER (ORDER BY key) - octet_length(value) AS before
        FROM (
            SELECT key, value FROM entries
            WHERE key > $1 {{}} AND NOT EXISTS (
                SELECT FROM deleted_prefixes AS hidden
                WHERE created <= hidden.version AND key >= low AND key < high
            )
            ORDER BY key LIMIT {PAGE_ROWS}
        ) AS first_rows
    ) AS sized USING (key)
    WHERE before < {PAGE_BYTES} ORDER BY key
"""
_ALL: Final = _PAGE.format("")
_AMONG: Final = _PAGE.format("AND key = ANY($2)")
_CHANGE: Final = "position, kind, key, size, content_type, expires_at"
_CHANGES: Final = f"""
    SELECT {_CHANGE} FROM changes WHERE position > $1 ORDER BY position LIMIT $2
"""
# Lines are removed from the oldest on. So if there is one at or before a position, all after it are
# there. A database that was never changed has none.
_REACHED: Final = """
    SELECT EXISTS (SELECT FROM changes WHERE position <= $1) OR NOT EXISTS (SELECT FROM changes)
"""
_LAST: Final = f"SELECT {_CHANGE} FROM changes ORDER BY position DESC LIMIT 1"
_OTHERS: Final = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'tenantbase'
        AND pid <> pg_backend_pid()
"""
_PUT: Final = f"""
    INSERT INTO entries ({_ROW})
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::double precision[],
        $5::uuid[], $6::text[], $7::bytea[])
    ON CONFLICT (key) DO UPDATE SET created = excluded.created, version = excluded.version,
        expires_at = excluded.expires_at, id = excluded.id,
        content_type = excluded.content_type, value = excluded.value
"""
_HIDE: Final = "DELETE FROM entries WHERE key >= $1 AND key < $2 AND created <= $3"
_BEGIN: Final = f"""
    DROP SCHEMA IF EXISTS {_MOVING} CASCADE;
    CREATE SCHEMA {_MOVING};
    CREATE TABLE state (secret bytea NOT NULL, schema integer NOT NULL);
    CREATE TABLE moving (source bytea NOT NULL, copied text, version bigint NOT NULL, steps bigint NOT NULL);
"""
_NOTE: Final = """
    UPDATE moving SET source = $1, copied = $2, version = $3, steps = steps + 1
    WHERE steps = $4 RETURNING steps
"""
_SHOW: Final = f"""
    DROP TABLE moving;
    ALTER SCHEMA {_MOVING} RENAME TO {SCHEMA}
"""


class PostgresRows:
    """The rows of a database of the newest schema."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def rows(self, after: str, among: Sequence[str] | None = None) -> list[Row]:
        """See ``interfaces.moving.Rows``."""
        if among is None:
            found = await self._read(_ALL, after)
        else:
            found = await self._read(_AMONG, after, list(among))
        return [Row(*row)._replace(id=str(row["id"])) for row in found]

    async def _read(self, statement: str, *args: object) -> Rows:
        return await self._connection.fetch(statement, *args)


class PostgresSource(PostgresRows):
    """A database that is moved.

    All reads are confirmed: otherwise a failover could lose entries that were copied.

    Attributes:
        identity: see ``interfaces.moving.Source``.
    """

    def __init__(self, connection: Connection, secret: bytes) -> None:
        super().__init__(connection)
        self.identity: Final = identity_of(secret)
        self._quiet = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls, address: DatabaseAddress, *, replicated: bool, timeout: float
    ) -> AsyncIterator[PostgresSource]:
        """Connect to the primary.

        Args:
            replicated, timeout: as for ``PostgresStore.open``.

        Raises:
            CannotOpen: it cannot be used, or has no database of the newest schema.
        """
        async with _connected(address, SCHEMA, replicated, timeout) as connection:
            version = await schema_version(connection)
            if version != len(MIGRATIONS):
                raise CannotOpen(
                    f"{address} has schema {version}, not {len(MIGRATIONS)}"
                    if version
                    else f"{address} has no tables of tenantbase"
                )
            ((secret,),) = await connection.fetch("SELECT secret FROM state")
            yield cls(connection, secret)

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """See ``interfaces.moving.Source``.

        The clock's lock keeps every server from writing. COMMIT waits for the synchronous standby,
        which proves that this server is still the primary, and that the standby has what was read.
        """
        ((others,),) = await self._connection.fetch(_OTHERS)
        if others:
            raise InUse(f"servers have {others} connections to the database open; stop them first")
        await self._connection.execute("BEGIN READ WRITE")
        await self._connection.fetch("SELECT position FROM clock FOR UPDATE")
        self._quiet = True
        yield
        await self._connection.fetch(CONFIRM)
        await self._connection.execute("COMMIT")
        self._quiet = False

    async def _read(self, statement: str, *args: object) -> Rows:
        rows = await self._connection.fetch(statement, *args)
        if not self._quiet:  # in a transaction, its end confirms everything
            await self._connection.fetch(CONFIRM)
        return rows

    async def last_version(self) -> int:
        """See ``interfaces.moving.Source``."""
        ((position,),) = await self._read("SELECT position FROM clock")
        return int(position)

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        """See ``interfaces.moving.Source``."""
        # First the lines: those that are removed between the two queries are older.
        lines = await self._read(_CHANGES, after, limit)
        ((reached,),) = await self._read(_REACHED, after)
        return [_event(line) for line in lines], reached

    async def last_change(self) -> ChangeEvent | None:
        """See ``interfaces.moving.Source``."""
        lines = await self._connection.fetch(_LAST)
        return _event(lines[0]) if lines else None

    async def access(self) -> Access:
        """See ``interfaces.moving.Source``."""
        return await read_access(self._connection)


class PostgresTarget(PostgresRows):
    """A new database. Until it is finished, servers do not see it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._steps = 0

    @classmethod
    @asynccontextmanager
    async def open(
        cls, address: DatabaseAddress, *, replicated: bool, timeout: float
    ) -> AsyncIterator[PostgresTarget]:
        """Connect to the primary.

        Args:
            replicated, timeout: as for ``PostgresStore.open``.

        Raises:
            CannotOpen: it cannot be used.
            CannotWrite: there is a database already.
        """
        async with _connected(address, _MOVING, replicated, timeout) as connection:
            ((taken,),) = await connection.fetch("SELECT to_regnamespace($1) IS NOT NULL", SCHEMA)
            if taken:
                raise CannotWrite(
                    f"{address} has a database of tenantbase already; if it is not needed, remove"
                    f" it with DROP SCHEMA {SCHEMA} CASCADE"
                )
            yield cls(connection)

    async def progress(self) -> Progress | None:
        """See ``interfaces.moving.Target``."""
        ((begun,),) = await self._connection.fetch("SELECT to_regclass('moving') IS NOT NULL")
        if not begun:
            return None
        ((*progress, self._steps),) = await self._connection.fetch("SELECT * FROM moving")
        return Progress(*progress)

    async def begin(self, progress: Progress) -> None:
        """See ``interfaces.moving.Target``."""
        async with self._connection.transaction():
            await self._connection.execute(_BEGIN)
            await self._connection.fetch(
                "INSERT INTO state VALUES ($1, $2)", token_bytes(SECRET_BYTES), len(MIGRATIONS)
            )
            for migration in MIGRATIONS:
                await self._connection.execute(migration)
            await self._connection.fetch("INSERT INTO moving VALUES ($1, $2, $3, 0)", *progress)
        self._steps = 0

    async def put(self, rows: Sequence[Row], gone: Sequence[str], progress: Progress) -> None:
        """See ``interfaces.moving.Target``."""
        async with self._connection.transaction():
            # Rows and progress are lost together, and the last transaction waits for all of them.
            await self._connection.execute("SET LOCAL synchronous_commit TO off")
            if rows:
                await self._connection.fetch(_PUT, *map(list, zip(*rows, strict=True)))
            if gone:
                await self._connection.fetch("DELETE FROM entries WHERE key = ANY($1)", list(gone))
            noted = await self._connection.fetch(_NOTE, *progress, self._steps)
            if not noted:
                raise InUse("another process writes to the target, too")
        self._steps += 1

    async def hide(self, prefix: str, version: int) -> None:
        """See ``interfaces.moving.Target``."""
        await self._connection.fetch(_HIDE, *prefix_range(prefix), version)

    async def finish(self, access: Access, last: ChangeEvent, version: int) -> None:
        """See ``interfaces.moving.Target``."""
        self._connection.patience = None
        try:
            await self._finish(access, last, version)
        except SessionLost as error:
            raise Unsettled(
                f"it is not known whether the move was finished: {error}; run it again: if the target has"
                " a database by then, it was"
            ) from error

    async def _finish(self, access: Access, last: ChangeEvent, version: int) -> None:
        fetch = self._connection.fetch
        async with self._connection.transaction():
            await fetch(
                "UPDATE clock SET position = $1, trimmed = $1, access = $2, closed = $3",
                version,
                access.version,
                access.closed,
            )
            await fetch("DELETE FROM tenants")
            for tenant in tenant_rows(access):
                await fetch(
                    f"INSERT INTO tenants ({TENANT_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6)",
                    *tenant,
                )
            for number, token in enumerate(token_rows(access), 1):
                await fetch(
                    f"INSERT INTO tokens ({TOKEN_COLUMNS}, number)"
                    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                    *token,
                    number,
                )
            await fetch(
                f"INSERT INTO changes ({_CHANGE}) VALUES ($1, $2, $3, $4, $5, $6)",
                *msgspec.structs.astuple(last),
            )
            await self._connection.execute("ANALYZE entries")
            await self._connection.execute(_SHOW)


@asynccontextmanager
async def _connected(
    address: DatabaseAddress, schema: str, replicated: bool, timeout: float
) -> AsyncIterator[Connection]:
    """A connection to the primary, with a schema as its search path.

    The server must be one that `serve` would use.
    """
    opened: list[Connection] = []

    async def connect(host: Host) -> Connection:
        made = await Connection.open(address, host, timeout, search_path=schema, **_SETTINGS)
        opened.append(made)
        return made

    try:
        answers = await survey(address.hosts, connect, timeout)
        problems = [each for each in answers if isinstance(each, str)]
        found = [each for each in answers if isinstance(each, Found)]
        servers = primaries_of(found)
        if found and not servers:
            problems.append("all servers that answer are standbys")
        for server in servers:
            try:
                connection = await _checked(server, connect, replicated, timeout)
            except ERRORS as error:
                problems.append(f"{server.connection.host}: {why(error)}")
                continue
            connection.patience = _PATIENCE_SECONDS
            yield connection
            return
    finally:
        for each in opened:
            each.terminate("it is not needed any more")
    raise CannotOpen(f"cannot open {address}: {'; '.join(problems)}")


async def _checked(
    server: Found,
    connect: Callable[[Host], Awaitable[Connection]],
    replicated: bool,
    timeout: float,
) -> Connection:
    """The server's connection, if it is a primary that keeps what it acknowledges. Raises as
    ``Connection.fetch``."""
    check_settings(server)
    connection = server.connection
    if replicated:
        standby = standby_of(server)
        try:
            with deadline(connection, timeout):
                await connection.fetch(CONFIRM)  # a deposed primary never answers
        except SessionLost:
            if connection.ended == NO_ANSWER:
                await check_confirms(await connect(connection.host), standby, timeout)
            raise
    return connection


def _event(line: Any) -> ChangeEvent:
    version, kind, *rest = line
    return ChangeEvent(version, EventKind(kind), *rest)
