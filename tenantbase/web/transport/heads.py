"""Limits the memory for incomplete request heads.

aiohttp limits the size of each header field and their number, but a head within those limits can be
a megabyte, and thousands of connections can each send that much and never finish. So the whole head
has a limit too, and more than a few KiB of it count against the budget for bodies.
"""

from __future__ import annotations

import asyncio
from typing import Final

from tenantbase.web.problems import HeaderTooLong
from tenantbase.web.transport.budget import Budget, Holding

MAX_HEAD_BYTES: Final = 64 << 10
"""The largest head of a request."""

HEAD_PIECE_BYTES: Final = 4 << 10
"""A head is parsed in pieces of this size, to know roughly where it ends and the next one begins."""

_FREE_BYTES: Final = 8 << 10  # of each connection; few heads are larger
_COPIES: Final = 2  # aiohttp keeps header fields as text and as bytes


class Head(Holding):
    """The part of a connection's current head that has arrived."""

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
        """Cut the connection, because other requests need the room."""
        super().evict()
        self._transport.abort()
