"""Puts a backup in the place of a database.

Servers that ran after the backup may have given out versions that the copy does not know. Clients
still hold them in conditions, and caches in items. So the copy gets a new secret, and its version jumps
above all that were ever given out.

Which those are, the copy cannot tell: it may have been restored before, to a disk that is lost. So the
version jumps to the time in microseconds. No database makes a million changes a second, so until the
next restore its versions stay below the time then, and that restore begins above them all.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from tenantbase.errors import CannotOpen
from tenantbase.events import EventKind
from tenantbase.interfaces.sqlite.driver_errors import error_code, reason
from tenantbase.interfaces.sqlite.file import sync_directory
from tenantbase.interfaces.sqlite.queries import last_version
from tenantbase.interfaces.sqlite.schema import SECRET_BYTES

VERSION_STEP: Final = 1 << 40
"""How far the version jumps if the clock is behind it, because it was set back: seven years of 5,000
changes a second. Versions stay exact in JSON, up to 2**53, until the year 2255."""

_MOST_VERSION: Final = (1 << 63) - 1
_BUSY_SECONDS: Final = 2.0
_UNREADABLE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
_LOGS: Final = ("-wal", "-journal")
# Files that SQLite keeps beside a database, and creates again.
_INDEX: Final = "-shm"


def begin_again(connection: sqlite3.Connection, above: int, microseconds: int) -> int:
    """Give a copy a new secret, and a last version above all that were ever given out.

    The change log begins there: watchers read everything again.

    Args:
        connection: writes the copy.
        above: a version that was certainly given out; 0 if none is known of.
        microseconds: the time, since 1970.

    Returns: the last version.

    Raises:
        CannotOpen: there is no such version.
        sqlite3.Error: the copy cannot be written.
    """
    known = max(last_version(connection), above)
    version = microseconds if microseconds > known else known + VERSION_STEP
    if version > _MOST_VERSION:
        raise CannotOpen("the copy's version is too high to continue from")
    connection.execute("BEGIN")
    connection.execute("UPDATE state SET secret = ?", (secrets.token_bytes(SECRET_BYTES),))
    connection.execute("DELETE FROM changes")
    connection.execute(
        "INSERT INTO changes (version, kind, key) VALUES (?, ?, '')",
        (version, str(EventKind.RESET)),
    )
    connection.execute("COMMIT")
    return version


def settle(database: str) -> int | None:
    """Bring everything of a database into its file, so that it needs no log.

    Called while no other process has it open.

    Returns: its last version; None if it is too damaged for that, or not a database.

    Raises:
        CannotOpen: it cannot be done now.
    """
    uri = f"file:{quote(os.fsencode(database))}?mode=rw"
    try:
        with closing(
            sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA trusted_schema = 0")
            version = last_version(connection)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.Error as error:
        if error_code(error) & 0xFF in _UNREADABLE:
            return None
        raise CannotOpen(f"cannot replace {database}: {reason(error)}") from error
    return None if any(_is_there(database + suffix) for suffix in _LOGS) else version


def put(copy: Path, database: str, *, keep: bool) -> Path | None:
    """Put a copy, synced and on the same file system, at the path of a database.

    At each moment the path names the old database with its log, or the copy with none.

    Args:
        keep: keep the old file and its log under another name, because parts of it may be recoverable.

    Returns: where the old one is kept.

    Raises:
        OSError, CannotOpen: it cannot be done.
    """
    kept = None
    if keep:
        kept = next(each for each in _free_names(database) if not os.path.lexists(each))
        # A second name first, so that the path is never free: a server would create an empty database.
        # If this process ends here, no server opens the file, because it has two names.
        os.link(database, kept)
        for suffix in _LOGS:
            with suppress(FileNotFoundError):
                os.rename(database + suffix, f"{kept}{suffix}")
        sync_directory(database)
    with suppress(FileNotFoundError):
        os.unlink(database + _INDEX)
    os.rename(copy, database)
    sync_directory(database)
    return None if kept is None else Path(kept)


def _free_names(database: str) -> Iterator[str]:
    yield f"{database}.replaced"
    number = 2
    while True:
        yield f"{database}.replaced-{number}"
        number += 1


def _is_there(path: str) -> bool:
    try:
        return os.stat(path).st_size > 0
    except OSError:
        return False
