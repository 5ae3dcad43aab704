"""Our own files beside the database: identified by a mark, opened without following links.

``notes-tags`` and ``notes-lock`` are plausible names for a user's own files. So such a file is
examined before it is touched, and only one that begins with a mark of ours is ever written,
truncated or removed.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from tenantbase.errors import CannotOpen

MARK_BYTES: Final = 8
LOCK_MARK: Final = b"tblock1\n"
TAGS_MARK: Final = b"tbtags1\n"
# A tag file that is being created; its contents do not count yet.
TAGS_BEGUN_MARK: Final = b"tbtags0\n"
RESERVE_MARK: Final = b"tbspare\n"
# A reserve in an empty file that was there before: it is kept, and emptied on closing.
RESERVE_IN_EMPTY_MARK: Final = b"tbspar0\n"
_MARKS: Final = (LOCK_MARK, TAGS_MARK, TAGS_BEGUN_MARK, RESERVE_MARK, RESERVE_IN_EMPTY_MARK)

# Another process may remove or create the file between two calls, but hardly this often. If there is
# no directory, or one such as /proc, where no file can be made, the error is the same.
_TRIES: Final = 100

# O_NONBLOCK: opening a FIFO must not wait for its other end.
_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def open_beside(path: Path, what: str, mark: bytes, like: Path | None) -> tuple[int, bool]:
    """Open a file of ours, or create it with only its mark.

    The caller checks the contents of a file that was there before.

    Args:
        what: what the file is, for messages.
        like: the database, whose mode and owner a new file gets if the database exists. Otherwise
            the database's other users, such as the service, could not open a file that root
            created.

    Returns: a descriptor for reading and writing, and whether the file was created.

    Raises:
        CannotOpen: one line that names the file and says why. No new file is left.
    """
    for _ in range(_TRIES):
        try:
            try:
                _check_kind(path, what, os.lstat(path))
            except FileNotFoundError:
                return _make(path, mark, like), True
            fd = os.open(path, _FLAGS)
        except (FileNotFoundError, FileExistsError):
            continue  # another process removed or created it in between
        except OSError as error:
            raise CannotOpen(f"cannot open the {what} {path}: {error.strerror}") from error
        try:
            _check_kind(path, what, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd, False
    raise CannotOpen(f"cannot open the {what} {path}: No such file or directory")


def foreign(path: Path, what: str) -> CannotOpen:
    """The error for a file that has one of our names but is not ours."""
    return CannotOpen(
        f"{path} is in the way: it was not made by tenantbase, which keeps its {what} there;"
        " move it, or give the database another name"
    )


def is_marked(path: Path) -> bool:
    """Whether the path is a regular file of ours. Does not follow links."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode) and os.pread(fd, MARK_BYTES, 0) in _MARKS
    finally:
        os.close(fd)


def remove_marked(path: Path) -> None:
    """Remove a file of ours; leave anything else alone."""
    if is_marked(path):
        path.unlink(missing_ok=True)


def _check_kind(path: Path, what: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise foreign(path, what)


def _make(path: Path, mark: bytes, like: Path | None) -> int:
    fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if like is not None:
            make_alike(fd, like)
        os.pwrite(fd, mark, 0)
    except BaseException:
        path.unlink(missing_ok=True)
        os.close(fd)
        raise
    return fd


def make_alike(fd: int, like: Path) -> None:
    """Give a file the mode and owner of the database, if it exists and as far as permitted."""
    with suppress(FileNotFoundError):  # we are about to create it
        database = os.stat(like)
        with suppress(OSError):  # only root may change a file's owner; SQLite does the same
            os.fchown(fd, database.st_uid if os.geteuid() == 0 else -1, database.st_gid)
        os.fchmod(fd, stat.S_IMODE(database.st_mode) & 0o666)
