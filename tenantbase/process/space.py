"""Watches the free space for the database, to warn before it is used up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

from tenantbase.background import keep_running
from tenantbase.errors import StoreError
from tenantbase.interfaces.store import StoreSize

_INTERVAL_SECONDS: Final = 5.0


class Sized(Protocol):
    """A database, which notes trouble with space when it is asked for its size."""

    async def size(self) -> StoreSize:
        """Its size. Raises StoreError."""


@asynccontextmanager
async def watching_space(database: Sized) -> AsyncIterator[None]:
    """Check the space now, and every few seconds inside the block."""
    task = keep_running(lambda: _watch(database), "watch of the space left")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _watch(database: Sized) -> None:
    while True:
        with suppress(StoreError):  # the health check and the log report it
            await database.size()
        await asyncio.sleep(_INTERVAL_SECONDS)
