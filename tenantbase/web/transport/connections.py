"""The open connections of a server; those whose clients read nothing are cut off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tenantbase.figures import CONNECTIONS, private_cells
from tenantbase.web.transport.lingering import Lingering
from tenantbase.web.transport.progress import progress
from tenantbase.web.transport.unread import HIGH_WATER_BYTES, Unread

log = logging.getLogger("tenantbase.web")

_LOOKS_PER_TIMEOUT: Final = 20
_LONGEST_PAUSE_SECONDS: Final = 5.0


class Connections:
    """Accepted connections that are not closed, whichever protocol serves them.

    Belongs to one event loop.

    Attributes:
        expected: accepted connections that have no protocol yet.
        lingering: connections that have ended and wait for the peer to close.
        unread: the budget for answers that clients have yet to read.
        figures: the worker's cells, for the number of connections.
    """

    def __init__(self) -> None:
        self.expected = 0
        self.lingering = Lingering()
        self.unread = Unread()
        self.figures = private_cells()
        self._open: set[asyncio.Transport] = set()
        self._clients: dict[asyncio.Transport, str] = {}
        self._stalled: dict[asyncio.Transport, tuple[int, float]] = {}
        self._half_closed: set[asyncio.Transport] = set()
        self._endless: dict[asyncio.Transport, Callable[[], object]] = {}

    def __len__(self) -> int:
        return len(self._open) + self.expected

    def __iter__(self) -> Iterator[asyncio.Transport]:
        return iter(self._open)

    def made(self, transport: asyncio.Transport) -> None:
        """A protocol has taken over the connection. Several may do so in turn."""
        if transport not in self._open:
            self._open.add(transport)
            transport.set_write_buffer_limits(HIGH_WATER_BYTES)
            self.expected = max(0, self.expected - 1)
            self.figures[CONNECTIONS] = len(self._open)

    def forwarded(self, transport: asyncio.Transport, client: str) -> None:
        """The connection is a proxy's, and its last request comes from this client."""
        if transport in self._open:
            self._clients[transport] = client

    def client(self, transport: asyncio.Transport) -> str:
        """The client of a connection, for the log."""
        client = self._clients.get(transport)
        return peer(transport) if client is None else f"{client} behind {peer(transport)}"

    def failed(self) -> None:
        """An expected connection could not be set up."""
        self.expected = max(0, self.expected - 1)

    @contextmanager
    def endless(self, transport: asyncio.Transport, end: Callable[[], object]) -> Iterator[None]:
        """For an answer without an end of its own, such as a watch, which is sent inside the block.

        A client that has closed its sending side may still wait for its answer, or may be gone: the
        two look the same until something is sent. A finite answer is worth finishing. An endless one
        would be kept, and counted, until its client failed to take something.

        Args:
            end: ends the answer; called when the client has closed its sending side, or the
                connection is lost.
        """
        self._endless[transport] = end
        try:
            if transport in self._half_closed or transport not in self._open:
                end()
            yield
        finally:
            del self._endless[transport]

    def half_closed(self, transport: asyncio.Transport) -> None:
        """The client has closed its sending side. Call this from ``eof_received``."""
        self._half_closed.add(transport)
        self._end(transport)

    def _end(self, transport: asyncio.Transport) -> None:
        end = self._endless.get(transport)
        if end is not None:
            end()

    def lost(self, transport: asyncio.Transport, error: BaseException | None) -> None:
        """A connection has ended. Call this from ``connection_lost``."""
        if transport not in self._open:
            return
        self._open.discard(transport)
        self._half_closed.discard(transport)
        self._end(transport)
        self.figures[CONNECTIONS] = len(self._open)
        self._clients.pop(transport, None)
        self._stalled.pop(transport, None)
        if error is None:
            self.lingering.follow(transport)

    async def cut_stalled(self, seconds: float) -> None:
        """Abort connections whose peers read nothing for ``seconds``. Runs until cancelled.

        Only progress counts, not the total time: a client may read as slowly as it likes.
        """
        loop = asyncio.get_running_loop()
        pause = min(_LONGEST_PAUSE_SECONDS, seconds / _LOOKS_PER_TIMEOUT)
        while True:
            await asyncio.sleep(pause)
            self._look(loop.time(), seconds)

    def _look(self, now: float, seconds: float) -> None:
        for transport in list(self._open):
            if not transport.get_write_buffer_size():
                self._stalled.pop(transport, None)
                continue
            mark = progress(transport)
            seen, since = self._stalled.get(transport, (None, now))
            if mark != seen:
                self._stalled[transport] = (mark, now)
            elif now - since >= seconds:
                log.warning(
                    "%s has read nothing of its answer for %g s; its connection is cut",
                    self.client(transport),
                    seconds,
                )
                transport.abort()


def peer(transport: asyncio.BaseTransport) -> str:
    """The address at the other end of a connection, for the log."""
    address = transport.get_extra_info("peername")
    return f"{address[0]} port {address[1]}" if isinstance(address, tuple) else "a client"
