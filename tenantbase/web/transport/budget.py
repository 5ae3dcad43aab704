"""The memory budget for the bodies of all requests together.

A body is charged as it arrives, not by its announced length, so an announcement alone takes no room
from others. When the budget is used up, stalled bodies are evicted first: a client that holds back
the end of its body cannot keep others from writing. Part of the budget is reserved for small
bodies, so that small writes continue however fast large ones arrive.
"""

from __future__ import annotations

import asyncio
from typing import Final

from tenantbase.web.problems import OverLimit
from tenantbase.web.transport.turns import Turns

STALLED_SECONDS: Final = 0.5
"""A body that has not grown for this long is stalled, and may be evicted."""

SMALL_BYTES: Final = 64 << 10
"""Bodies up to this size may use the whole budget; larger ones only the unreserved part."""


class Budget:
    """Counts the bytes of request bodies from their arrival to the end of their requests.

    Args:
        limit: the most bytes.
        reserved: how many of them are for small bodies only.
        turns: for parsing large ones.
    """

    def __init__(self, limit: int, reserved: int = 0, turns: Turns | None = None) -> None:
        self._limit = limit
        self._reserved = reserved
        self._used = 0
        self._unjudged = 0
        self._received = 0  # in this turn of the event loop
        self._room: int | None = None  # as counted in this turn
        self._arriving: dict[Holding, float] = {}  # when each body last grew, oldest first
        self._turns = turns or Turns()

    @property
    def most(self) -> int:
        """The most bytes that a single request can hold."""
        return self._limit - self._reserved

    @property
    def used(self) -> int:
        """Bytes held now."""
        return self._used

    def check(self, count: int) -> None:
        """Raise OverLimit if these bytes would not fit even if all stalled bodies were evicted."""
        if count > self._limit_for(count) - self._used + self._reclaimable():
            raise self.exceeded()

    def admit(self, size: int, arrived: int) -> bool:
        """Whether a request with a body of ``size`` bytes may begin.

        Its first bytes have ``arrived``; they count until ``judged`` is called. Otherwise the first
        bytes of hundreds of requests that begin in the same turn of the event loop would go
        uncounted.
        """
        if arrived and size > SMALL_BYTES:
            limit = self._limit_for(size)
            room = limit - self._used + self._reclaimable()
            # A body that can never fit is refused by its route, with an error that says so.
            if room < size <= limit or room < self._unjudged + arrived:
                return False
        self._unjudged += arrived
        return True

    def judged(self, arrived: int) -> None:
        """The request's body is charged from now on, or has been refused."""
        self._unjudged -= arrived

    def receive(self, count: int) -> bool:
        """Whether these bytes of a body, which have just arrived, may wait until they are read.

        Requests charge what they read, but only in the event loop's next turn. In one turn, each of
        thousands of connections can receive a part of its body.
        """
        if not self._received:
            asyncio.get_running_loop().call_soon(self._turned)
        self._received += count
        if self._received <= self._limit - self._used:
            return True
        if self._room is None:
            self._room = self._limit - self._used + self._reclaimable()
        return self._received <= self._room

    def _turned(self) -> None:
        self._received = 0
        self._room = None

    def _limit_for(self, size: int) -> int:
        return self._limit if size <= SMALL_BYTES else self.most

    def _reclaimable(self) -> int:
        if not self._arriving:
            return 0
        latest = asyncio.get_running_loop().time() - STALLED_SECONDS
        return sum(each.size for each, grew in self._arriving.items() if grew <= latest)

    def exceeded(self) -> OverLimit:
        """The error of a body for which there is no room."""
        return OverLimit(
            f"the bodies of all requests in flight would exceed {self._limit:,} bytes;"
            " try again later",
            "max-inflight-bytes",
        )

    def _take(self, holding: Holding, count: int) -> None:
        now = asyncio.get_running_loop().time()
        self._arriving.pop(holding, None)  # moves it to the end
        limit = self._limit_for(holding.size + count)
        while self._used + count > limit:
            oldest = next(iter(self._arriving), None)
            if oldest is None or now - self._arriving[oldest] < STALLED_SECONDS:
                raise self.exceeded()
            oldest.evict()
        self._used += count
        holding.size += count
        self._arriving[holding] = now

    def _settle(self, holding: Holding) -> None:
        self._arriving.pop(holding, None)

    def _free(self, holding: Holding) -> None:
        self._settle(holding)
        self._used -= holding.size
        holding.size = 0


class Holding:
    """One request's share of a budget.

    Attributes:
        size: bytes.
        evicted: the body was stalled, and others needed its bytes.
    """

    __slots__ = ("size", "evicted", "_budget", "_timeout")

    def __init__(self, budget: Budget) -> None:
        self.size = 0
        self.evicted = False
        self._budget = budget
        self._timeout: asyncio.Timeout | None = None

    def begin(self, timeout: asyncio.Timeout | None, announced: int | None) -> None:
        """The body begins to arrive. Eviction ends its arrival through ``timeout``.

        Raises:
            OverLimit: there is no room for the announced length.
        """
        self._timeout = timeout
        self._budget.check(announced or 0)

    def grow(self, count: int) -> None:
        """Charge bytes that have arrived. Raises OverLimit if there is no room for them."""
        self._budget._take(self, count)

    def arrived(self) -> None:
        """The body is complete. From now on it cannot be evicted."""
        self._timeout = None
        self._budget._settle(self)

    def unfold(self, count: int) -> None:
        """Charge the additional memory of a complete body once it is parsed.

        Raises OverLimit if there is no room for it. A lone request always has room.
        """
        try:
            self._budget._take(self, min(count, self._budget.most - self.size))
        finally:
            self.arrived()

    async def turn(self, lane: str = "") -> None:
        """Wait until it may be parsed: a small body at once, large ones one after the other.

        Args:
            lane: where to wait.
        """
        if self.size > SMALL_BYTES:
            await self._budget._turns.take(lane)

    def release(self) -> None:
        """The request has ended: give its bytes back."""
        self._budget._free(self)

    def evict(self) -> None:
        """Give the bytes back to others, and end the arrival of the body now."""
        self.evicted = True
        self._budget._free(self)
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def exceeded(self) -> OverLimit:
        """The error of an evicted body."""
        return self._budget.exceeded()
