"""One large body, or one piece of a large answer, for each turn of the event loop.

Parsing some hundred KiB of a body blocks the event loop for tens of milliseconds, and rendering as
much of a list for some, too. If a hundred were ready in the same turn, every other client would wait
for the last of them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tenantbase.lanes import Lanes

# A read takes five turns of the event loop, and would wait for a piece of a large answer in each. So
# while other requests are in flight, this many turns pass before the next piece.
_FREE_TURNS: Final = 8

# A thread that commits a large transaction needs the interpreter's lock for each statement. While the
# event loop parses one body after the other, it gets the lock only every 5 ms, and the commit, for
# which small writes wait, would last until all bodies are parsed. So the event loop rests after each
# body for as long as that took: but not longer than this, if the process was stopped meanwhile.
_MOST_REST_SECONDS: Final = 0.1

# Threads read and check the values of large answers, and the event loop may have to wait this long in
# each turn for one of them to release the interpreter's lock. Without such answers, Python's default of
# 5 ms is better: frequent switching makes groups of writes smaller, and writes more expensive.
_SWITCH_SECONDS: Final = 0.0005


def _no_others(_: int) -> bool:
    return False


class Turns:
    """Gives turns in the order of requests, shared equally by lanes. Belongs to one event loop.

    Args:
        others: whether more requests are in flight than this many, which stream an answer.
        rests: leave the event loop to threads for as long as each turn took.
    """

    def __init__(self, others: Callable[[int], bool] = _no_others, *, rests: bool = False) -> None:
        self._waiting = Lanes[asyncio.Future[None]]()
        self._taken = False  # by a request in this turn of the event loop, or the one before
        self._others = others
        self._rests = rests
        self._began = 0.0  # the current turn
        self._streams = 0
        self._passed = 0  # turns left free since the last one given
        self._usual_seconds = 0.0

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """To be held while an answer is made in pieces, each after a ``take``."""
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
        """Return at once or in a later turn of the event loop, when it is free.

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
            self._begin(loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._began = loop.time()
        # Runs after the request, and after the events that have arrived in the meantime.
        loop.call_soon(self._rest if self._rests else self._next)

    def _rest(self) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(min(loop.time() - self._began, _MOST_REST_SECONDS), self._next)

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
                self._begin(asyncio.get_running_loop())
                return
        self._taken = False
