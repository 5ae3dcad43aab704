"""Accepts connections within limits, even when the process runs out of file descriptors.

The event loops' own servers cannot do this. Out of descriptors, asyncio's logs a traceback each
time, and uvloop's drops connections without an answer. Neither empties the kernel's queue before it
closes a listening socket, which resets every connection in the queue.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

from tenantbase.outage import Outage
from tenantbase.web.problems import OverLimit
from tenantbase.web.refusal import refusal
from tenantbase.web.transport.connections import Connections
from tenantbase.web.transport.descriptors import descriptor_limit

log = logging.getLogger("tenantbase.web")

# Connections accepted in one turn of the event loop, so that open ones are not kept waiting.
_BATCH: Final = 64
_RETRY_SECONDS: Final = 0.1
_QUIET_SECONDS: Final = 10.0  # trouble is over if it was not met for this long
# Descriptors kept free for the database, memcached and the like.
_SPARE_DESCRIPTORS: Final = 64
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Accepts connections on listening sockets.

    Args:
        connect: makes the protocol of a connection.
        limit: the most open connections; fewer if there are not enough descriptors. Further ones
            are answered with a 503 and closed.
        plain_text: connections speak plain HTTP. Otherwise further ones are closed without the 503,
            which would mean nothing to a client that expects a TLS handshake.
    """

    def __init__(
        self,
        connect: Callable[[], asyncio.Protocol],
        connections: Connections,
        limit: int,
        plain_text: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connect = connect
        self._connections = connections
        self._limit = _within_descriptors(limit)
        self._plain_text = plain_text
        self._sockets: list[socket.socket] = []
        self._connecting: set[asyncio.Task[object]] = set()
        # A spare descriptor: closed to free one for a connection that is to be refused.
        self._reserve: int | None = _any_descriptor()
        self._retry: asyncio.TimerHandle | None = None
        self._over_limit = Outage(log, "all connections are accepted", quiet_seconds=_QUIET_SECONDS)
        self._exhausted = Outage(
            log, "connections are accepted again", quiet_seconds=_QUIET_SECONDS
        )
        self._failing = Outage(log, "connections are accepted again", quiet_seconds=_QUIET_SECONDS)

    def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on these non-blocking, listening sockets."""
        self._sockets = list(sockets)
        self._listen()

    def accept_waiting(self, sockets: Sequence[socket.socket]) -> None:
        """Accept all connections that are in the queues of these sockets now."""
        for sock in sockets:
            while self._accept(sock):
                pass

    def stop(self) -> None:
        """Stop accepting. The listening sockets stay open."""
        if self._retry is not None:
            self._retry.cancel()
        self._ignore()
        self._sockets.clear()
        for outage in (self._over_limit, self._exhausted, self._failing):
            outage.close()

    async def until_begun(self) -> None:
        """Wait until every accepted connection has its protocol."""
        if self._connecting:
            await asyncio.wait(self._connecting)
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    def _listen(self) -> None:
        for sock in self._sockets:
            self._loop.add_reader(sock.fileno(), self._readable, sock)

    def _ignore(self) -> None:
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())

    def _readable(self, sock: socket.socket) -> None:
        for _ in range(_BATCH):
            if not self._accept(sock):
                return

    def _accept(self, sock: socket.socket) -> bool:
        """Accept one connection. Returns: whether to try another."""
        try:
            accepted, _ = sock.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionAbortedError:  # the client left while it was queued
            return True
        except OSError as error:
            self._failed(sock, error)
            return False
        accepted.setblocking(False)
        if len(self._connections) >= self._limit:
            self._over_limit.met("%d connections are open; further ones are refused", self._limit)
            self._refuse(accepted)
            return True
        self._connections.expected += 1
        task = self._loop.create_task(self._begin(accepted))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return True

    async def _begin(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._connect, accepted)
        except Exception as error:  # only this connection fails
            log.error("a connection could not be set up", exc_info=error)
            self._connections.failed()
            accepted.close()

    def _refuse(self, accepted: socket.socket, then: Callable[[], object] = lambda: None) -> None:
        """Answer 503 at once, without reading a request."""
        try:
            if self._plain_text:
                error = OverLimit(
                    "there are too many connections; try again later", "max-connections"
                )
                accepted.send(refusal(error))
        except OSError:  # the client is gone
            pass
        self._connections.lingering.add(accepted, then)

    def _failed(self, sock: socket.socket, error: OSError) -> None:
        """Handle a failed ``accept``: refuse the connection if possible, and try again later.

        The socket stays readable, so it must not be watched meanwhile: the event loop would spin.
        """
        self._ignore()
        if error.errno in _EXHAUSTED:
            self._exhausted.met("no more connections can be accepted: %s", error.strerror)
        else:  # network errors concern one connection only (accept(2))
            self._failing.met("a connection could not be accepted: %s", error.strerror)
        if error.errno == errno.EMFILE and self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
            try:
                accepted, _ = sock.accept()
            except OSError:  # another thread took the freed descriptor
                pass
            else:
                accepted.setblocking(False)
                self._refuse(accepted, self._resume)
                return
        self._resume_later()

    def _resume_later(self) -> None:
        if self._retry is None and self._sockets:
            self._retry = self._loop.call_later(_RETRY_SECONDS, self._resume)

    def _resume(self) -> None:
        self._retry = None
        if not self._sockets:
            return
        if self._reserve is None:
            self._reserve = _any_descriptor()
        # Without a reserve, the next failure waits again.
        self._listen()


def _any_descriptor() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _within_descriptors(limit: int) -> int:
    """The limit, or fewer if there are not enough descriptors."""
    descriptors = descriptor_limit()
    if descriptors is None:
        return limit
    available = descriptors - min(_SPARE_DESCRIPTORS, descriptors // 2)
    if available < limit:
        log.info("with %d open files at most, %d connections are served", descriptors, available)
    return min(limit, available)
