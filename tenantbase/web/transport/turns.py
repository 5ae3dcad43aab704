"""One large body, or a few pieces of large answers, for each turn of the event loop.

Parsing some hundred KiB of a body blocks the event loop for tens of milliseconds, and rendering as
much of a list for some, too. If a hundred were ready in the same turn, every other client would wait
for the last of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tenantbase.lanes import Lanes
from tenantbase.switching import switch_fast

# A read takes five turns of the event loop, and would wait for large pieces of work in each. And a
# thread that commits needs the interpreter's lock for each statement, but gets it from a busy event loop
# only every 5 ms. So while other requests are in flight, the event loop rests after each turn, for as
# long as that took: but not for less, because no timer is finer, and not for longer, in case the process
# was stopped meanwhile.
_LEAST_REST_SECONDS: Final = 0.001
_MOST_REST_SECONDS: Final = 0.1

PIECE_SHARE: Final = 1 / 3
"""The share of a turn for a piece of a large answer: a turn takes about half a millisecond."""

_Waiting = tuple[asyncio.Future[None], float]  # and the share of a turn that it needs


def _no_others(_: int) -> bool:
    return False


class Turns:
    """Gives turns in the order of requests, shared equally by lanes. Belongs to one event loop.

    Args:
        others: whether more requests are in flight than this many, which take turns.
    """

    def __init__(self, others: Callable[[int], bool] = _no_others) -> None:
        self._waiting = Lanes[_Waiting]()
        self._taken = 0.0  # how much of this turn of the event loop, or of the one before
        self._others = others
        self._began = 0.0  # the current turn
        self._streams = 0

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """To be held by a request while it is worked on in pieces, each after a ``take``."""
        self._streams += 1
        self._set_switching()
        try:
            yield
        finally:
            self._streams -= 1
            self._set_switching()

    async def take(self, lane: str = "", share: float = 1.0) -> None:
        """Return at once or in a later turn of the event loop, when it is free.

        Args:
            lane: where to wait.
            share: how much of a turn is needed, up to 1. Small pieces of work may share one.
        """
        loop = asyncio.get_running_loop()
        if self._waiting or self._taken + share > 1:
            future = loop.create_future()
            self._waiting.append(lane, (future, share))
            await future
            return
        if not self._taken:
            self._begin(loop)
        self._taken += share
        self._set_switching()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._began = time.monotonic()  # the event loop's clock is coarser than a turn
        # Runs after the requests, and after the events that have arrived in the meantime.
        loop.call_soon(self._end)

    def _end(self) -> None:
        if not self._others(self._streams):
            self._next()
            return
        took = time.monotonic() - self._began
        rest = min(max(took, _LEAST_REST_SECONDS), _MOST_REST_SECONDS)
        asyncio.get_running_loop().call_later(rest, self._next)

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        self._taken = 0.0
        while self._waiting and self._taken + self._waiting.next()[1] <= 1:
            future, share = self._waiting.next()
            self._waiting.take(share)
            if not future.done():  # otherwise its request has been cancelled
                future.set_result(None)
                self._taken += share
        if self._taken:
            self._begin(loop)
        self._set_switching()

    def _set_switching(self) -> None:
        """Switch threads fast while turns are taken or answers are streamed."""
        switch_fast(self, self._streams > 0 or self._taken > 0)
