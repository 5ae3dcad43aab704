"""Gives free pages back to the file system.

Beside servers, a few pages at a time: each step moves pages from the end of the file into free ones
and takes the write lock no longer than a write does. SQLite can do that if the file has a map of
pointers, as new databases have. Without servers, the file is written again, in order, and with that
map.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import Final
from urllib.parse import quote

from tenantbase.errors import StoreFull, StoreUnavailable
from tenantbase.interfaces.sqlite.commit import Committer
from tenantbase.interfaces.sqlite.copying import mark_as_logged
from tenantbase.interfaces.sqlite.driver_errors import error_code, unavailable
from tenantbase.interfaces.sqlite.opening import busy_timeout

_INCREMENTAL: Final = 2
_FIRST_STEP_PAGES: Final = 64
_MOST_STEP_PAGES: Final = 1_000
_STEP_SECONDS: Final = 0.02  # for which the write lock is held at once, about
_CHECKPOINT_PAGES: Final = 1_000  # moved between two checkpoints; each may write two others
_PATIENCE_SECONDS: Final = 0.02  # the last checkpoint waits for readers; writers wait for it
_LAST_TRIES: Final = 50
_NOT_COMMITTED: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL)


def can_be_compacted(connection: sqlite3.Connection) -> bool:
    """Whether a database can be compacted in steps."""
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    return bool(mode == _INCREMENTAL)


def compact(
    connection: sqlite3.Connection,
    committer: Committer,
    lock: Callable[[], AbstractContextManager[object]],
    tell: Callable[[int], object],
) -> None:
    """Give back all free pages, in steps.

    Args:
        connection: the writing connection of this process.
        lock: the write lock, shared by all processes on the database.
        tell: called with the number of pages given back in each step.

    Raises:
        StoreUnavailable: something is in the way. The steps so far are done. ``committer.failure``
            is set if it is unknown whether the last one is.
    """
    step, moved = _FIRST_STEP_PAGES, 0
    while _free_pages(connection):
        with lock():
            free = _free_pages(connection)
            trouble = committer.trouble()
            if trouble is not None:
                raise StoreUnavailable(trouble)
            begun = time.monotonic()
            try:
                _step(connection, committer, step)
            except StoreFull:
                # The pages of a step go through the log, before any are given back.
                with committer.in_reserve(connection):
                    _step(connection, committer, _FIRST_STEP_PAGES)
                    _truncate_log(connection)
            took = time.monotonic() - begun
            given_back = free - _free_pages(connection)
        if given_back <= 0:
            break  # others have used them meanwhile, or the rest is damaged
        tell(given_back)
        moved += given_back
        if moved >= _CHECKPOINT_PAGES:
            moved = 0
            committer.checkpoint(connection, wait=True)
        step = min(max(step * 2 if took < _STEP_SECONDS else step // 2, 1), _MOST_STEP_PAGES)
        time.sleep(max(took, 0.002))  # others wait for the lock
    # The file shrinks in a checkpoint that nothing keeps from copying all of the log.
    for _ in range(_LAST_TRIES):
        with lock():
            if committer.trouble() is not None or _truncate_log(connection):
                return
        time.sleep(_PATIENCE_SECONDS)


def rewrite(database: str, path: str, fd: int) -> None:
    """Write a settled database again, into an empty file, which has to be synced afterwards.

    Called while no other process has it open.

    Raises:
        sqlite3.Error: it cannot be read, or the file not written.
    """
    uri = f"file:{quote(os.fsencode(database))}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        if not can_be_compacted(connection):
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM INTO ?", (path,))
    mark_as_logged(fd)


def _free_pages(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(count)


def _step(connection: sqlite3.Connection, committer: Committer, pages: int) -> None:
    committing = False
    try:
        # One page is moved each time the statement is stepped. It has no columns, and sqlite3 steps
        # such a statement only once, except in scripts.
        connection.executescript(f"BEGIN IMMEDIATE; PRAGMA incremental_vacuum({pages})")
        committing = True
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if committing and error_code(error) & 0xFF not in _NOT_COMMITTED:
            committer.failure = "a commit failed in the disk; no more writes are taken"
        raise unavailable(error, "the database cannot be compacted") from error
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _truncate_log(connection: sqlite3.Connection) -> bool:
    """Copy all of the log into the database, unless readers are in the way."""
    try:
        with busy_timeout(connection, _PATIENCE_SECONDS):
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        raise unavailable(error, "the database cannot be compacted") from error
    return not busy
