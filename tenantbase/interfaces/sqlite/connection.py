"""A connection to SQLite in its own thread. The only importer of aiosqlite."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Self, TypeVar, TypeVarTuple

import aiosqlite

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class Connection(aiosqlite.Connection):
    """A connection with its thread, which cannot keep the process from ending.

    It uses private attributes of aiosqlite; a test notices when one changes. ``_thread``: to wait
    for its end, or to leave it. ``_execute`` and ``_conn``: to run a whole function in it. ``_tx``
    and ``_connection``: to queue work for a thread that may never respond.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connect, iter_chunk_size=1)
        # A thread that hangs in a system call cannot be interrupted, and at exit the interpreter
        # would wait for it. Connections that respond are closed before that.
        self._thread.daemon = True

    async def start(self) -> Self:
        """Start the thread and connect there."""
        try:
            await self
        except BaseException:
            # aiosqlite tells its thread to stop but does not wait for it. If the event loop were
            # closed meanwhile, the thread would fail noisily.
            await asyncio.to_thread(self._thread.join)
            raise
        return self

    async def run(
        self, function: Callable[[sqlite3.Connection, *Arguments], Result], *args: *Arguments
    ) -> Result:
        """Run a whole function in the thread.

        aiosqlite's own methods make a round trip per statement, about 60 µs each, and a caller
        cancelled between two of them would leave half a transaction to the next one.
        """
        result: Result = await self._execute(  # type: ignore[no-untyped-call]
            function, self._conn, *args
        )
        return result

    def post(self, function: Callable[[sqlite3.Connection], object]) -> None:
        """Run a function in the thread. It delivers its own result, and must not raise."""
        connection = self._conn
        self._tx.put_nowait((None, lambda: function(connection)))

    def interrupt_now(self) -> None:
        """Interrupt the current statement, in case SQLite itself is slow."""
        self._conn.interrupt()

    def leave_behind(self) -> None:
        """Abandon the connection to its hanging thread, which closes it if it ever returns."""
        if self._connection is not None:
            self._tx.put_nowait((None, self._connection.close))
            self._connection = None
