"""Looks at the space that the database has left, so that its troubles are said before it is gone."""

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
    """Notes its troubles when it is asked for its size."""

    async def size(self) -> StoreSize:
        """How large it is. Raises StoreError."""


@asynccontextmanager
async def watching_space(database: Sized) -> AsyncIterator[None]:
    """Look now, and every few seconds inside the block."""
    task = keep_running(lambda: _watch(database), "watch of the space left")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _watch(database: Sized) -> None:
    while True:
        with suppress(StoreError):  # the health check says so, and the log
            await database.size()
        await asyncio.sleep(_INTERVAL_SECONDS)
