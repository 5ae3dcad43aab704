"""Connections to a database file for commands that work on SQLite directly, beside servers or alone."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tenantbase.coherence.tag_file import alone
from tenantbase.coherence.tag_seqlock import TagSeqlock, WriteLock
from tenantbase.errors import CannotOpen, InUse
from tenantbase.figures import private_cells
from tenantbase.interfaces.sqlite.commit import Committer
from tenantbase.interfaces.sqlite.file import located
from tenantbase.interfaces.sqlite.open_read_only import immutable, may_write, open_readonly
from tenantbase.interfaces.sqlite.opening import close_without_checkpoint, open_writer
from tenantbase.interfaces.sqlite.prefix_counts import NONE_COUNTED
from tenantbase.process.config import Config
from tenantbase.process.wiring import log_of, look_before_touching, open_tags, tags_path

_BUSY_SECONDS: Final = 5.0


@contextmanager
def source_of(config: Config) -> Iterator[sqlite3.Connection]:
    """A connection for reading the database, of any schema, beside other processes or alone.

    Raises:
        CannotOpen: it is not a database of ours, or cannot be opened.
    """
    path = located(config.file)
    if not path.exists():
        raise CannotOpen(f"there is no database {config.database}")
    if path.is_file() and not may_write(str(path)):
        with open_readonly(str(path), convertible=True) as connection:
            yield connection
        return
    look_before_touching(path)
    if not path.stat().st_size:
        raise CannotOpen(f"cannot open {config.database}: it is empty")
    with writing(config, path) as (connection, _, _):
        connection.execute("PRAGMA query_only = 1")
        yield connection


@contextmanager
def writing(
    config: Config, path: Path
) -> Iterator[tuple[sqlite3.Connection, Committer, WriteLock]]:
    """The connection of a process that has joined those on the database."""
    with ExitStack() as stack:
        lock_path = Path(f"{path}-lock")
        tags = open_tags(path)
        stack.callback(tags.close, lock_path)
        lock = WriteLock(lock_path, like=path)
        stack.callback(lock.close)
        asyncio.run(lock.take(config.write_timeout))
        with lock.held():
            opened = open_writer(str(path), _BUSY_SECONDS, tags, convert=False)
            committer = Committer(
                str(path), opened.identity, lock.held, 1, NONE_COUNTED, private_cells()
            )
        try:
            yield opened.connection, committer, lock
        finally:
            if committer.failure is None:
                committer.close(opened.connection)
            else:
                with lock.held():
                    # Tells the next process to open the database, see recovery.py.
                    TagSeqlock(tags, lock, lambda key: 0).begin_write(None)
                    close_without_checkpoint(str(path), opened.connection)


@contextmanager
def checkable(config: Config) -> Iterator[tuple[sqlite3.Connection, bool]]:
    """The database, and whether no other process can write to it meanwhile."""
    path = located(config.file)
    with ExitStack() as stack:
        if path.is_file() and may_write(str(path)):
            look_before_touching(path)
            try:
                stack.enter_context(alone(tags_path(path), path))
            except InUse:
                yield stack.enter_context(source_of(config)), False
                return
            if log_of(path) is None:
                # Everything is in the file, which SQLite then need not write to.
                yield stack.enter_context(immutable(str(path))), True
                return
            stack.close()
        yield stack.enter_context(source_of(config)), False
