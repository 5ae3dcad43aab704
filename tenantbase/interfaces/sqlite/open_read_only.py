"""Opens a database that this process may not write, creating and changing nothing.

If there is a write-ahead log, SQLite reads it and the database, with locks, through the files
beside them. If there is none, the database file has everything, and SQLite is told that it is
immutable: otherwise it would create files beside it, or fail if it cannot. Then nothing keeps
another process from writing during the read; afterwards it is checked whether one did.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final
from urllib.parse import quote

from tenantbase.errors import CannotOpen, StoreUnavailable
from tenantbase.interfaces.sqlite.driver_errors import reason
from tenantbase.interfaces.sqlite.foreign import APPLICATION_ID
from tenantbase.interfaces.sqlite.schema import MIGRATIONS

_BUSY_SECONDS: Final = 5.0


def may_write(path: str) -> bool:
    """Whether this process may write the file and its directory."""
    return os.access(path, os.W_OK) and os.access(os.path.dirname(path), os.W_OK | os.X_OK)


@contextmanager
def open_readonly(path: str, *, convertible: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection that reads.

    Args:
        convertible: the schema may be an earlier one.

    Raises:
        CannotOpen: it is not one of our databases, has another schema, or cannot be read.
        StoreUnavailable: reading failed, or another process wrote in between.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise CannotOpen(f"cannot open {path}: it is not a file")
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))  # connecting then fails, and says why
        has_log = _size(f"{path}-wal") > 0
        if has_log and not os.path.exists(f"{path}-shm"):
            raise CannotOpen(
                f"cannot open {path}: it is read-only, and its log, {path}-wal, can only be"
                " read if files can be created beside it"
            )
        mode = "mode=ro" if has_log else "mode=ro&immutable=1"
        before = _state(path)
        with closing(_connect(path, mode)) as connection:
            _check(path, connection, convertible)
            yield connection
        if not has_log and _state(path) != before:
            raise StoreUnavailable(
                f"another process wrote to {path} while it was read; the result may mix old"
                " and new values: try again"
            )
    except sqlite3.Error as error:
        raise StoreUnavailable(f"cannot read {path}: {reason(error)}") from error
    except OSError as error:
        if error.filename not in (path, f"{path}-wal"):
            raise
        raise CannotOpen(f"cannot open {path}: {error.strerror}") from error


@contextmanager
def immutable(path: str) -> Iterator[sqlite3.Connection]:
    """A connection that reads a file that no process changes and that needs no log."""
    with closing(_connect(path, "mode=ro&immutable=1")) as connection:
        yield connection


def database_bytes(connection: sqlite3.Connection) -> int:
    """Size of the database, as its header says."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(size)


def _connect(path: str, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?{mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
    )


def _check(path: str, connection: sqlite3.Connection, convertible: bool) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise CannotOpen(f"cannot open {path}: it is a database of another program, or empty")
    if version != len(MIGRATIONS) and not (convertible and 0 < version < len(MIGRATIONS)):
        newer = version > len(MIGRATIONS)
        remedy = "" if newer else "; to convert it, open it where it may be written"
        raise CannotOpen(
            f"cannot open {path}: it is read-only, and was made by"
            f" {'a newer' if newer else 'an earlier'} tenantbase"
            f" (schema {version}, this one reads {len(MIGRATIONS)}){remedy}"
        )


def _state(path: str) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, _size(f"{path}-wal")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
