"""Bounds what clients may send of a request's head before it is complete.

aiohttp limits each header field and their number, but a head within those limits has up to a
megabyte, and thousands of connections may send that much and not finish. So a head has a limit, and
what is more than a little counts against the budget for bodies.
"""

from __future__ import annotations

import asyncio
from typing import Final

from tenantbase.web.problems import HeaderTooLong
from tenantbase.web.transport.budget import Budget, Holding

MAX_HEAD_BYTES: Final = 64 << 10
"""The largest head of a request."""

HEAD_PIECE_BYTES: Final = 4 << 10
"""How much of a head is parsed at a time, so that what belongs to the next one is known roughly."""

_FREE_BYTES: Final = 8 << 10  # of each connection; few heads are larger
_COPIES: Final = 2  # aiohttp keeps header fields as text and as bytes


class Head(Holding):
    """What has arrived of the head that a connection sends."""

    __slots__ = ("arriving", "_transport")

    def __init__(self, budget: Budget, transport: asyncio.Transport) -> None:
        super().__init__(budget)
        self.arriving = 0
        self._transport = transport

    def extend(self, count: int) -> None:
        """More of it has arrived.

        Raises:
            HeaderTooLong: it is larger than any head may be.
            OverLimit: there is no room for it.
        """
        self.arriving += count
        if self.arriving > MAX_HEAD_BYTES:
            raise HeaderTooLong(f"the head of a request has at most {MAX_HEAD_BYTES:,} bytes")
        if self.arriving > _FREE_BYTES:
            self.grow(_COPIES * self.arriving - self.size)

    def complete(self) -> None:
        """The head is complete, or the connection has ended."""
        if self.arriving:
            self.arriving = 0
            self.release()

    def evict(self) -> None:
        """Others need the room: cut the connection."""
        super().evict()
        self._transport.abort()
