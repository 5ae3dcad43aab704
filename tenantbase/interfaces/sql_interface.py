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
from contextlib import AsyncExitStack
from functools import partial
from typing import Final, Self, TypeVar, TypeVarTuple

import aiosqlite

from tenantbase.entry import Entry
from tenantbase.errors import CannotOpen, StoreUnavailable
from tenantbase.interfaces import sql_queries, sql_schema
from tenantbase.interfaces.sql_commit import Committer, WriteLock
from tenantbase.interfaces.sql_recovery import LogMark
from tenantbase.interfaces.store import ChangeEvent, Claim, Fence, Written

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

_CHECK_SECONDS: Final = 2.0
_CLOSED: Final = "the database is closed"


class _Connection(aiosqlite.Connection):
    """A connection with its thread.

    Private in aiosqlite and used here: `_thread`, to wait for its end, and `_execute` and `_conn`, to
    run a whole function there.

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
        self, function: Callable[[sqlite3.Connection, *Arguments], Result], *args: *Arguments
    ) -> Result:
        """Run a whole function in the thread.

        aiosqlite's own methods make one trip for each statement, some 60 µs each, and a caller
        cancelled between two of them would leave half a transaction to whoever comes next.
        """
        self.pending += 1
        try:
            result: Result = await self._execute(  # type: ignore[no-untyped-call]
                function, self._conn, *args
            )
            return result
        finally:
            self.pending -= 1


class SqlStore:
    """The entries of one database file. Made with ``open``."""

    def __init__(self, writer: _Connection, committer: Committer, secret: bytes) -> None:
        self._writer = writer
        self._readers: list[_Connection] = []
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
        mark: LogMark | None = None,
        change_log_size: int = 65_536,
        readers: int = 2,
        busy_timeout: float = 5.0,
    ) -> Self:
        """Open the database, making it or bringing it up to date as needed.

        Args:
            path: the file; its directory exists.
            lock: the write lock, shared by all processes on the database.
            mark: what is known of the database's log; without it the log is always made sure of.
            change_log_size: changes that the log keeps.
            readers: connections that read at the same time.
            busy_timeout: seconds to wait for a foreign program's lock.

        Raises:
            CannotOpen: one line that names the file and says why.
        """
        opening = asyncio.ensure_future(
            cls._open(os.path.abspath(path), lock, mark, change_log_size, readers, busy_timeout)
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # What the threads have opened by then must be closed by somebody.
            await asyncio.wait([opening])
            if opening.exception() is None:
                await opening.result().close()
            raise

    @classmethod
    async def _open(
        cls,
        path: str,
        lock: WriteLock,
        mark: LogMark | None,
        change_log_size: int,
        readers: int,
        busy_timeout: float,
    ) -> Self:
        made: tuple[Committer, bytes] | None = None

        def connect() -> sqlite3.Connection:
            nonlocal made
            try:
                with lock():
                    opened = sql_schema.open_writer(path, busy_timeout, mark)
                    committer = Committer(path, opened.identity, lock, change_log_size)
                    committer.keep_room(opened.connection)
            except OSError as error:
                raise CannotOpen(f"cannot lock {path}: {error.strerror}") from error
            made = committer, opened.secret
            return opened.connection

        writer = await _Connection(connect).start()
        assert made is not None
        store = cls(writer, *made)
        try:
            for _ in range(readers):
                reader = _Connection(partial(sql_schema.open_reader, path, busy_timeout))
                store._readers.append(await reader.start())
        except BaseException:
            await store.close()
            raise
        return store

    @property
    def secret(self) -> bytes:
        return self._secret

    async def read(self, keys: Sequence[str], now: float) -> list[Entry | None]:
        return await self._read(sql_queries.read, keys, now)

    async def scan(
        self, prefix: str, after: str, limit: int, max_bytes: int, now: float
    ) -> tuple[list[Entry], bool]:
        return await self._read(sql_queries.scan, prefix, after, limit, max_bytes, now)

    async def scan_keys(
        self, prefix: str, after: str, limit: int, now: float
    ) -> tuple[list[Entry], bool]:
        return await self._read(sql_queries.scan, prefix, after, limit, None, now)

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        return await self._read(sql_queries.changes, after, limit)

    async def last_version(self) -> int:
        return await self._read(sql_queries.last_version)

    async def check(self) -> None:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                trouble = await self._read(self._probe)
        except TimeoutError:
            raise StoreUnavailable("the database does not answer") from None
        if trouble is not None:
            raise StoreUnavailable(trouble)

    async def write(self, group: Sequence[Claim], now: float, fence: Fence) -> Written:
        return await asyncio.shield(self._start(self._write(group, now, fence)))

    async def close(self) -> None:
        await asyncio.shield(self._start(self._close()))

    def _probe(self, connection: sqlite3.Connection) -> str | None:
        sql_queries.last_version(connection)
        return self._committer.trouble()

    async def _read(
        self, function: Callable[[sqlite3.Connection, *Arguments], Result], *args: *Arguments
    ) -> Result:
        if self._closed:
            raise StoreUnavailable(_CLOSED)
        reader = min(self._readers, key=lambda reader: reader.pending)
        try:
            return await reader.run(function, *args)
        except sqlite3.Error as error:
            text = f"the database cannot be read: {sql_schema.reason(error)}"
            raise StoreUnavailable(text) from error

    def _start(self, work: Coroutine[None, None, Result]) -> asyncio.Task[Result]:
        """Run something to its end, whatever becomes of who asked for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _write(self, group: Sequence[Claim], now: float, fence: Fence) -> Written:
        async with self._writing:
            if self._closed:
                return Written([StoreUnavailable(_CLOSED) for _ in group], None)
            written = await self._writer.run(self._committer.commit, group, now, fence)
        if self._committer.wants_checkpoint:
            # After the answer: it takes some fsyncs. The next write waits for its end.
            self._start(self._checkpoint())
        return written

    async def _checkpoint(self) -> None:
        async with self._writing:
            if not self._closed and self._committer.wants_checkpoint:
                await self._writer.run(self._committer.checkpoint)

    async def _close(self) -> None:
        async with self._writing:
            if self._closed:
                return
            self._closed = True
            async with AsyncExitStack() as stack:  # closes from the last one added to the first
                safe = await self._writer.run(self._committer.checkpoint)
                if safe:
                    stack.push_async_callback(self._writer.close)
                    stack.push_async_callback(self._writer.run, self._committer.close)
                for reader in self._readers:
                    stack.push_async_callback(reader.close)
                if not safe:
                    # Who closes a file last makes a checkpoint and removes the log. While a
                    # reader has it open the writer isn't last, and readers can't do it.
                    stack.push_async_callback(self._writer.close)
        others = self._tasks - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)
