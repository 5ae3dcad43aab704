"""Parses at most one large body in each turn of the event loop.

Parsing a body of some hundred KiB takes the event loop tens of milliseconds. If a hundred of
them arrive together, their requests are all ready in the same turn, and every other client would
wait until the last is parsed.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Gives turns, in the order of asking. Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False  # whether a request took this turn of the event loop, or the one before

    async def take(self) -> None:
        """Return at once, or in a later turn of the event loop that is free."""
        loop = asyncio.get_running_loop()
        if self._taken:
            future = loop.create_future()
            self._waiting.append(future)
            await future
        else:
            self._taken = True
            loop.call_soon(self._next)

    def _next(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():  # otherwise its request has been cancelled
                future.set_result(None)
                # Runs after the request; the events that have arrived meanwhile come in between.
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._taken = False
