"""Checks without SQLite that a database is ours, and that the files beside it are SQLite's.

SQLite writes as soon as it opens a file: for another program's database it creates, rolls back or
removes files, and beside a new one it applies and removes any file that has the name of one of its
own. So the bytes are examined first.

Call it only while no process has the database open: closing a file drops every lock that this
process holds on it (fcntl(2), "Advisory record locking").
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from typing import Final

from tenantbase.errors import CannotOpen

# Written into the file's header, so that another program's database is not taken for ours.
APPLICATION_ID: Final = 0x746E6264

_HEADER_BYTES: Final = 108  # 100 bytes of the file's header, then the header of its schema's tree
_SQLITE: Final = b"SQLite format 3\0"
_USER_VERSION: Final = slice(60, 64)
_APPLICATION: Final = slice(68, 72)
_TREE_TYPE: Final = 100
_TREE_CELLS: Final = slice(103, 105)
_LEAF: Final = 13
_OUR_ID: Final = APPLICATION_ID.to_bytes(4, "big")

_LOG_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_LOG_STARTS: Final = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
# What SQLite keeps beside a database, and how each begins (https://sqlite.org/fileformat2.html).
_COMPANIONS: Final = {
    "-wal": _LOG_STARTS,
    "-shm": ((3007000).to_bytes(4, sys.byteorder),),
    "-journal": (b"\xd9\xd5\x05\xf9",),
}
_LOOK_BYTES: Final = 8192


def check_companions_kind(database: str) -> None:
    """Check that SQLite's files beside the database, if any, are regular files. Opens none of them,
    so it may be called at any time.

    Raises:
        CannotOpen: SQLite would follow a link out of the directory, or hang on a FIFO.
    """
    for suffix in _COMPANIONS:
        with suppress(FileNotFoundError):
            found = os.lstat(database + suffix)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise _in_the_way(database + suffix)


def check_ours(database: str) -> None:
    """Check that a file is a database of ours, or is empty or absent and may become one.

    Raises:
        CannotOpen: it is neither, or something beside it is in the way.
    """
    try:
        header = _read(database, _HEADER_BYTES)
        new = not header
        if not (new or header[_APPLICATION] == _OUR_ID and header.startswith(_SQLITE)):
            _check_header(database, header)
        for suffix, starts in _COMPANIONS.items():
            head = _read(database + suffix, _LOOK_BYTES)
            # A power loss may damage the files beside our database, but will hardly turn them into
            # text.
            ours = not any(head) if new else b"\0" in head or not head
            if not ours and head[:4] not in starts:
                raise _in_the_way(database + suffix)
    except OSError as error:
        raise CannotOpen(f"cannot open {database}: {error.strerror}") from error


def _check_header(database: str, header: bytes) -> None:
    # The newest header may be in the write-ahead log alone.
    in_log = _headers_in_log(database)
    if True in in_log:
        return
    if not header.startswith(_SQLITE):
        raise CannotOpen(f"cannot open {database}: it is not a database")
    tables = header[_TREE_TYPE] != _LEAF or any(header[_TREE_CELLS])
    if any(header[_APPLICATION]) or any(header[_USER_VERSION]) or tables or in_log:
        raise CannotOpen(f"cannot open {database}: it is a database of another program")


def _headers_in_log(database: str) -> set[bool]:
    """Whether each header in the write-ahead log is ours."""
    seen: set[bool] = set()
    try:
        fd = os.open(f"{database}-wal", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return seen
    try:
        head = os.pread(fd, _LOG_HEADER_BYTES, 0)
        page_size = int.from_bytes(head[8:12], "big")
        if head[:4] not in _LOG_STARTS or not 512 <= page_size <= 65_536:
            return seen
        at = _LOG_HEADER_BYTES
        while len(frame := os.pread(fd, _FRAME_HEADER_BYTES + _HEADER_BYTES, at)) > 100:
            if int.from_bytes(frame[:4], "big") == 1:
                seen.add(frame[_FRAME_HEADER_BYTES:][_APPLICATION] == _OUR_ID)
            at += _FRAME_HEADER_BYTES + page_size
    finally:
        os.close(fd)
    return seen


def _read(path: str, size: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def _in_the_way(path: str) -> CannotOpen:
    return CannotOpen(
        f"{path} is in the way: it is not what SQLite keeps there;"
        " move it, or give the database another name"
    )
