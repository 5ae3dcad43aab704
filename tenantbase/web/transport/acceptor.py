"""How connections come in: accepted within limits, whatever the process runs out of.

The event loops' own servers are not used, since they differ in what matters here: out of
descriptors, asyncio's logs a traceback each time and uvloop's drops connections without an answer;
and neither empties the kernel's queue before it closes a listening socket, which resets every
connection in it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

from tenantbase.web.transport.descriptors import descriptor_limit
from tenantbase.web.transport.connections import Connections
from tenantbase.web.problems import OverLimit, answer

log = logging.getLogger("tenantbase.web")

# Taken from a queue at a time, so that those connected already are not kept waiting.
_BATCH: Final = 64
_RETRY_SECONDS: Final = 0.1
_QUIET_SECONDS: Final = 60.0  # between two lines in the log about the same trouble
# Descriptors that are left for the database, memcached and the like.
_SPARE_DESCRIPTORS: Final = 64
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Accepts the connections of some listening sockets.

    Args:
        connect: makes the protocol of a connection.
        limit: how many connections there may be. Fewer are let in if there are not enough
            descriptors for that many. One more is answered with a 503, and closed.
        server: the ``Server`` header of that answer; None: it is closed without one, as plain HTTP
            in place of a TLS handshake would mean nothing to the client.
    """

    def __init__(
        self,
        connect: Callable[[], asyncio.Protocol],
        connections: Connections,
        limit: int,
        server: str | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connect = connect
        self._connections = connections
        self._limit = _within_descriptors(limit)
        self._server = server
        self._sockets: list[socket.socket] = []
        self._connecting: set[asyncio.Task[object]] = set()
        # Given up to accept, and refuse, a connection for which there is no descriptor.
        self._reserve: int | None = _any_descriptor()
        self._retry: asyncio.TimerHandle | None = None
        self._told: dict[str, float] = {}

    def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept from these sockets, which are non-blocking and listen."""
        self._sockets = list(sockets)
        self._listen()

    def accept_waiting(self, sockets: Sequence[socket.socket]) -> None:
        """Take all that wait in the queues of these sockets now."""
        for sock in sockets:
            while self._accept(sock):
                pass

    def stop(self) -> None:
        """Accept no more; the listening sockets are left open."""
        if self._retry is not None:
            self._retry.cancel()
        self._ignore()
        self._sockets.clear()

    async def until_begun(self) -> None:
        """Wait until the last that were accepted have begun."""
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
        """Take one connection. Returns: whether to go on."""
        try:
            accepted, _ = sock.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionAbortedError:  # it has gone while it waited
            return True
        except OSError as error:
            self._failed(sock, error)
            return False
        accepted.setblocking(False)
        if len(self._connections) >= self._limit:
            self._tell("limit", "there are %d connections; further ones are refused", self._limit)
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
        except Exception as error:  # of one connection; the others go on
            log.error("a connection could not begin", exc_info=error)
            self._connections.failed()
            accepted.close()

    def _refuse(self, accepted: socket.socket, then: Callable[[], object] = lambda: None) -> None:
        """Say at once that there is no room. What the client sends is not looked at."""
        try:
            if self._server is not None:
                accepted.send(self._refusal(self._server))
        except OSError:  # it has gone
            pass
        self._connections.lingering.add(accepted, then)

    @staticmethod
    def _refusal(server: str) -> bytes:
        response = answer(
            OverLimit("there are too many connections; try again later", "max-connections")
        )
        body = response.body
        assert isinstance(body, bytes)
        fields = {**response.headers, "Server": server, "Connection": "close"}
        fields["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"HTTP/1.1 {response.status} {response.reason}\r\n{head}\r\n".encode() + body

    def _failed(self, sock: socket.socket, error: OSError) -> None:
        """It cannot be accepted: refuse it if possible, and try again later.

        The socket stays readable meanwhile, so it is not looked at: the loop would spin.
        """
        self._ignore()
        if error.errno in _EXHAUSTED:
            self._tell("exhausted", "no more connections can be accepted: %s", error.strerror)
        else:  # the network's errors are those of one connection (accept(2))
            self._tell("accept", "a connection could not be accepted: %s", error.strerror)
        if error.errno == errno.EMFILE and self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
            try:
                accepted, _ = sock.accept()
            except OSError:  # another thread was faster
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
        # Without a reserve it is tried again only now and then.
        self._listen()

    def _tell(self, what: str, message: str, detail: object) -> None:
        """Log a trouble that may come a thousand times a second."""
        now = self._loop.time()
        if now >= self._told.get(what, now):
            self._told[what] = now + _QUIET_SECONDS
            log.warning(message, detail)


def _any_descriptor() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _within_descriptors(limit: int) -> int:
    """As many connections as there are descriptors for."""
    descriptors = descriptor_limit()
    if descriptors is None:
        return limit
    available = descriptors - min(_SPARE_DESCRIPTORS, descriptors // 2)
    if available < limit:
        log.info("with %d open files at most, %d connections are served", descriptors, available)
    return min(limit, available)
