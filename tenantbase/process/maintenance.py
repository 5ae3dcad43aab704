"""Maintenance of a database file: the parts behind ``backup``, ``restore``, ``check``, ``compact``.

It works on SQLite directly, beside servers that have the database open. There is no event loop:
nothing else is in flight.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from tenantbase.coherence.tag_seqlock import WriteLock
from tenantbase.errors import CannotOpen, CannotWrite
from tenantbase.interfaces.sqlite.commit import Committer
from tenantbase.interfaces.sqlite.copying import Copied, copy_database, unjournaled
from tenantbase.interfaces.sqlite.open_read_only import may_write, open_readonly
from tenantbase.interfaces.sqlite.schema import concerns_a_row, open_writer, unavailable
from tenantbase.interfaces.sqlite.sealing import seal
from tenantbase.process.config import Config
from tenantbase.process.wiring import look_before_touching, open_tags

_BUSY_SECONDS: Final = 5.0
_CHUNK_BYTES: Final = 1 << 20

Tell = Callable[[int], object]
"""Called with the number of entries in each step."""


def back_up(config: Config, path: Path, file: BinaryIO, tell: Tell) -> Copied:
    """Copy the database to an empty file, with a seal, while other processes may write to it.

    Args:
        path: the file. It may have been unlinked by the time this returns an error.
        file: the same file, open for writing. It is not synced in the end.

    Raises:
        StoreError: the database cannot be read.
        CannotWrite: the file cannot be written.
    """
    return _back_up(config, path, file.fileno(), tell, lambda: None)


def back_up_to_stream(config: Config, write: Callable[[bytes], object], tell: Tell) -> None:
    """As ``back_up``, to a stream, by way of a file without a name.

    So a slow reader holds nothing up, and a killed process leaves nothing.

    Raises:
        StoreError, CannotWrite: as ``back_up``; and what ``write`` raises.
    """
    directory = _with_room(config.database)
    try:
        fd, name = tempfile.mkstemp(prefix=".tenantbase-", dir=directory)
    except OSError as error:
        raise CannotWrite(f"cannot make a file in {directory}: {error.strerror}") from error
    path = Path(name)
    try:
        _back_up(config, path, fd, tell, lambda: path.unlink())
        at = 0
        while chunk := os.pread(fd, _CHUNK_BYTES, at):
            write(chunk)
            at += len(chunk)
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)


def _back_up(
    config: Config, path: Path, fd: int, tell: Tell, opened: Callable[[], object]
) -> Copied:
    _let_others_go_first()
    with source_of(config) as source:
        try:
            with unjournaled(str(path), fd) as target:
                opened()
                copied = copy_database(source, target, tell, lambda: os.fdatasync(fd))
            seal(fd)
        except sqlite3.Error as error:
            failure = unavailable(error, f"cannot copy {config.database}")
            if concerns_a_row(error):
                raise type(failure)(f"{failure}; tenantbase check says where") from error
            raise failure from error
        except OSError as error:
            raise CannotWrite(f"cannot write the copy: {error.strerror}") from error
    return copied


@contextmanager
def source_of(config: Config) -> Iterator[sqlite3.Connection]:
    """A connection that reads the database, of whatever schema, with other processes or without.

    Raises:
        CannotOpen: it is not a database of ours, or cannot be opened.
    """
    path = os.path.realpath(config.database)
    if not os.path.exists(path):
        raise CannotOpen(f"there is no database {config.database}")
    if os.path.isfile(path) and not may_write(path):
        with open_readonly(path, convertible=True) as connection:
            yield connection
        return
    look_before_touching(Path(path))
    if not os.stat(path).st_size:
        raise CannotOpen(f"cannot open {config.database}: it is empty")
    with _writing(config, Path(path)) as (connection, _):
        connection.execute("PRAGMA query_only = 1")
        yield connection


@contextmanager
def _writing(config: Config, path: Path) -> Iterator[tuple[sqlite3.Connection, Committer]]:
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
            committer = Committer(str(path), opened.identity, lock.held, 1)
        stack.callback(committer.close, opened.connection)
        yield opened.connection, committer


def _with_room(database: Path) -> str:
    """A directory for a copy of the database: its own, or else that of temporary files."""
    own = os.path.dirname(os.path.realpath(database))
    with suppress(OSError):
        disk = os.statvfs(own)
        room = disk.f_bavail * disk.f_frsize
        if os.access(own, os.W_OK | os.X_OK) and room > 2 * os.stat(database).st_size:
            return own
    return tempfile.gettempdir()


def _let_others_go_first() -> None:
    """Leave the processors to servers for the rest of this process."""
    with suppress(OSError):
        os.nice(10)
