"""Graceful shutdown: whether the server is draining, and which requests are still in flight."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager

from tenantbase.web.problems import OverLimit
from tenantbase.web.transport.connections import Connections
from tenantbase.web.transport.tenant_use import Tenants, TenantUse, leaves_enough


class Lifecycle:
    """Counts requests, and knows when the last one has ended.

    Attributes:
        draining: the server is shutting down. It still answers requests, with
            ``Connection: close``, and its health is 503.
        active: all requests that have begun and not ended.
        idling: those of them that only wait, as watchers do.
        begun: requests so far.
        limit: the most requests that may be active.
        connections: the open connections.
        tenants: whether several of them use the server.
    """

    def __init__(self) -> None:
        self.draining = False
        self.active = 0
        self.idling = 0
        self.begun = 0
        self.limit: float = math.inf
        self.connections = Connections()
        self._unfinished = 0  # while draining: what ``in_flight`` returns
        self.tenants = Tenants()
        self._draining = asyncio.Event()
        self._finished = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """Requests that began before the draining and have not ended."""
        return self._unfinished if self.draining else self.active

    def begin(self) -> bool:
        """Count a request that begins. Pass the result to ``end``."""
        self.active += 1
        self.begun += 1
        return not self.draining

    def end(self, counted: bool) -> None:
        """Count a request that has ended."""
        self.active -= 1
        if self.draining and counted:
            self._unfinished -= 1
            if not self._unfinished:
                self._finished.set()

    def has_place(self, use: TenantUse, begun: int) -> bool:
        """Whether a tenant may have one more request in flight.

        Args:
            begun: 1 if ``active`` already counts that request, otherwise 0.
        """
        return leaves_enough(use.requests, 1, self.limit - self.active - 1 + begun)

    @contextmanager
    def idle(self, use: TenantUse | None) -> Iterator[None]:
        """Mark an active request as only waiting inside the block, so that it takes up no place.

        Args:
            use: of its tenant.
        """
        self.limit += 1
        self.idling += 1
        if use is not None:
            use.requests -= 1
        try:
            yield
        finally:
            self.limit -= 1
            self.idling -= 1
            if use is not None:
                use.requests += 1

    def overloaded(self) -> OverLimit:
        """The error of a request beyond the limit."""
        return OverLimit("there are too many requests in flight; try again later", "max-requests")

    def drain(self) -> None:
        """Start the shutdown."""
        if self.draining:
            return
        self.draining = True
        self._unfinished = self.active
        self._draining.set()
        if not self._unfinished:
            self._finished.set()

    async def until_draining(self) -> None:
        """Wait until the shutdown starts. For answers that would never end by themselves."""
        await self._draining.wait()

    async def until_finished(self) -> None:
        """Wait until every request that began before the shutdown has ended."""
        await self._finished.wait()
