"""One timer for many results that have the same timeout.

``asyncio.timeout`` makes a timer and a context for each result. That takes longer than everything
else that the event loop does for a write. How long each timeout is, is an option in
``process/config.py``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

Item = TypeVar("Item")

_LOOK_SECONDS: Final = 1.0  # how often finished results are let go


class Pending(Protocol):
    """A future, or another result that is yet to come."""

    def done(self) -> bool:
        """Whether it has come."""


class SharedTimer(Generic[Item]):
    """Gives results the same timeout. They belong to one event loop, and mostly come in order.

    Args:
        seconds: the timeout.
        expired: called with an item and its result if the result is not done in time.
    """

    def __init__(self, seconds: float, expired: Callable[[Item, Any], None]) -> None:
        self._seconds = seconds
        self._expired = expired
        self._watched: deque[tuple[float, Item, Pending]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, result: Pending, item: Item) -> None:
        """Start the timeout of a result. The item goes to ``expired``."""
        watched = self._watched
        while watched and watched[0][2].done():
            watched.popleft()
        loop = self._loop
        if loop is None:
            # Looked up once: before Python 3.12, every look-up is a system call.
            loop = self._loop = asyncio.get_running_loop()
        watched.append((loop.time() + self._seconds, item, result))
        if self._timer is None:
            self._timer = loop.call_later(min(self._seconds, _LOOK_SECONDS), self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        watched = self._watched
        while watched and (watched[0][2].done() or watched[0][0] <= now):
            _, item, result = watched.popleft()
            if not result.done():
                self._expired(item, result)
        if watched:
            self._timer = loop.call_at(min(watched[0][0], now + _LOOK_SECONDS), self._look, loop)
