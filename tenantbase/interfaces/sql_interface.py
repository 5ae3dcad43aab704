"""SQLite behind the ``Store`` protocol, over aiosqlite.

One connection writes; some only read. Each has a thread of its own, and whatever is asked of
it is one function that runs there from beginning to end. The statements themselves are in
``sql_queries.py`` and ``sql_changes.py``, the commit and its failures in ``sql_commit.py``,
opening and the schema in ``sql_schema.py``.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Concatenate, Final, ParamSpec, Self, TypeVar

import aiosqlite

from tenantbase.entry import Entry
from tenantbase.errors import CannotOpen, StoreUnavailable
from tenantbase.interfaces import sql_queries, sql_schema
from tenantbase.interfaces.sql_commit import Committer
from tenantbase.interfaces.store import ChangeEvent, Claim, Fence, Written

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
WriteLock = Callable[[], AbstractContextManager[object]]

_CHECK_SECONDS: Final = 2.0


class _Connection(aiosqlite.Connection):
    """A connection with its thread.

    Attributes:
        pending: calls that wait for their result.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connect, iter_chunk_size=1)
        self.pending = 0

    async def start(self) -> Self:
        """Start the thread and connect there."""
        try:
            await self
        except BaseException:
            # aiosqlite tells its thread to stop, and does not wait for it. If the event loop
            # were closed meanwhile, the thread would die of that, noisily.
            await asyncio.to_thread(self._thread.join)
            raise
        return self

    async def run(
        self,
        function: Callable[Concatenate[sqlite3.Connection, Parameters], Result],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """Run a whole function in the thread.

        aiosqlite's own methods make one trip for each statement, some 60 µs each, and a caller
        cancelled between two of them would leave half a transaction to whoever comes next.
        """
        self.pending += 1
        try:
            result: Result = await self._execute(  # type: ignore[no-untyped-call]
                function, self._conn, *args, **kwargs
            )
            return result
        finally:
            self.pending -= 1


class SqlStore:
    """The entries of one database file. Make it with ``open``; use it as a context manager."""

    def __init__(
        self,
        path: str,
        lock: WriteLock,
        writer: _Connection,
        readers: Sequence[_Connection],
        committer: Committer,
        secret: bytes,
    ) -> None:
        self._path = path
        self._lock = lock
        self._writer = writer
        self._readers = readers
        self._committer = committer
        self._secret = secret
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[object]] = set()
        self._closed = False

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        lock: WriteLock,
        *,
        change_log_size: int = 65_536,
        readers: int = 2,
        busy_timeout: float = 5.0,
    ) -> Self:
        """Open the database, making it or bringing it up to date as needed.

        Args:
            path: the file; its directory exists.
            lock: the write lock, shared by all processes on the database.
            change_log_size: changes that the log keeps.
            readers: connections that read at the same time.
            busy_timeout: seconds to wait for a foreign program's lock.

        Raises:
            CannotOpen: one line that names the file and says why.
        """
        opening = asyncio.ensure_future(
            cls._open(os.path.abspath(path), lock, change_log_size, readers, busy_timeout)
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # What the threads have opened by then must be closed by somebody.
            await asyncio.wait([opening])
            if opening.exception() is None:
                await opening.result().close()
            raise
