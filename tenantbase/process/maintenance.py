"""Maintenance of a database file: the parts behind ``backup``, ``restore``, ``check``, ``compact``.

It works on SQLite directly, beside servers that have the database open. An event loop runs only while a
lock is taken or dead rows are removed: nothing else is in flight.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, Final, NamedTuple

from tenantbase.coherence.tag_file import alone
from tenantbase.errors import CannotOpen, CannotWrite, InUse
from tenantbase.interfaces.sqlite.checking import Check
from tenantbase.interfaces.sqlite.compacting import can_be_compacted
from tenantbase.interfaces.sqlite.compacting import compact as compact_in_steps
from tenantbase.interfaces.sqlite.compacting import rewrite
from tenantbase.interfaces.sqlite.copying import Copied, copy_database, unjournaled
from tenantbase.interfaces.sqlite.driver_errors import (
    concerns_a_row,
    error_code,
    reason,
    unavailable,
)
from tenantbase.interfaces.sqlite.file import located
from tenantbase.interfaces.sqlite.foreign import check_companions_kind, check_ours
from tenantbase.interfaces.sqlite.open_read_only import (
    database_bytes,
    immutable,
)
from tenantbase.interfaces.sqlite.pacing import Pace, sync_in_pieces
from tenantbase.interfaces.sqlite.reserve import Reserve
from tenantbase.interfaces.sqlite.restoring import begin_again, put, settle
from tenantbase.interfaces.sqlite.sealing import copy_unsealed, seal
from tenantbase.interfaces.sqlite.usage import correct as correct_usage
from tenantbase.owned_files import make_alike, remove_marked
from tenantbase.process.config import Config
from tenantbase.process.joining import checkable, source_of, writing
from tenantbase.process.wiring import (
    look_before_touching,
    open_cache,
    tags_path,
)

_ROWS_AT_ONCE: Final = 5_000  # removed in one commit, when no server waits for it
_CHUNK_BYTES: Final = 1 << 20

Tell = Callable[[int], object]
"""Called with the number of entries in each step."""


def back_up(config: Config, path: Path, file: BinaryIO, tell: Tell) -> Copied:
    """Copy the database to an empty file, with a seal, while other processes may write to it.

    Args:
        path: the file. It may have been unlinked by the time this returns an error.
        file: the same file, open for reading and writing. At the end, its contents are synced, but not
            its metadata.

    Raises:
        StoreError: the database cannot be read.
        CannotWrite: the file cannot be written.
    """
    pace = Pace()
    copied = _back_up(config, path, file.fileno(), tell, lambda: None, pace)
    with _cannot_write_copy(path.parent):
        sync_in_pieces(file.fileno(), pace)
    return copied


def back_up_to_stream(config: Config, write: Callable[[bytes], object], tell: Tell) -> Copied:
    """As ``back_up``, but to a stream, through a file without a name.

    So a slow reader holds nothing up, and a killed process leaves no file behind.

    Raises:
        StoreError, CannotWrite: as ``back_up``; and what ``write`` raises.
    """
    directory = _with_room(config.file)
    try:
        fd, name = tempfile.mkstemp(prefix=".tenantbase-", dir=directory)
    except OSError as error:
        raise CannotWrite(f"cannot make a file in {directory}: {error.strerror}") from error
    path = Path(name)
    try:
        copied = _back_up(config, path, fd, tell, lambda: path.unlink(), Pace())
        at = 0
        while chunk := os.pread(fd, _CHUNK_BYTES, at):
            write(chunk)
            at += len(chunk)
        return copied
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)


def _back_up(
    config: Config, path: Path, fd: int, tell: Tell, opened: Callable[[], object], pace: Pace
) -> Copied:
    _let_others_go_first()
    with source_of(config) as source, _cannot_write_copy(path.parent):
        try:
            with unjournaled(str(path), fd) as target:
                opened()
                copied = copy_database(source, target, tell, lambda: sync_in_pieces(fd, pace), pace)
            seal(fd, pace)
        except sqlite3.Error as error:
            if error_code(error) & 0xFF == sqlite3.SQLITE_FULL:  # only the copy is written
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            failure = unavailable(error, f"cannot copy {config.database}")
            if concerns_a_row(error):
                raise type(failure)(f"{failure}; tenantbase check says where") from error
            raise failure from error
    return copied


@contextmanager
def _cannot_write_copy(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWrite(f"cannot write the copy in {directory}: {error.strerror}") from error


def compact(config: Config, tell: Tell) -> int:
    """Give free space back to the file system.

    Args:
        tell: called with the number of pages in each step, beside servers.

    Returns: by how many bytes the file has shrunk.

    Raises:
        TenantbaseError: it cannot be done, or not to its end.
    """
    path = located(config.file)
    if not path.exists():
        raise CannotOpen(f"there is no database {config.database}")
    look_before_touching(path)
    before = os.stat(path).st_size
    if not before:
        raise CannotOpen(f"cannot open {config.database}: it is empty")
    try:
        with alone(tags_path(path), path):
            pass  # servers would remove dead rows, in the background
        asyncio.run(_remove_dead_rows(config))
        with alone(tags_path(path), path):
            _rewrite(config, path)
    except InUse:
        with writing(config, path) as (connection, committer, lock):
            if not can_be_compacted(connection):
                raise CannotOpen(
                    f"{config.database} was made by an earlier version: it can be compacted while"
                    " no server has it open, and from then on beside servers, too"
                ) from None
            compact_in_steps(connection, committer, lock.held, tell)
    return before - os.stat(path).st_size


async def _remove_dead_rows(config: Config) -> None:
    """Remove what has expired or was deleted by prefix."""
    async with open_cache(config, create=False) as cache:
        while await cache.sweep(_ROWS_AT_ONCE):
            pass


def _rewrite(config: Config, path: Path) -> None:
    check_ours(str(path))
    if settle(str(path)) is None:
        raise CannotOpen(f"{config.database} is damaged; tenantbase check says where")
    try:
        with _new_file_beside(path) as (beside, file):
            rewrite(str(path), str(beside), file.fileno())
            make_alike(file.fileno(), path)
            os.fsync(file.fileno())
            put(beside, str(path), keep=False)
            _tidy(path)
    except OSError as error:
        raise CannotWrite(f"cannot rewrite {config.database}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise unavailable(error, f"cannot rewrite {config.database}") from error


def _tidy(database: Path) -> None:
    """Remove what processes that were killed left beside a database that none has open."""
    remove_marked(Path(f"{database}-lock"))
    Reserve(str(database)).remove()


@contextmanager
def _new_file_beside(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """An empty file in the same directory, removed in the end if it is still there."""
    with tempfile.NamedTemporaryFile(
        "w+b", prefix=".tenantbase-", dir=path.parent, delete=False
    ) as file:
        try:
            yield Path(file.name), file.file
        finally:
            Path(file.name).unlink(missing_ok=True)


class Restored(NamedTuple):
    """What was restored.

    Attributes:
        entries: how many.
        version: the last one that counts as given out.
        kept: where the file is that was replaced, if SQLite could not make sense of it.
    """

    entries: int
    version: int
    kept: Path | None


def restore(
    config: Config,
    name: str,
    source: BinaryIO,
    *,
    force: bool,
    required: bool,
    report: Callable[[str], object],
    tell: Tell,
) -> Restored:
    """Verify a copy, and put it in the place of the database.

    A copy with a seal is what was in the old database. So it is taken even if an entry has illegal content.
    That is served, too, and reported.

    Args:
        name: the copy's name, for messages.
        force: replace a database that exists.
        required: the copy has to have a seal.
        report: called with each such finding, a line.

    Raises:
        TenantbaseError: nothing was changed.
    """
    database = located(config.file)
    if not database.parent.is_dir():
        raise CannotOpen(f"there is no directory {database.parent} for the database")
    check_companions_kind(str(database))
    with alone(tags_path(database), database):
        there = os.path.lexists(database)
        if there and not database.is_file():
            raise CannotOpen(f"cannot replace {config.database}: it is not a file")
        if there and not force:
            raise CannotWrite(f"{config.database} exists; --force replaces it")
        try:
            with _new_file_beside(database) as (copy, file):
                sealed = copy_unsealed(source, name, file, required=required)
                file.flush()
                checked = _verify(copy, name, sealed, report, tell)
                return _put_copy(copy, file, database, there, checked)
        except OSError as error:
            raise CannotWrite(f"cannot restore {config.database}: {error.strerror}") from error
        except sqlite3.Error as error:
            raise unavailable(error, f"cannot restore {name}") from error


def _put_copy(copy: Path, file: IO[bytes], database: Path, there: bool, checked: Check) -> Restored:
    given_out = settle(str(database)) if there else None
    with unjournaled(str(copy), file.fileno()) as connection:
        if checked.miscounted:
            correct_usage(connection)
        version = begin_again(connection, given_out or 0, time.time_ns() // 1_000)
    make_alike(file.fileno(), database)
    os.fsync(file.fileno())
    kept = put(copy, str(database), keep=there and given_out is None)
    _tidy(database)
    return Restored(checked.rows - checked.deleted, version, kept)


def _verify(
    copy: Path, name: str, sealed: bool, report: Callable[[str], object], tell: Tell
) -> Check:
    """Check a copy that no other process has. Raises CannotOpen."""
    findings: list[str] = []
    try:
        with immutable(str(copy)) as connection:
            if os.stat(copy).st_size != database_bytes(connection):
                raise CannotOpen("it is longer or shorter than its header says")
            check = Check(connection, findings.append, tell)
            check.run(alone=True)
    except (sqlite3.Error, CannotOpen) as error:
        why = str(error) if isinstance(error, CannotOpen) else reason(error)
        raise CannotOpen(f"{name} cannot be restored: {why}") from error
    # What is miscounted is corrected.
    if wrong := check.findings - check.miscounted - (check.contents if sealed else 0):
        first = check.broken or findings[0]
        raise CannotOpen(f"{name} cannot be restored: {things_wrong(wrong)}, first {first}")
    for finding in findings:
        report(finding)
    return check


def things_wrong(findings: int) -> str:
    """How messages count findings."""
    return "1 thing is wrong" if findings == 1 else f"{findings:,} things are wrong"


class Checked(NamedTuple):
    """What a check looked at, and how much it found wrong.

    Attributes:
        rows: how many rows of entries.
        deleted: how many of them are under a deleted prefix, and not removed yet.
    """

    rows: int
    deleted: int
    findings: int


def check(config: Config, report: Callable[[str], object], tell: Tell) -> Checked:
    """Check the database. Nothing is changed.

    Args:
        report: called with each finding, a line.

    Raises:
        TenantbaseError: it cannot be opened at all.
    """
    _let_others_go_first()
    try:
        with checkable(config) as (connection, by_itself):
            checking = Check(connection, report, tell)
            try:
                checking.run(alone=by_itself)
            except CannotOpen as error:
                raise CannotOpen(f"cannot check {config.database}: {error}") from error
    except sqlite3.Error as error:
        raise unavailable(error, f"cannot check {config.database}") from error
    return Checked(checking.rows, checking.deleted, checking.findings)


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
