"""Room on the disk that is kept for deleting: a full disk must not stay full for that reason.

Removing rows takes room first: their pages go through the log, every change has its line in the
change log, and the log is written from its beginning only after what it holds was copied into the
database, which may grow by that. So a file beside the database holds some room. It is given up
when the disk is full and something is to be deleted, and taken again as soon as there is room.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from tenantbase.beside import make_alike

RESERVE_BYTES: Final = 8 << 20
"""What is kept: as much as the log holds between two checkpoints."""

_SHARE: Final = 8  # of a small disk, no more than this part
# What opening the database takes: the tag file, SQLite's index of the log, and some deletions.
_LEAST: Final = 640 << 10
_MARK: Final = b"tbspare\n"
_LEAST_STEP: Final = 16 << 10
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_ZEROS: Final = bytes(64 << 10)


class Reserve:
    """The file that keeps the room. All methods are called with the write lock held.

    A file of that name that does not begin with our mark is left alone; there is no reserve then.

    Args:
        database: the path of the database.
    """

    def __init__(self, database: str) -> None:
        self._database = Path(os.path.realpath(database))
        self._path = f"{self._database}-reserve"
        self._target = 0

    @property
    def bytes(self) -> int:
        """How much is kept where there is room."""
        return self._target

    def hold(self) -> bool:
        """Take as much of the room as there is; whether that is all of it.

        True also where there can be none, whatever the reason: the database then does without.
        Only a disk that is full makes it False.
        """
        try:
            if not self._target:
                self._target = self._size()
            fd = self._open()
            try:
                held = os.fstat(fd).st_size
                if held >= self._target or _allocate(fd, self._target):
                    return True
                step = self._target // 2
                while step >= _LEAST_STEP:
                    if held + step <= self._target and _allocate(fd, held + step):
                        held += step
                    step //= 2
            finally:
                os.close(fd)
        except OSError as error:
            return error.errno not in _NO_ROOM
        return False

    def release(self) -> None:
        """Give the room up."""
        with suppress(OSError):
            fd = self._open()
            try:
                os.ftruncate(fd, len(_MARK))
            finally:
                os.close(fd)

    def remove(self) -> None:
        """Remove the file where there is room enough; on a disk nearly full it is kept.

        For the last process that has the database open.
        """
        with suppress(OSError):
            disk = os.statvfs(os.path.dirname(self._path))
            if disk.f_bavail * disk.f_frsize < 2 * self._target:
                return
            os.close(self._open())  # raises if it is not ours
            os.unlink(self._path)

    def _size(self) -> int:
        disk = os.statvfs(os.path.dirname(self._path))
        return max(min(RESERVE_BYTES, disk.f_blocks * disk.f_frsize // _SHARE), _LEAST)

    def _open(self) -> int:
        """Open the file, making it if there is none. Raises FileExistsError: it is not ours."""
        try:
            fd = os.open(self._path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if not stat.S_ISREG(os.lstat(self._path).st_mode):
                raise
            fd = os.open(self._path, _FLAGS)
            if os.pread(fd, len(_MARK), 0) != _MARK:
                os.close(fd)
                raise
            return fd
        try:
            make_alike(fd, self._database)
            os.pwrite(fd, _MARK, 0)
        except BaseException:
            os.unlink(self._path)
            os.close(fd)
            raise
        return fd


def _allocate(fd: int, size: int) -> bool:
    """Make a file so large, with all its blocks; False if there is no room: it is as it was then."""
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
