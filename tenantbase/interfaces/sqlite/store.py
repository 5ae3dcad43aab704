"""SQLite behind the ``Store`` protocol, over aiosqlite.

One connection writes; others only read, some of them keys, the others lists. Each has a thread of its
own, and every request to it is one function that runs there from beginning to end. Reading is in
``queries.py``, applying commands in ``apply.py``, committing and its failures in ``commit.py``, opening
in ``opening.py``, and the tables in ``schema.py``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from time import monotonic_ns
from typing import Final, Self, TypeVar, TypeVarTuple

from msgspec.structs import replace

from tenantbase.access import Access
from tenantbase.background import ended
from tenantbase.entry import Entry
from tenantbase.errors import CannotOpen, StoreError, StoreUnavailable
from tenantbase.events import ChangeEvent
from tenantbase.figures import private_cells
from tenantbase.interfaces.sqlite import opening as sql_opening
from tenantbase.interfaces.sqlite import queries as sql_queries
from tenantbase.interfaces.sqlite.access import read_access
from tenantbase.interfaces.sqlite.commit import Committer, WriteLock
from tenantbase.interfaces.sqlite.connection import Connection
from tenantbase.interfaces.sqlite.driver_errors import unavailable
from tenantbase.interfaces.sqlite.prefix_counter import PrefixCounter
from tenantbase.interfaces.sqlite.readers import (
    LOW_PRIORITY_SHARE,
    NO_ANSWER,
    Readers,
    at_low_priority,
)
from tenantbase.interfaces.sqlite.recovery import WalMark
from tenantbase.interfaces.sqlite.remembered_pages import RememberedPages
from tenantbase.interfaces.sqlite.sizes import size_of, troubles_of
from tenantbase.interfaces.sqlite.sweep import needs_count
from tenantbase.interfaces.store import GroupResult, PendingWrite, Seqlock, StoreSize, Ticket
from tenantbase.lanes import LaneOf, one_lane
from tenantbase.listing import EntryMeta, Folded, KeyRange
from tenantbase.plain_entries import Render
from tenantbase.scope import ScopedKey
from tenantbase.troubles import Trouble, Troubles

log = logging.getLogger("tenantbase")

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

_CHECK_SECONDS: Final = 2.0
_CLOSED: Final = "the database is closed"


class SqliteStore:
    """The entries of one database file. Made with ``open``."""

    def __init__(
        self,
        writer: Connection,
        readers: Readers,
        listers: Readers,
        committer: Committer,
        counter: PrefixCounter,
        secret: bytes,
        troubles: Troubles,
        lane_of: LaneOf,
    ) -> None:
        self._writer = writer
        self._readers = readers
        self._listers = listers
        self._pages = RememberedPages()
        self._lane_of = lane_of
        self._troubles = troubles
        self._look_again: asyncio.TimerHandle | None = None
        self._committer = committer
        self._counter = counter
        self._secret = secret
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[object]] = set()
        self._closed = False
        self._failed = False  # no more writes are taken, and the log says so

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        lock: WriteLock,
        *,
        mark: WalMark | None = None,
        change_log_size: int = 65_536,
        readers: int = 2,
        busy_timeout: float = 5.0,
        read_timeout: float = 5.0,
        lane_of: LaneOf = one_lane,
        figures: memoryview | None = None,
    ) -> Self:
        """Open the database, creating or upgrading it as needed.

        Args:
            path: the file; its directory exists.
            lock: the write lock, shared by all processes on the database.
            mark: says whether the write-ahead log is safe; without it, the log is always made safe.
            change_log_size: how many changes the change log keeps.
            readers: how many connections read at the same time, besides one that reads lists.
            busy_timeout: seconds to wait for a foreign program's lock.
            read_timeout: seconds that a read may take.
            lane_of: gives the lane in which a listing waits, from its prefix.
            figures: the worker's cells (``figures.py``), for commits; None: private ones.

        Raises:
            CannotOpen: one line that names the file and says why.
        """
        opening = asyncio.ensure_future(
            cls._open(
                os.path.abspath(path),
                lock,
                mark,
                change_log_size,
                readers,
                busy_timeout,
                read_timeout,
                lane_of,
                private_cells() if figures is None else figures,
            )
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # Close whatever the threads have opened by then.
            await asyncio.wait([opening])
            if opening.exception() is None:
                await opening.result().close()
            raise

    @classmethod
    async def _open(
        cls,
        path: str,
        lock: WriteLock,
        mark: WalMark | None,
        change_log_size: int,
        readers: int,
        busy_timeout: float,
        read_timeout: float,
        lane_of: LaneOf,
        figures: memoryview,
    ) -> Self:
        open_reader = partial(sql_opening.open_reader, path, busy_timeout)
        counter = PrefixCounter(partial(at_low_priority, partial(open_reader, any_thread=True)))
        made: tuple[Committer, bytes] | None = None

        def connect() -> sqlite3.Connection:
            nonlocal made
            try:
                with lock():
                    opened = sql_opening.open_writer(path, busy_timeout, mark)
                    committer = Committer(
                        path, opened.identity, lock, change_log_size, counter.counts, figures
                    )
                    committer.keep_room(opened.connection)
            except OSError as error:
                raise CannotOpen(f"cannot lock {path}: {error.strerror}") from error
            made = committer, opened.secret
            return opened.connection

        writer = await Connection(connect).start()
        assert made is not None
        committer, secret = made
        troubles = Troubles(time.monotonic)

        def hanging(begins: bool) -> None:
            if begins:
                troubles.met(Trouble.READS_HANG, "SQLite does not return from a read")
            elif not any(pool.hang for pool in pools):
                troubles.over(Trouble.READS_HANG)

        open_lister = partial(at_low_priority, open_reader)
        pools = (
            Readers(open_reader, readers, read_timeout, hanging),
            Readers(open_lister, 1, read_timeout, hanging, LOW_PRIORITY_SHARE),
        )
        store = cls(writer, *pools, committer, counter, secret, troubles, lane_of)
        try:
            for pool in pools:
                await pool.start()
        except BaseException:
            await store.close()
            raise
        return store

    @property
    def secret(self) -> bytes:
        return self._secret

    @property
    def troubles(self) -> list[Trouble]:
        return self._troubles.lasting

    async def read(self, keys: Sequence[str], now: float) -> list[Entry | None | StoreError]:
        results = await self._read(sql_queries.read, keys, now)
        for result in results:
            if isinstance(result, StoreError):
                self._notice(result)
        return results

    async def scan(
        self,
        wanted: KeyRange,
        limit: int,
        max_bytes: int,
        now: float,
        render: Render | None = None,
    ) -> tuple[Sequence[Entry | Folded], bool]:
        lane = self._lane_of(wanted.prefix)
        return await self._list(lane, self._pages.scan, wanted, limit, max_bytes, now, render)

    async def scan_meta(
        self, wanted: KeyRange, limit: int, now: float
    ) -> tuple[list[EntryMeta | Folded], bool]:
        lane = self._lane_of(wanted.prefix)
        return await self._list(lane, sql_queries.scan_meta, wanted, limit, now)

    async def count(
        self, wanted: KeyRange, limit: int, now: float
    ) -> tuple[int, int, ScopedKey | None]:
        lane = self._lane_of(wanted.prefix)
        return await self._list(lane, sql_queries.count, wanted, limit, now)

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        return await self._read(sql_queries.changes, after, limit)

    async def last_version(self) -> int:
        return await self._read(sql_queries.last_version)

    async def access(self, known: int | None) -> Access | None:
        return await self._read(read_access, known)

    async def size(self) -> StoreSize:
        size = await self._read(size_of, self._committer.path)
        lasting = self._troubles.lasting
        for trouble, detail in troubles_of(size, self._committer.path, lasting).items():
            if detail is None:
                self._troubles.over(trouble)
            else:
                self._troubles.met(trouble, detail)
                if trouble is Trouble.LOG_GROWS and not self._closed:
                    # There may be no further write, whose checkpoint would end it.
                    self._start(self._checkpoint(anyway=True))
        return size

    async def check(self) -> None:
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                trouble = await self._answer(self._readers.probe(self._probe))
        except TimeoutError:
            raise StoreUnavailable(NO_ANSWER) from None
        if trouble is not None:
            raise StoreUnavailable(trouble)

    async def write(
        self, group: Sequence[PendingWrite], now: float, seqlock: Seqlock[Ticket]
    ) -> GroupResult[Ticket]:
        return await asyncio.shield(self._start(self._write(group, now, seqlock)))

    @asynccontextmanager
    async def counting(self, prefix: str, now: float) -> AsyncIterator[None]:
        try:
            large = await self._read(needs_count, prefix, now)
        except StoreError:
            large = False  # the deletion says what is wrong
        if not large:
            yield
            return
        async with self._counter.counting(prefix, now, self._lane_of(prefix)):
            yield

    async def close(self) -> None:
        await ended(self._start(self._close()))

    def _probe(self, connection: sqlite3.Connection) -> str | None:
        sql_queries.last_version(connection)
        return self._committer.trouble()

    async def _read(
        self, function: Callable[[sqlite3.Connection, *Arguments], Result], *args: *Arguments
    ) -> Result:
        return await self._answer(self._readers.call(lambda opened: function(opened, *args)))

    async def _list(
        self,
        lane: str,
        function: Callable[[sqlite3.Connection, *Arguments], Result],
        *args: *Arguments,
    ) -> Result:
        return await self._answer(self._listers.call(lambda opened: function(opened, *args), lane))

    async def _answer(self, call: Coroutine[None, None, Result]) -> Result:
        """Await a call of a reading connection. Raises StoreError, and notes its trouble."""
        if self._closed:
            call.close()
            raise StoreUnavailable(_CLOSED)
        try:
            return await call
        except sqlite3.Error as error:
            failure = unavailable(error, "the database cannot be read")
            self._notice(failure)
            raise failure from error

    def _notice(self, error: BaseException) -> None:
        """Note the trouble behind an error, and schedule the check for its end."""
        trouble = error.trouble if isinstance(error, StoreError) else None
        if trouble is None:
            return
        self._troubles.met(trouble, str(error))
        if self._look_again is None:
            self._schedule_look()

    def _schedule_look(self) -> None:
        seconds = self._troubles.next_look()
        if seconds is None:
            self._look_again = None
        else:
            loop = asyncio.get_running_loop()
            self._look_again = loop.call_later(seconds, self._look_at_troubles)

    def _look_at_troubles(self) -> None:
        self._troubles.lasting  # noqa: B018  logs the troubles that are over
        self._schedule_look()

    def _start(self, work: Coroutine[None, None, Result]) -> asyncio.Task[Result]:
        """Run a coroutine to its end, even if its caller is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _write(
        self, group: Sequence[PendingWrite], now: float, seqlock: Seqlock[Ticket]
    ) -> GroupResult[Ticket]:
        began = monotonic_ns() if self._writing.locked() else 0  # a checkpoint is being made
        async with self._writing:
            waited = monotonic_ns() - began if began else 0
            if self._closed:
                return GroupResult([StoreUnavailable(_CLOSED) for _ in group], None)
            written = await self._writer.run(
                lambda connection: self._committer.commit(connection, group, now, seqlock)
            )
        for outcome in written.outcomes:
            if isinstance(outcome, StoreError):
                self._notice(outcome)
        if self._committer.failure is not None and not self._failed:
            self._failed = True
            log.critical("%s; the service must be started again", self._committer.failure)
        if self._committer.wants_checkpoint:
            # After the answer, because it takes some fsyncs. The next write waits for it.
            self._start(self._checkpoint())
        return replace(written, waited=waited) if waited else written

    async def _checkpoint(self, *, anyway: bool = False) -> None:
        async with self._writing:
            if not self._closed and (anyway or self._committer.wants_checkpoint):
                await self._writer.run(partial(self._committer.checkpoint, wait=anyway))

    async def _close(self) -> None:
        # A counting connection would keep the write-ahead log from being removed.
        async with self._counter.none(), self._writing:
            if self._closed:
                return
            self._closed = True
            if self._look_again is not None:
                self._look_again.cancel()
            async with AsyncExitStack() as stack:  # closes in reverse order
                safe = await self._writer.run(partial(self._committer.checkpoint, wait=True))
                if safe:
                    stack.push_async_callback(self._writer.close)
                    stack.push_async_callback(self._writer.run, self._committer.close)
                stack.push_async_callback(self._readers.close)
                stack.push_async_callback(self._listers.close)
                if not safe:
                    # The last connection to close makes a checkpoint and removes the write-ahead
                    # log. Close the writer while readers are open: they cannot do either.
                    stack.push_async_callback(self._writer.close)
        others = self._tasks - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)
