"""Unix sockets: created with their permissions, removed at the end, replaced only if they are stale."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tenantbase.errors import CannotListen
from tenantbase.web.transport.listener import BACKLOG, UnixListener

_LOCK_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.01
_OWNER_ONLY: Final = 0o177  # the umask while a socket is created


@contextmanager
def listening_at(path: Path, mode: int) -> Iterator[UnixListener]:
    """Listen inside the block on a Unix socket, and remove it at the end.

    Args:
        mode: its permissions. Clients need permission to write.

    Raises:
        CannotListen: another process listens there, what is there is not a socket, or it cannot be
            created. Nothing is left behind.
    """
    sock = UnixListener(path)
    try:
        sock.setblocking(False)
        try:
            with _locked(path.parent):
                _remove_if_stale(path)
                _create(sock, path, mode)
        except OSError as error:
            raise _failure(path, error.strerror or str(error)) from error
        yield sock
    finally:
        sock.remove()
        sock.close()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold a lock on a directory: two servers that start together must not both find a socket stale
    and then remove each other's."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _remove_if_stale(path: Path) -> None:
    """Remove a socket that its server left behind, and nothing else. Raises CannotListen, OSError."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise _failure(path, "there is a file that is not a socket; it was not touched")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        error = client.connect_ex(os.fspath(path))
    if error == errno.ECONNREFUSED:
        os.unlink(path)
    elif error in (0, errno.EAGAIN):  # EAGAIN: its queue is full
        raise _failure(path, "another process listens there")
    elif error != errno.ENOENT:
        raise OSError(error, os.strerror(error))


def _create(sock: UnixListener, path: Path, mode: int) -> None:
    umask = os.umask(_OWNER_ONLY)
    try:
        sock.bind(os.fspath(path))
    finally:
        os.umask(umask)
    sock.created()
    os.chmod(path, mode)
    sock.listen(BACKLOG)


def _failure(path: Path, reason: str) -> CannotListen:
    return CannotListen(f"cannot listen on unix:{path}: {reason}")
