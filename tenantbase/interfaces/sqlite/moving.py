"""A database file as the source or the target of a move; see ``interfaces/moving.py``.

The methods are coroutines only for the Protocols' sake: each runs to its end in the event loop, in
which nothing else has to go on.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from typing import Final

import msgspec

from tenantbase.access import Access
from tenantbase.errors import CannotOpen, CannotWrite
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
from tenantbase.interfaces.sqlite import queries
from tenantbase.interfaces.sqlite.access import read_access
from tenantbase.interfaces.sqlite.copying import mark_as_logged
from tenantbase.interfaces.sqlite.driver_errors import unavailable
from tenantbase.interfaces.sqlite.file import make_file, sync_directory
from tenantbase.interfaces.sqlite.odd_rows import (
    TYPE,
    VALUE,
    bad_text_allowed,
    despite_bad_text,
    entry_of,
    fetched,
    legal_line,
)
from tenantbase.interfaces.sqlite.queries import DELETED
from tenantbase.interfaces.sqlite.schema import MIGRATIONS, migrate
from tenantbase.listing import prefix_range

_ROWS: Final = (
    f"SELECT key, {VALUE}, {TYPE}, id, version, expires_at, created FROM entries"
    f" WHERE key > ?{{}} AND typeof(key) = 'text' AND NOT {DELETED} ORDER BY key LIMIT {PAGE_ROWS}"
)
_KEYS_A_QUERY: Final = 256
_PUT: Final = (
    "INSERT OR REPLACE INTO entries (key, created, version, expires_at, id, content_type, value)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_PUT_TENANT: Final = f"INSERT INTO tenants ({TENANT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
_PUT_TOKEN: Final = f"INSERT INTO tokens ({TOKEN_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_CHANGE: Final = """
    INSERT INTO changes (version, kind, key, size, content_type, expires_at)
    VALUES (?, ?, ?, ?, ?, ?)
"""
_LAST: Final = (
    "SELECT version, kind, key, size, content_type, expires_at FROM changes"
    " ORDER BY version DESC LIMIT 1"
)

# In the target: its one row is the Progress. The table is dropped in the end.
_MAKE_PROGRESS: Final = """
    CREATE TABLE moving (source BLOB NOT NULL, copied TEXT, version INTEGER NOT NULL)
"""
_PROGRESS: Final = "SELECT source, copied, version FROM moving"
_NOTE: Final = "UPDATE moving SET source = ?, copied = ?, version = ?"
# Only one process at a time may write to the target.
_TARGET_SETTINGS: Final = ("PRAGMA locking_mode = EXCLUSIVE", "PRAGMA synchronous = 2")


class SqliteRows:
    """The rows of a database of the newest schema.

    Args:
        name: of the file, for messages.
    """

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._name = name

    async def rows(self, after: str, among: Sequence[str] | None = None) -> list[Row]:
        """See ``interfaces.moving.Rows``."""
        if among is None:
            return self._page(_ROWS.format(""), (after,))
        for start in range(0, len(among), _KEYS_A_QUERY):
            keys = among[start : start + _KEYS_A_QUERY]
            if keys[-1] > after:
                marks = ", ".join("?" * len(keys))
                if page := self._page(_ROWS.format(f" AND key IN ({marks})"), (after, *keys)):
                    return page
        return []

    def _page(self, query: str, values: Sequence[str]) -> list[Row]:
        with self._translated("read"):
            return despite_bad_text(self._connection, partial(self._read, query, values))

    def _read(self, query: str, values: Sequence[str]) -> list[Row]:
        page: list[Row] = []
        size = 0
        # A cursor that is not read to its end holds its snapshot until it is closed.
        with closing(fetched(self._connection, query, values)) as found:
            for *columns, created in found:
                entry = entry_of(*columns)
                page.append(
                    Row(
                        entry.key,
                        created,
                        entry.version,
                        entry.expires_at,
                        entry.id,
                        entry.content_type,
                        entry.value,
                    )
                )
                size += len(entry.value)
                if size >= PAGE_BYTES:
                    break
        return page

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise unavailable(error, f"cannot {what} {self._name}") from error


class SqliteSource(SqliteRows):
    """A database that is moved.

    Args:
        connection: reads; of a database that no other process has open, if ``still``.

    Raises:
        CannotOpen: its schema is not the newest.
    """

    def __init__(self, connection: sqlite3.Connection, name: str, *, still: bool) -> None:
        super().__init__(connection, name)
        self._still = still
        with self._translated("read"):
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            if schema != len(MIGRATIONS):
                raise CannotOpen(
                    f"{name} has schema {schema}, not {len(MIGRATIONS)}: open it once with this"
                    " version of tenantbase, for example with tenantbase list"
                )
            (secret,) = connection.execute("SELECT secret FROM state").fetchone()
        self.identity: Final = identity_of(secret)

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """See ``interfaces.moving.Source``: it is quiet if it was opened so."""
        assert self._still
        yield

    async def last_version(self) -> int:
        """See ``interfaces.moving.Source``."""
        with self._translated("read"):
            return queries.last_version(self._connection)

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        """See ``interfaces.moving.Source``."""
        with self._translated("read"):
            return queries.changes(self._connection, after, limit)

    async def last_change(self) -> ChangeEvent | None:
        """See ``interfaces.moving.Source``."""
        with self._translated("read"), bad_text_allowed(self._connection):
            row = self._connection.execute(_LAST).fetchone()
        if row is None:
            return None
        version, kind, *rest = legal_line(row)
        return ChangeEvent(version, EventKind(kind), *rest)

    async def access(self) -> Access:
        """See ``interfaces.moving.Source``."""
        with self._translated("read"):
            access = read_access(self._connection, None)
        assert access is not None
        return access


class SqliteTarget(SqliteRows):
    """A new database. Until it is finished, it is in a file beside its path.

    Args:
        path: where the database will be.
    """

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        super().__init__(connection, _beside(path))
        self._path = path

    @classmethod
    @contextmanager
    def open(cls, path: str) -> Iterator[SqliteTarget]:
        """Open the file, or make it.

        Raises:
            CannotWrite: there is a database already, or another process writes to the file.
            CannotOpen: it cannot be made or opened.
        """
        if os.path.lexists(path):
            raise CannotWrite(f"{path} exists: the target must be a new file")
        beside = _beside(path)
        make_file(beside)
        try:
            with closing(sqlite3.connect(beside, timeout=0, isolation_level=None)) as connection:
                for setting in _TARGET_SETTINGS:
                    connection.execute(setting)
                if not os.path.getsize(beside):
                    # As of all new databases: free pages can be given back in steps.
                    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                migrate(connection)
                yield cls(connection, path)
        except sqlite3.Error as error:
            raise CannotWrite(str(unavailable(error, f"cannot write {beside}"))) from error

    async def progress(self) -> Progress | None:
        """See ``interfaces.moving.Target``."""
        with self._translated("read"), suppress(sqlite3.OperationalError):  # no such table
            row = self._connection.execute(_PROGRESS).fetchone()
            return None if row is None else Progress(*row)
        return None

    async def begin(self, progress: Progress) -> None:
        """See ``interfaces.moving.Target``."""
        with self._transaction():
            self._connection.execute("DROP TABLE IF EXISTS moving")
            for table in ("entries", "changes", "tokens"):
                self._connection.execute(f"DELETE FROM {table}")
            self._connection.execute(_MAKE_PROGRESS)
            self._connection.execute("INSERT INTO moving VALUES (?, ?, ?)", progress)

    async def put(self, rows: Sequence[Row], gone: Sequence[str], progress: Progress) -> None:
        """See ``interfaces.moving.Target``."""
        with self._transaction():
            self._connection.executemany(_PUT, rows)
            keys = ((key,) for key in gone)
            self._connection.executemany("DELETE FROM entries WHERE key = ?", keys)
            self._connection.execute(_NOTE, progress)

    async def hide(self, prefix: str, version: int) -> None:
        """See ``interfaces.moving.Target``."""
        with self._transaction():
            self._connection.execute(
                "DELETE FROM entries WHERE key >= ? AND key < ? AND created <= ?",
                (*prefix_range(prefix), version),
            )

    async def finish(self, access: Access, last: ChangeEvent, version: int) -> None:
        """See ``interfaces.moving.Target``. Nothing can be done with the target afterwards."""
        execute, executemany = self._connection.execute, self._connection.executemany
        with self._transaction():
            execute("UPDATE access SET version = ?, closed = ?", (access.version, access.closed))
            execute("DELETE FROM tenants")
            executemany(_PUT_TENANT, tenant_rows(access))
            executemany(_PUT_TOKEN, token_rows(access))
            execute(_PUT_CHANGE, msgspec.structs.astuple(last))
            execute("DROP TABLE moving")
        self._connection.close()
        self._publish()

    def _publish(self) -> None:
        """Give the file its name."""
        beside = _beside(self._path)
        try:
            with open(beside, "rb+") as file:
                mark_as_logged(file.fileno())
                os.fsync(file.fileno())
            os.rename(beside, self._path)
        except OSError as error:
            raise CannotWrite(f"cannot rename {beside}: {error.strerror}") from error
        sync_directory(self._path)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._translated("write"):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")


def _beside(path: str) -> str:
    return f"{path}.moving"
