"""Removes what has expired, in the background, a small batch at a time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

from tenantbase.background import keep_running
from tenantbase.errors import Overloaded, StoreError

log = logging.getLogger("tenantbase.sweeper")

_INTERVAL: Final = 1.0
_PAUSE: Final = 0.02  # between batches, so that the writes of requests get their turn


class Sweepable(Protocol):
    """What has expired entries."""

    async def sweep(self) -> bool:
        """Remove a batch of them; True when there may be more. Raises StoreError, Overloaded."""


@asynccontextmanager
async def sweeping(cache: Sweepable) -> AsyncIterator[None]:
    """Sweep about once a second inside the block."""
    task = keep_running(lambda: _sweep(cache), "expiry sweeper")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _sweep(cache: Sweepable) -> None:
    failing = False
    more = False
    while True:
        # Jitter keeps many processes on one database from sweeping in step.
        await asyncio.sleep(_PAUSE if more else _INTERVAL * random.uniform(0.5, 1.5))
        try:
            more = await cache.sweep()
            failing = False
        except (StoreError, Overloaded) as error:
            more = False
            if not failing:
                log.warning("cannot remove what has expired: %s", error)
            failing = True
