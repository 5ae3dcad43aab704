"""Whether the server is on its way out, and what it still has to finish."""

from __future__ import annotations

import asyncio

from tenantbase.web.transport.connections import Connections


class Lifecycle:
    """From the first request to the last.

    Attributes:
        draining: the server is about to stop. Requests are still answered, with
            ``Connection: close``; its health is 503.
        in_flight: requests that began before that and have not ended.
        active: all requests that have begun and not ended.
        begun: how many have begun so far.
        connections: those that are open.
    """

    def __init__(self) -> None:
        self.draining = False
        self.in_flight = 0
        self.active = 0
        self.begun = 0
        self.connections = Connections()
        self._draining = asyncio.Event()
        self._finished = asyncio.Event()

    def begin(self) -> bool:
        """A request has begun. Returns what ``end`` must be given."""
        self.active += 1
        self.begun += 1
        if self.draining:
            return False
        self.in_flight += 1
        return True

    def end(self, counted: bool) -> None:
        """A request has ended."""
        self.active -= 1
        if counted:
            self.in_flight -= 1
            if self.draining and not self.in_flight:
                self._finished.set()

    def drain(self) -> None:
        """Begin to stop."""
        self.draining = True
        self._draining.set()
        if not self.in_flight:
            self._finished.set()

    async def until_draining(self) -> None:
        """Wait until the server begins to stop: for answers that would never end by themselves."""
        await self._draining.wait()

    async def until_finished(self) -> None:
        """Wait until every request that began before the draining has ended."""
        await self._finished.wait()
