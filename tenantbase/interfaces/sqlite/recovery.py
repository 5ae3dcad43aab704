"""Makes the write-ahead log left by an earlier process safe, before SQLite continues it.

After a failed fsync the kernel may keep pages in memory, as if they had been written, that never
reached the disk. A process whose commit failed this way takes no more writes, and others overwrite
its WAL frames. But once all processes have ended, the next one to open the database reads the log
from memory, accepts these frames, and appends to them or copies them into the database. A loss of
power then breaks the log where they are missing, and everything acknowledged after them is lost.
So the log is first rewritten in place with the same bytes: that makes the pages dirty, and a
successful fsync is meaningful again. A crash in between leaves the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final, Protocol

from tenantbase.errors import CannotOpen

_CHUNK_BYTES: Final = 1 << 20


class WalMark(Protocol):
    """What the processes on a database share: whether one is alone, and whether the WAL is safe.

    Used with the write lock held.
    """

    def is_alone(self) -> bool:
        """Whether no other process has the database open; none may open it meanwhile."""

    @property
    def wal_is_safe(self) -> bool:
        """Whether everything readable from the log is certainly on disk."""

    def wal_was_made_safe(self) -> None:
        """Record, for all processes, that the log is safe."""


class WalNotSafe(CannotOpen):
    """The log cannot be made safe. It must not be checkpointed either."""


class LeftoverWal:
    """The write-ahead log beside a database, before SQLite opens it.

    Opening and closing the log drops no locks: SQLite's are on the other two files.

    Args:
        database: the path of the database.

    Raises:
        WalNotSafe: it cannot be read.
    """

    def __init__(self, database: str) -> None:
        self._path = f"{os.path.realpath(database)}-wal"
        self._digest = self._pass(os.O_RDONLY)

    def rewrite(self) -> None:
        """Write the same bytes in place and sync them.

        Call it in a transaction that holds SQLite's write lock, so that no other program writes to
        the file meanwhile.

        Raises:
            WalNotSafe: the disk fails, or the log has changed since this object was made.
        """
        if self._pass(os.O_RDWR) != self._digest:
            # Pages that are only in memory may be dropped at any moment. SQLite has read the log
            # between the two passes, so it is unknown which contents it read.
            raise WalNotSafe(f"cannot open the log {self._path}: another program is writing to it")

    def _pass(self, mode: int) -> bytes:
        digest = hashlib.blake2b()
        try:
            fd = os.open(self._path, mode | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                at = 0
                while chunk := os.pread(fd, _CHUNK_BYTES, at):
                    digest.update(chunk)
                    if mode == os.O_RDWR:
                        _write(fd, chunk, at)
                    at += len(chunk)
                if mode == os.O_RDWR:
                    os.fsync(fd)
            finally:
                os.close(fd)
        except FileNotFoundError:
            pass  # a missing log is the same as an empty one
        except OSError as error:
            raise WalNotSafe(f"cannot secure the log {self._path}: {error.strerror}") from error
        return digest.digest()


def _write(fd: int, data: bytes, at: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, at)
        at += written
        rest = rest[written:]
