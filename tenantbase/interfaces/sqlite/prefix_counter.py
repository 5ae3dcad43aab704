"""Counts large prefixes beside all other work, one at a time, on connections of their own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final

from tenantbase.errors import CannotOpen
from tenantbase.fair_lock import FairLock
from tenantbase.interfaces.sqlite.connection import Connection
from tenantbase.interfaces.sqlite.prefix_counts import PrefixCount

_END_SECONDS: Final = 1.0  # how long the end of a count is waited for


class PrefixCounter:
    """Belongs to one event loop.

    Args:
        connect: opens a connection that any thread may use; called in a thread of its own.

    Attributes:
        counts: those that a deletion may use now, by scoped prefix.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self.counts: Final[dict[str, PrefixCount]] = {}
        self._connect = connect
        self._turn = FairLock()
        self._ending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def counting(self, prefix: str, now: float, lane: str) -> AsyncIterator[None]:
        """Count what is under a prefix, for the block. Without a count, if that fails: the deletion says
        what is wrong.

        Args:
            lane: where to wait.
        """
        async with self._turn.held(lane), AsyncExitStack() as stack:
            try:
                connection = await Connection(self._connect).start()
                stack.push_async_callback(self._end_soon, connection, prefix)
                self.counts[prefix] = await connection.run(PrefixCount, prefix, now)
            except (sqlite3.Error, CannotOpen):
                pass
            yield

    def none(self) -> AbstractAsyncContextManager[None]:
        """A block in which nothing is counted. Waits for the end of counts."""
        return self._turn.held("")

    async def _end_soon(self, connection: Connection, prefix: str) -> None:
        """Close a connection, but wait only shortly: its thread may hang."""
        count = self.counts.pop(prefix, None)
        if count is None:
            connection.interrupt_now()
        ending = asyncio.get_running_loop().create_task(_end(connection, count))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        await asyncio.wait([ending], timeout=_END_SECONDS)


async def _end(connection: Connection, count: PrefixCount | None) -> None:
    if count is not None:
        await connection.run(lambda _: count.end())
    await connection.close()
