"""One large body, or one piece of a large answer, for each turn of the event loop.

Parsing a body of some hundred KiB takes the event loop tens of milliseconds, and rendering as much of
a list some, too. If a hundred of them are ready in the same turn, every other client would wait until
the last is done.
"""

from __future__ import annotations

import asyncio

from tenantbase.lanes import Lanes


class Turns:
    """Gives turns, in the order of asking, and to lanes alternately. Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting = Lanes[asyncio.Future[None]]()
        self._taken = False  # by a request in this turn of the event loop, or the one before

    async def take(self, lane: str = "") -> None:
        """Return at once, or in a later turn of the event loop that is free.

        Args:
            lane: where to wait.
        """
        loop = asyncio.get_running_loop()
        if self._taken:
            future = loop.create_future()
            self._waiting.append(lane, future)
            await future
        else:
            self._taken = True
            loop.call_soon(self._next)

    def _next(self) -> None:
        while self._waiting:
            future = self._waiting.take()
            if not future.done():  # otherwise its request has been cancelled
                future.set_result(None)
                # Runs after the request; the events that have arrived meanwhile come in between.
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._taken = False
