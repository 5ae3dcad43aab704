"""Disk space reserved for deletions, so that a full disk can be freed again.

Removing rows takes space first: their pages go through the write-ahead log, every change has a line
in the change log, and the write-ahead log starts over only after its contents were copied into the
database, which may grow. So a file beside the database reserves some space. It is released for
deletions when the disk is full, and taken back as soon as there is space.

On a full disk, part of it is moved into the write-ahead log's own file, so that values can be
written into freed pages.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from tenantbase.errors import CannotOpen
from tenantbase.owned_files import (
    MARK_BYTES,
    RESERVE_IN_EMPTY_MARK,
    RESERVE_MARK,
    foreign,
    open_beside,
)

RESERVE_BYTES: Final = 8 << 20
"""Size of the reserve: as much as the write-ahead log holds between two checkpoints."""

LOG_BYTES: Final = 1 << 20
"""How much of the reserve the write-ahead log gets on a full disk; of a small reserve, a quarter."""

_SHARE: Final = 8  # at most this fraction (one eighth) of a small disk
# The space needed to open the database (the tag file, SQLite's index of the WAL) and for some
# deletions, plus what the log keeps.
_LEAST_BYTES: Final = 832 << 10
_LEAST_STEP_BYTES: Final = 16 << 10
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_ZEROS: Final = bytes(64 << 10)


class Reserve:
    """The file that reserves the space. All methods are called with the write lock held.

    A file of that name without our mark is left alone, and there is no reserve then. An empty one
    is used, and emptied on closing.

    Args:
        database: the path of the database.
    """

    def __init__(self, database: str) -> None:
        self._database = Path(os.path.realpath(database))
        self._path = Path(f"{self._database}-reserve")
        self._log = Path(f"{self._database}-wal")
        self._target = 0
        self._released = 0

    @property
    def bytes(self) -> int:
        """Size of the whole reserve."""
        return self._target

    def hold(self) -> bool:
        """Take the reserve, or part of it on a disk that is nearly full. Returns whether it is
        whole. A part is what was held before, or three quarters of the space, whichever is more:
        the rest is for writes, which would otherwise fail until the reserve is whole. Also True if
        something other than a full disk prevents a reserve: the database then works without one.
        """
        before, self._released = self._released, 0
        try:
            if not self._target:
                self._target = self._size()
            fd = self._open()
            try:
                held = os.fstat(fd).st_size
                before = max(before, held)
                part = max(before, (held + self.free_bytes()) * 3 // 4)
                if held < self._target and not _allocate(fd, min(self._target, part)):
                    # There was less space than the file system said, as with a quota.
                    held = _allocate_in_steps(fd, self._target)
                    os.ftruncate(fd, min(held, max(before, held * 3 // 4)))
                return os.fstat(fd).st_size >= self._target
            finally:
                os.close(fd)
        except CannotOpen:
            return True
        except OSError as error:
            return error.errno not in _NO_ROOM

    def release(self) -> None:
        """Release the space. ``hold`` takes back as much before it leaves any for writes."""
        with suppress(OSError, CannotOpen):
            fd = self._open()
            try:
                self._released = os.fstat(fd).st_size
                os.ftruncate(fd, MARK_BYTES)
            finally:
                os.close(fd)

    @property
    def log_bytes(self) -> int:
        """Minimum size of the write-ahead log's file on a full disk."""
        return min(LOG_BYTES, self._target // 4)

    def log_size(self) -> int:
        """Size of the write-ahead log's file in bytes; 0 if there is none."""
        try:
            return os.stat(self._log).st_size
        except OSError:
            return 0

    def give_to_log(self, had: int) -> None:
        """Grow the write-ahead log's file in the space just released. SQLite writes over the zeros.

        Called after a checkpoint that truncated the log. The log gets half of what the reserve had,
        at most.

        Args:
            had: size of the log's file before, in bytes, which is not taken from the reserve.
        """
        with suppress(OSError):
            fd = os.open(self._log, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                size = min(self.log_bytes, max(had, self._released // 2))
                if os.fstat(fd).st_size < size and _allocate(fd, size):
                    self._released -= max(0, size - had)
            finally:
                os.close(fd)

    def free_bytes(self) -> int:
        """Space that the disk has left for this process.

        Raises:
            OSError: it does not say.
        """
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize

    def remove(self) -> None:
        """Remove the file; on a disk that is nearly full, keep the space that the log has just
        freed.

        Called by the last process that has the database open.
        """
        with suppress(OSError, CannotOpen):
            if self.free_bytes() < 2 * self._target:
                self.hold()
                return
            fd = self._open()
            try:
                if os.pread(fd, MARK_BYTES, 0) == RESERVE_IN_EMPTY_MARK:
                    os.ftruncate(fd, 0)
                else:
                    os.unlink(self._path)
            finally:
                os.close(fd)

    def _size(self) -> int:
        disk = os.statvfs(self._path.parent)
        return max(min(RESERVE_BYTES, disk.f_blocks * disk.f_frsize // _SHARE), _LEAST_BYTES)

    def _open(self) -> int:
        """Open the file, or create it.

        Raises:
            OSError: it cannot be opened.
            CannotOpen: it is not ours.
        """
        try:
            fd, made = open_beside(self._path, "reserve", RESERVE_MARK, self._database)
        except CannotOpen as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise
        try:
            if not made and not os.pread(fd, MARK_BYTES, 0):
                # It is empty, and may be ours: a crash may have come before the mark was written.
                os.pwrite(fd, RESERVE_IN_EMPTY_MARK, 0)
            elif os.pread(fd, MARK_BYTES, 0) not in (RESERVE_MARK, RESERVE_IN_EMPTY_MARK):
                raise foreign(self._path, "reserve")
        except BaseException:
            os.close(fd)
            raise
        return fd


def _allocate_in_steps(fd: int, target: int) -> int:
    """Grow a file as far as the disk allows, up to a size. Returns its size."""
    held = os.fstat(fd).st_size
    step = target // 2
    while step >= _LEAST_STEP_BYTES:
        if held + step <= target and _allocate(fd, held + step):
            held += step
        step //= 2
    return held


def _allocate(fd: int, size: int) -> bool:
    """Grow a file to a size, allocating all blocks. If the disk is full, change nothing: False."""
    before = os.fstat(fd).st_size
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
        else:
            for at in range(before, size, len(_ZEROS)):
                os.pwrite(fd, _ZEROS[: size - at], at)
    except OSError as error:
        os.ftruncate(fd, before)
        if error.errno not in _NO_ROOM:
            raise
        return False
    return True
