"""One timeout for many futures, with a single timer.

``asyncio.timeout`` makes a timer and a context for each future. That takes longer than everything
else that the event loop does for a write. (The timeouts themselves are options, in
``process/config.py``.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

Item = TypeVar("Item")


_LOOK_SECONDS: Final = 1.0  # how often finished futures are let go


class Deadlines(Generic[Item]):
    """Gives futures of one event loop, which mostly finish in the order given, the same timeout.

    Args:
        seconds: the timeout.
        expired: called with an item and its future if the future is not done in time.
    """

    def __init__(
        self, seconds: float, expired: Callable[[Item, asyncio.Future[Any]], None]
    ) -> None:
        self._seconds = seconds
        self._expired = expired
        self._watched: deque[tuple[float, Item, asyncio.Future[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, future: asyncio.Future[Any], item: Item) -> None:
        """Start the timeout of a future. The item goes to ``expired``."""
        watched = self._watched
        while watched and watched[0][2].done():
            watched.popleft()
        loop = future.get_loop()
        watched.append((loop.time() + self._seconds, item, future))
        if self._timer is None:
            self._timer = loop.call_later(min(self._seconds, _LOOK_SECONDS), self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        watched = self._watched
        while watched and (watched[0][2].done() or watched[0][0] <= now):
            _, item, future = watched.popleft()
            if not future.done():
                self._expired(item, future)
        if watched:
            self._timer = loop.call_at(min(watched[0][0], now + _LOOK_SECONDS), self._look, loop)
