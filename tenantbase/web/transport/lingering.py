"""Lingering close: the end of a connection that does not destroy the last answer.

A socket that is closed while it holds bytes nobody has read, or to which more bytes come, is
reset by the kernel, and a reset makes the peer's kernel throw away what the peer has not read yet
(RFC 9112, section 9.6). So the sending side is closed first, and what still comes is read and
thrown away, until the peer closes too or a short time is over.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

LINGER_SECONDS: Final = 1.0
_MOST: Final = 1_024  # connections that linger at a time; the oldest gives way
_POLL_SECONDS: Final = 0.01
_PIECE_BYTES: Final = 1 << 16
_ESTABLISHED: Final = 1  # of the kernel's states: neither side has closed yet


class Lingering:
    """The sockets that are about to be closed. Belongs to one event loop."""

    def __init__(self) -> None:
        self._sockets: dict[socket.socket, tuple[asyncio.TimerHandle, Callable[[], object]]] = {}

    def __len__(self) -> int:
        return len(self._sockets)

    def follow(self, transport: asyncio.BaseTransport) -> None:
        """Linger on the socket of a transport that is about to close it.

        To be called from ``connection_lost``: the socket is still open, and all that was written
        is with the kernel.
        """
        sock = transport.get_extra_info("socket")
        if sock is None or not _is_established(sock):
            return  # the peer has closed as well, so it sends no more
        try:
            descriptor = os.dup(sock.fileno())
        except OSError:
            return
        self.add(socket.socket(sock.family, sock.type, sock.proto, descriptor))

    def add(self, sock: socket.socket, then: Callable[[], object] = lambda: None) -> None:
        """Close a non-blocking socket in an orderly way; call ``then`` once it is closed."""
        if len(self._sockets) >= _MOST:
            self._close(next(iter(self._sockets)))
        timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._close, sock)
        self._sockets[sock] = (timer, then)
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError:  # the peer has reset it
            self._close(sock)
            return
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable, sock)

    async def until_closed(self) -> None:
        """Wait until none is left, which takes ``LINGER_SECONDS`` at most."""
        while self._sockets:
            await asyncio.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Close what is left at once."""
        for sock in list(self._sockets):
            self._close(sock)

    def _readable(self, sock: socket.socket) -> None:
        try:
            if sock.recv(_PIECE_BYTES):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        ended = self._sockets.pop(sock, None)
        if ended is None:
            return
        timer, then = ended
        timer.cancel()
        asyncio.get_running_loop().remove_reader(sock.fileno())
        sock.close()
        then()


def _is_established(sock: socket.socket) -> bool:
    """Whether the peer may still send. Not known on every system; then it is assumed."""
    if not hasattr(socket, "TCP_INFO"):
        return True
    try:
        (state,) = struct.unpack("B", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1))
    except OSError:
        return False
    return bool(state == _ESTABLISHED)
