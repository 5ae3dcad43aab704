"""Removes expired entries in the background, in small batches."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from tenantbase.background import running
from tenantbase.errors import Overloaded, StoreError
from tenantbase.outage import Outage

log = logging.getLogger("tenantbase.sweeper")

_INTERVAL_SECONDS: Final = 1.0
_BATCH_PAUSE_SECONDS: Final = 0.004  # between batches, so that writes of requests get a turn


class Sweepable(Protocol):
    """Holds entries that may expire."""

    async def sweep(self) -> bool:
        """Remove a batch of expired entries.

        Returns: whether there may be more.

        Raises:
            StoreError, Overloaded: nothing was removed.
        """


def sweeping(cache: Sweepable) -> AbstractAsyncContextManager[None]:
    """Sweep about once a second inside the block."""
    return running(lambda: _sweep(cache), "expiry sweeper")


async def _sweep(cache: Sweepable) -> None:
    outage = Outage(log, "expired entries are removed again")
    more = False
    while True:
        # Jitter keeps many processes on one database from sweeping in step.
        pause = _BATCH_PAUSE_SECONDS if more else _INTERVAL_SECONDS * random.uniform(0.5, 1.5)
        await asyncio.sleep(pause)
        try:
            more = await cache.sweep()
            outage.over()
        except (StoreError, Overloaded) as error:
            more = False
            outage.met("cannot remove expired entries: %s", error)
