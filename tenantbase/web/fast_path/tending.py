"""Checks and closes all connections of the fast path."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

log = logging.getLogger("tenantbase.web")

_PATIENCE_SECONDS: Final = 1.0  # timeout for an incomplete request; then aiohttp takes over
_CLOSE_POLL_SECONDS: Final = 0.01


class Tended(Protocol):
    """A connection of the fast path."""

    def look_after(self, now: float) -> None:
        """Close the connection if it is idle; hand it to aiohttp if its request is slow."""

    def drain(self) -> None:
        """Hand an incomplete request to aiohttp."""

    def close(self) -> None:
        """Close the connection once everything written has been sent."""

    def abort(self) -> None:
        """Cut the connection at once."""


class OpenConnections(set[Tended]):
    """All connections of the fast path, including lent ones."""

    async def watch(self) -> None:
        """Look after idle and slow connections. Runs until cancelled."""
        while True:
            await asyncio.sleep(_PATIENCE_SECONDS)
            now = asyncio.get_running_loop().time()
            for connection in list(self):
                try:
                    connection.look_after(now)
                except Exception:  # the other connections must still be checked
                    log.exception("a connection could not be checked; it is cut")
                    connection.abort()

    def drain(self) -> None:
        """The server is shutting down: hand incomplete requests to aiohttp, which waits for them."""
        for connection in list(self):
            connection.drain()

    async def close(self, deadline: float) -> None:
        """Close every connection after its answer, or at a deadline on the event loop's clock.

        The last step of a shutdown.
        """
        for connection in list(self):
            connection.close()
        while self and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_CLOSE_POLL_SECONDS)
        for connection in list(self):
            connection.abort()
