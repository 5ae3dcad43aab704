"""Listening sockets that several processes share, and that close without resetting a connection."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

BACKLOG: Final = 1024
"""Connections that the kernel queues for a listening socket; its own limit may be lower."""

_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h; not in Python's socket module
# Classic BPF (Linux, networking/filter.rst). A socket's filter sees segments from the TCP header on.
_LOAD_BYTE: Final = 0x30
_JUMP_IF_SET: Final = 0x45
_RETURN: Final = 0x06
_FLAGS_OFFSET: Final = 13
_SYN: Final = 0x02
_WHOLE: Final = 0xFFFF_FFFF
_DROP_SYN: Final = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (_LOAD_BYTE, 0, 0, _FLAGS_OFFSET),
        (_JUMP_IF_SET, 0, 1, _SYN),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, _WHOLE),
    )
)


class Listener(socket.socket):
    """A socket that knows whether this process is the last to hold it.

    Every process that holds it also holds the write end of a pipe. When the last write end is
    closed, however the processes ended, the kernel reports it at the read end.
    """

    def __init__(self, family: int) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._watched, self._held = os.pipe()

    def is_last(self) -> bool:
        """Give up this process's share. Returns: whether no other process has one.

        The socket stays open. If several processes call this, at least the last gets True.
        """
        if self._held >= 0:
            os.close(self._held)
            self._held = -1
        poll = select.poll()
        poll.register(self._watched, 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        super().close()
        for descriptor in {self._watched, self._held} - {-1}:
            os.close(descriptor)
        self._watched = self._held = -1


class UnixListener(Listener):
    """A Unix socket with a path. Every process that holds the socket can remove the path."""

    def __init__(self, path: Path) -> None:
        super().__init__(socket.AF_UNIX)
        self.path = path
        self._file: tuple[int, int] | None = None

    def created(self) -> None:
        """Note that its path exists now. Raises OSError."""
        status = os.lstat(self.path)
        self._file = status.st_dev, status.st_ino

    def remove(self) -> None:
        """Remove its path, unless another file has replaced it."""
        with suppress(OSError):
            status = os.lstat(self.path)
            if self._file == (status.st_dev, status.st_ino):
                os.unlink(self.path)


class InheritedListener(socket.socket):
    """A listening socket that the parent process keeps open.

    Connections left in its queue go to the next process that inherits it.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(fileno=descriptor)


def is_last(sock: socket.socket) -> bool:
    """Whether closing this socket closes the port. A plain socket is not shared."""
    if isinstance(sock, InheritedListener):
        return False
    return sock.is_last() if isinstance(sock, Listener) else True


def refuse_connections(sock: socket.socket) -> bool:
    """Refuse new connections; those that have begun still reach the queue.

    Returns: whether they may need a moment for that, so that emptying the queue must wait.
    """
    if isinstance(sock, UnixListener):
        sock.remove()
        return True
    return _refuse_handshakes(sock)


def _refuse_handshakes(sock: socket.socket) -> bool:
    """Ignore new handshakes; those that have begun still reach the queue.

    Otherwise a connection could always arrive between the last look at the queue and the close of
    the socket, which would reset it. A client whose SYN is ignored repeats it a second later, and is
    then refused, as at any closed port.

    Returns: whether this system supports it; Linux does.
    """
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    code = ctypes.create_string_buffer(_DROP_SYN, len(_DROP_SYN))
    program = struct.pack("@HP", len(_DROP_SYN) // 8, ctypes.addressof(code))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError:
        return False
    return True
