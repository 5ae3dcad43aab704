"""Watches the free space for the database, to warn before it is used up."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final, Protocol

from tenantbase.background import running
from tenantbase.errors import StoreError
from tenantbase.interfaces.store import StoreSize

_INTERVAL_SECONDS: Final = 5.0


class Sized(Protocol):
    """A database, which notes trouble with space when it is asked for its size."""

    async def size(self) -> StoreSize:
        """Its size. Raises StoreError."""


def watching_space(database: Sized) -> AbstractAsyncContextManager[None]:
    """Check the space now, and every few seconds inside the block."""
    return running(lambda: _watch(database), "watch of the space left")


async def _watch(database: Sized) -> None:
    while True:
        with suppress(StoreError):  # the health check and the log report it
            await database.size()
        await asyncio.sleep(_INTERVAL_SECONDS)
