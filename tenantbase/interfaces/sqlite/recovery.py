"""Before SQLite goes on with a log that an earlier process left: is it on the disk?

After a failed fsync the kernel may keep in memory, as if they had been written, pages that never
reached the disk. A process whose commit failed so takes no more writes, and others overwrite its
frames. But once all have ended, the next one to open the database reads the log from memory,
accepts these frames, and appends to them or copies them into the database; a loss of power then
breaks the log where they are missing, and what was acknowledged after them is gone. So the bytes
of the log are first written again where they are: that makes the pages dirty, and an fsync that
succeeds means something again. Whatever a crash leaves of this is the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final, Protocol

from tenantbase.errors import CannotOpen

_CHUNK: Final = 1 << 20


class LogMark(Protocol):
    """What the processes on a database share, its log's state above all.

    Used with the write lock held.
    """

    def is_alone(self) -> bool:
        """Whether no other process has the database open; none may open it meanwhile."""

    @property
    def log_is_safe(self) -> bool:
        """Whether all that may be read from the log is on the disk, for certain."""

    def log_was_made_safe(self) -> None:
        """Let the others know that it is."""


class LogNotSafe(CannotOpen):
    """The log can't be made sure of. A checkpoint must not be made of it either."""


class LeftLog:
    """The log beside a database, as it is before SQLite opens it.

    Opening and closing the file drops no lock: SQLite's are on the two files beside it.

    Args:
        database: the path of the database.

    Raises:
        LogNotSafe: it cannot be read.
    """

    def __init__(self, database: str) -> None:
        self._path = f"{os.path.realpath(database)}-wal"
        self._digest = self._pass(os.O_RDONLY)

    def write_again(self) -> None:
        """Write the same bytes in place and sync them.

        Called in a transaction of ours that holds SQLite's own lock for writers, so that no other
        program writes to the file meanwhile.

        Raises:
            LogNotSafe: the disk fails, or the log is not what it was when this object was made.
        """
        if self._pass(os.O_RDWR) != self._digest:
            # Pages that are only in memory may leave it at any moment, and SQLite has read the
            # log between the two passes: nobody knows which contents.
            raise LogNotSafe(f"cannot open the log {self._path}: it changes meanwhile")

    def _pass(self, mode: int) -> bytes:
        digest = hashlib.blake2b()
        try:
            fd = os.open(self._path, mode | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                at = 0
                while chunk := os.pread(fd, _CHUNK, at):
                    digest.update(chunk)
                    if mode == os.O_RDWR:
                        _write(fd, chunk, at)
                    at += len(chunk)
                if mode == os.O_RDWR:
                    os.fsync(fd)
            finally:
                os.close(fd)
        except FileNotFoundError:
            pass  # as good as empty
        except OSError as error:
            raise LogNotSafe(
                f"cannot make sure of the log {self._path}: {error.strerror}"
            ) from error
        return digest.digest()


def _write(fd: int, data: bytes, at: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, at)
        at += written
        rest = rest[written:]
