"""A lock whose waiters come in lanes (``lanes.py``): the lanes hold it in turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tenantbase.lanes import Lanes


class FairLock:
    """Held by one task at a time. Belongs to one event loop."""

    def __init__(self) -> None:
        self._held = False
        self._waiting = Lanes[asyncio.Future[None]]()

    @asynccontextmanager
    async def held(self, lane: str) -> AsyncIterator[None]:
        """Hold the lock inside the block.

        Args:
            lane: where to wait.
        """
        if self._held:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(lane, turn)
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # its turn had already come
                    self._pass_on()
                raise
        self._held = True
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        self._held = False
        while self._waiting:
            turn = self._waiting.take()
            if not turn.done():  # otherwise its task has been cancelled
                self._held = True
                turn.set_result(None)
                return
