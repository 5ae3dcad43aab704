"""Lingering close: ending a connection without destroying its last answer.

The kernel resets a connection that is closed with unread bytes, or that receives more bytes later,
and a reset makes the peer's kernel discard what the peer has not read yet (RFC 9112, section 9.6).
So the sending side is closed first, and further input is read and discarded until the peer closes,
too, or a short time has passed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

LINGER_SECONDS: Final = 1.0
_MAX_LINGERING: Final = 1_024  # how many connections may linger; beyond that, the oldest is closed
_POLL_SECONDS: Final = 0.01
_PIECE_BYTES: Final = 1 << 16
_ESTABLISHED: Final = 1  # the kernel's TCP state in which neither side has closed


class Lingering:
    """The sockets that are being closed. Belongs to one event loop."""

    def __init__(self) -> None:
        self._sockets: dict[socket.socket, tuple[asyncio.TimerHandle, Callable[[], object]]] = {}

    def __len__(self) -> int:
        return len(self._sockets)

    def follow(self, transport: asyncio.BaseTransport) -> None:
        """Linger on the socket of a transport that is about to close it.

        Call this from ``connection_lost``: the socket is still open, and everything written has
        reached the kernel.
        """
        sock = transport.get_extra_info("socket")
        if sock is None or not _is_established(sock):
            return  # the peer has closed, too, and sends no more
        try:
            descriptor = os.dup(sock.fileno())
        except OSError:
            return
        self.add(socket.socket(sock.family, sock.type, sock.proto, descriptor))

    def add(self, sock: socket.socket, then: Callable[[], object] = lambda: None) -> None:
        """Close a non-blocking socket without a reset; call ``then`` once it is closed."""
        if len(self._sockets) >= _MAX_LINGERING:
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
        """Wait until none is left: ``LINGER_SECONDS`` at most."""
        while self._sockets:
            await asyncio.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Close all of them at once."""
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
    """Whether the peer may still send; True if the system cannot tell."""
    if not hasattr(socket, "TCP_INFO"):
        return True
    try:
        (state,) = struct.unpack("B", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1))
    except OSError:
        return False
    return bool(state == _ESTABLISHED)
