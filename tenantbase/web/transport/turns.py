"""One large body, or one piece of a large answer, for each turn of the event loop.

Parsing a body of some hundred KiB takes the event loop tens of milliseconds, and rendering as much of
a list some, too. If a hundred of them are ready in the same turn, every other client would wait until
the last is done.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tenantbase.lanes import Lanes

# A read takes five turns of the event loop, and would wait for as many pieces of large answers. So
# while other requests are in flight, this many turns pass before the next piece.
_FREE_TURNS: Final = 8

# Threads read and check the values of large answers, and in each turn the event loop may have to
# wait this long for one of them to release the interpreter's lock. Python's default is 5 ms, and is
# better without such answers: switching more often makes smaller groups of writes, which cost more.
_SWITCH_SECONDS: Final = 0.0005


def _no_others(_: int) -> bool:
    return False


class Turns:
    """Gives turns, in the order of asking, and to lanes alternately. Belongs to one event loop.

    Args:
        others: whether requests are in flight besides this many that stream an answer.
    """

    def __init__(self, others: Callable[[int], bool] = _no_others) -> None:
        self._waiting = Lanes[asyncio.Future[None]]()
        self._taken = False  # by a request in this turn of the event loop, or the one before
        self._others = others
        self._streams = 0
        self._passed = 0  # turns since the last one that was given
        self._usual_seconds = 0.0

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """For an answer that is made piece by piece, taking a turn before each."""
        if not self._streams:
            self._usual_seconds = sys.getswitchinterval()
            sys.setswitchinterval(_SWITCH_SECONDS)
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1
            if not self._streams:
                sys.setswitchinterval(self._usual_seconds)

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
        if self._waiting and self._passed < _FREE_TURNS and self._others(self._streams):
            self._passed += 1
            asyncio.get_running_loop().call_soon(self._next)
            return
        self._passed = 0
        while self._waiting:
            future = self._waiting.take()
            if not future.done():  # otherwise its request has been cancelled
                future.set_result(None)
                # Runs after the request; the events that have arrived meanwhile come in between.
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._taken = False
