"""Checks of the database file and its directory that do not need SQLite."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from tenantbase.errors import CannotOpen


def located(database: Path) -> Path:
    """Where a database is, or would be: its path without symbolic links.

    Afterwards it can be asked whether the file exists.

    Raises:
        CannotOpen: that cannot be known; this process may not search a directory, for instance.
    """
    path = os.path.realpath(database)
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise CannotOpen(f"cannot open {database}: {error.strerror}") from error
    return Path(path)


def make_file(path: str) -> tuple[int, int]:
    """Create the file if it does not exist, readable by its owner alone. Returns (device, inode).

    SQLite gives the files that it creates beside it the same mode.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    except FileNotFoundError as error:
        raise CannotOpen(f"cannot open {path}: there is no such directory") from error
    except OSError as error:
        raise CannotOpen(f"cannot make {path}: {error.strerror}") from error
    return check_file(path)


def check_file(path: str) -> tuple[int, int]:
    """Return the (device, inode) of a database that can be written. Changes nothing.

    Raises:
        CannotOpen: says what is wrong with it.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise CannotOpen(f"cannot open {path}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise CannotOpen(f"cannot open {path}: it is not a file")
    if found.st_nlink > 1:
        # The tag file, the write lock and the write-ahead log are found by the database's name, so
        # a database with two names would have two of each.
        raise CannotOpen(
            f"cannot open {path}: the file has {found.st_nlink} names (hard links);"
            " processes that open it by different names share neither its locks nor its log"
        )
    # SQLite would open it read-only, create files beside it that its owner cannot use, and fail at
    # the first write.
    if not os.access(path, os.R_OK | os.W_OK):
        raise CannotOpen(f"cannot open {path}: it is read-only, or access to it is denied")
    if not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
        raise CannotOpen(f"cannot open {path}: its directory is read-only")
    return found.st_dev, found.st_ino


def sync_directory(database: str) -> None:
    """Make the names of the database and its write-ahead log durable; SQLite ignores such errors.

    Raises:
        CannotOpen: names the directory and says why.
    """
    directory = os.path.dirname(os.path.realpath(database))
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems do not support it: fsync(2)
            raise CannotOpen(f"cannot sync the directory {directory}: {error.strerror}") from error
