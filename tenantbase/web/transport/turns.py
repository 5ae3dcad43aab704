"""One large body, or a few pieces of large answers, for each turn of the event loop.

Parsing some hundred KiB of a body blocks the event loop for tens of milliseconds, and rendering as
much of a list for some, too. If a hundred were ready in the same turn, every other client would wait
for the last of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from tenantbase.lanes import Lanes
from tenantbase.switching import switch_fast

# A read takes five turns of the event loop, and would wait for large pieces of work in each. And a
# thread that commits needs the interpreter's lock for each statement, but gets it from a busy event loop
# only every 5 ms. So while other requests are in flight, the event loop rests after each turn, for as
# long as that took; but not for less than the first of these, because no timer is finer, nor for more
# than the second, in case the process was stopped meanwhile.
_LEAST_REST_SECONDS: Final = 0.001
_MOST_REST_SECONDS: Final = 0.1
# While requests of other tenants than the next are in flight, it rests this many times more, each for the
# least time. Most requests are answered by then.
_MORE_RESTS: Final = 4

PIECE_SHARE: Final = 1 / 3
"""The share of a turn for a piece of a large answer: a turn takes about half a millisecond."""

_Waiting = tuple[asyncio.Future[None], float]  # and the share of a turn that it needs


def _nothing(_: str | None) -> int:
    return 0


class Turns:
    """Gives turns in the order of requests, shared equally by lanes. Belongs to one event loop.

    Args:
        in_flight: how many requests are in flight in a lane; None: in all of them.
    """

    def __init__(self, in_flight: Callable[[str | None], int] = _nothing) -> None:
        self._waiting = Lanes[_Waiting]()
        self._taken = 0.0  # how much of this turn of the event loop, or of the one before
        self._in_flight = in_flight
        self._began = 0.0  # the current turn
        self._streams = Counter[str]()  # requests that are worked on in pieces, by lane
        self._rests = 0  # since the last turn
        self._turn = 0  # its number
        self._held = 0  # blocks that hold the current turn
        self._lasts: asyncio.TimerHandle | None = None  # it is over but for them

    @contextmanager
    def streaming(self, lane: str = "") -> Iterator[None]:
        """Inside the block, a request is worked on in pieces, each of them after a ``take``."""
        self.begin_stream(lane)
        try:
            yield
        finally:
            self.end_stream(lane)

    def begin_stream(self, lane: str) -> None:
        """A request is worked on in pieces until ``end_stream``."""
        self._streams[lane] += 1
        self._set_switching()

    def end_stream(self, lane: str) -> None:
        """It is not any more."""
        self._streams[lane] -= 1
        if not self._streams[lane]:
            del self._streams[lane]
        self._set_switching()

    @asynccontextmanager
    async def held(self, lane: str = "") -> AsyncIterator[None]:
        """Take a turn that lasts until the end of the block, because its work is done by a thread.

        It lasts no longer than the longest rest, so that work that hangs holds nobody up.
        """
        await self.take(lane)
        turn = self._turn
        self._held += 1
        try:
            yield
        finally:
            if turn == self._turn:
                self._held -= 1
                if self._lasts is not None and not self._held:
                    self._finish()

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
        self._turn += 1
        self._held = 0
        self._began = time.monotonic()  # the event loop's clock is coarser than a turn
        # Runs after the requests, and after the events that have arrived in the meantime.
        loop.call_soon(self._end)

    def _end(self) -> None:
        if self._in_flight(None) <= self._streams.total():
            self._next()
        elif self._held:
            loop = asyncio.get_running_loop()
            self._lasts = loop.call_later(_MOST_REST_SECONDS, self._finish)
        else:
            self._rest()

    def _finish(self) -> None:
        """End a turn that is held."""
        assert self._lasts is not None
        self._lasts.cancel()
        self._lasts = None
        self._rest()

    def _rest(self) -> None:
        took = time.monotonic() - self._began
        rest = min(max(took, _LEAST_REST_SECONDS), _MOST_REST_SECONDS)
        self._rests = 0
        asyncio.get_running_loop().call_later(rest, self._rested)

    def _rested(self) -> None:
        self._rests += 1
        if self._rests <= _MORE_RESTS and self._waiting and self._others():
            asyncio.get_running_loop().call_later(_LEAST_REST_SECONDS, self._rested)
        else:
            self._next()

    def _others(self) -> int:
        """How many requests of other lanes than the next one are in flight, except streams."""
        lane = self._waiting.next_lane()
        own = self._in_flight(lane) - self._streams[lane]
        return self._in_flight(None) - self._streams.total() - own

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
        switch_fast(self, bool(self._streams) or self._taken > 0)
