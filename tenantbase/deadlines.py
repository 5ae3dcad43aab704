"""The same time limit for many futures, with one timer for all of them.

``asyncio.timeout`` makes a timer and a context for each, which takes longer than the rest of what
the event loop does for a write.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

Item = TypeVar("Item")


_LOOK_SECONDS: Final = 1.0  # what is done is not kept for longer


class Deadlines(Generic[Item]):
    """Looks after futures of one event loop that are mostly done in the order they were given.

    Args:
        seconds: that each may take.
        expired: called with what was given for a future that is not done by then, and the future.
    """

    def __init__(
        self, seconds: float, expired: Callable[[Item, asyncio.Future[Any]], None]
    ) -> None:
        self._seconds = seconds
        self._expired = expired
        self._watched: deque[tuple[float, Item, asyncio.Future[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, future: asyncio.Future[Any], item: Item) -> None:
        """Give the future its time, from now on."""
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
