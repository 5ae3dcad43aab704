"""The reading connections. One that hangs is set aside, and the others continue.

Calls wait in one queue, by lane (``lanes.py``), and free threads take them, so a call waits behind a
hanging one only while every thread hangs. A thread in a system call that does not return cannot be
stopped: it is replaced, up to a bound, and joins again when it returns.

Threads that read much at once have a lower priority than others, on Linux. Otherwise the scheduler lets
them run on for some milliseconds after the event loop has become ready, if both are on one processor.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Generic, TypeVar

from tenantbase.errors import StoreError, StoreUnavailable
from tenantbase.interfaces.sqlite.connection import Connection
from tenantbase.lanes import Lanes
from tenantbase.shared_timer import SharedTimer

Result = TypeVar("Result")

MOST_READERS: Final = 6  # the most threads, including hanging ones
_REPLACE_SECONDS: Final = 0.25  # a call that takes longer has its thread replaced
_HANG_SECONDS: Final = 1.0  # ... and one that takes this long is reported
_PROBES: Final = 3  # connections that a probe asks, one after the other
_LAST_WAIT_SECONDS: Final = 1.0  # wait for hanging threads when the store is closed

_LOWER: Final = 10  # added to the nice value of the thread
LOW_PRIORITY_SHARE: Final = 0.1
"""Which share of a processor a thread with a low priority gets while others want all of it."""

NO_ANSWER: Final = "the database did not answer in time"


def at_low_priority(connect: Callable[[], sqlite3.Connection]) -> sqlite3.Connection:
    """Open a connection, and let other threads go before this one from now on."""
    connection = connect()
    if sys.platform == "linux":  # elsewhere, it would be the priority of the whole process
        os.nice(_LOWER)
    return connection


class _Call(Generic[Result]):
    """A function to run on any of the connections, and the future of its result."""

    __slots__ = ("function", "future")

    def __init__(
        self, function: Callable[[sqlite3.Connection], Result], future: asyncio.Future[Result]
    ) -> None:
        self.function = function
        self.future = future

    def deliver(self, result: Result | None, error: BaseException | None) -> None:
        if self.future.done():
            return  # its caller gave up
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)  # type: ignore[arg-type]


class _Reader:
    """A connection, and what its thread is doing.

    Attributes:
        call, since: what the thread is running, and since when; both are set by the thread.
        aside: its call is slow or hangs, and it takes no calls until that returns.
        hangs: its call has taken so long that other calls do not wait for it.
    """

    __slots__ = ("connection", "call", "since", "aside", "hangs")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.call: _Call[Any] | None = None
        self.since = 0.0
        self.aside = False
        self.hangs = False


class Readers:
    """Runs functions on reading connections. Belongs to one event loop.

    Args:
        connect: opens a connection; called in its thread.
        count: how many connections read at the same time.
        timeout: seconds that a call may take, including its time in the queue.
        hanging: called with True when the first thread hangs, with False when all have returned.
        share: the least share of a processor that a thread gets while others want it, too. With less,
            calls take longer before they count as slow or hanging.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        count: int,
        timeout: float,
        hanging: Callable[[bool], None],
        share: float = 1.0,
    ) -> None:
        self._connect = connect
        self._count = count
        self._hang_seconds = min(_HANG_SECONDS / share, timeout / 2)
        self._replace_seconds = min(_REPLACE_SECONDS / share, timeout / 4)
        self._hanging = hanging
        self._timeouts: SharedTimer[_Call[Any]] = SharedTimer(timeout, self._expired)
        self._calls = Lanes[_Call[Any]]()
        self._calls_lock = threading.Lock()
        self._readers: set[_Reader] = set()
        self._idle: list[_Reader] = []
        self._opening = 0
        self._openings: set[asyncio.Task[None]] = set()
        self._closings: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._returned = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._closed = False

    @property
    def connections(self) -> list[Connection]:
        """The open connections."""
        return [reader.connection for reader in self._readers]

    @property
    def hang(self) -> bool:
        """Whether any thread hangs."""
        return any(reader.hangs for reader in self._readers)

    async def start(self) -> None:
        """Open the connections. Raises CannotOpen."""
        for _ in range(self._count):
            await self._open()

    async def call(
        self, function: Callable[[sqlite3.Connection], Result], lane: str = ""
    ) -> Result:
        """Run a function on a connection, in its thread.

        Args:
            lane: where it waits.

        Raises:
            StoreUnavailable: it did not end in time, or every connection hangs.
        """
        if not self._opening and all(reader.hangs for reader in self._readers):
            self._replace()
            if not self._opening:
                raise StoreUnavailable(NO_ANSWER)
        future: asyncio.Future[Result] = self._loop.create_future()
        call = _Call(function, future)
        self._timeouts.watch(call.future, call)
        with self._calls_lock:
            self._calls.append(lane, call)
        self._wake()
        return await future

    async def probe(self, function: Callable[[sqlite3.Connection], Result]) -> Result:
        """As `call`, for a function that takes no time.

        If a connection does not answer soon, another is asked, too. Once that one has answered,
        the first counts as hanging.

        Raises:
            StoreUnavailable: none of three connections answered in time, or every one hangs.
        """
        calls: list[asyncio.Task[Result]] = []
        try:
            while True:
                calls.append(self._loop.create_task(self.call(function)))
                patience = self._hang_seconds / 2 if len(calls) < _PROBES else None
                done, _ = await asyncio.wait(
                    calls, timeout=patience, return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    result = done.pop().result()
                    self._note_silent(function)
                    return result
        finally:
            for call in calls:
                call.cancel()

    def _note_silent(self, function: Callable[[sqlite3.Connection], object]) -> None:
        """Note that connections hang which still run a function that another has returned from."""
        for reader in self._busy():
            call = reader.call
            if call is not None and call.function is function:
                self._set_aside(reader)
                self._note_hanging(reader)

    def _set_aside(self, reader: _Reader) -> None:
        if not reader.aside:
            reader.aside = True
            self._returned.set()

    def _note_hanging(self, reader: _Reader) -> None:
        reader.hangs = True
        self._hanging(True)

    async def close(self) -> None:
        """Wait for running calls, within their timeout, and close the connections that respond."""
        self._closed = True
        while any(not reader.aside for reader in self._busy()):
            self._returned.clear()
            await self._returned.wait()
        for reader in self._busy():
            reader.connection.interrupt_now()
        try:
            async with asyncio.timeout(_LAST_WAIT_SECONDS):
                while self._busy() or self._opening:
                    self._returned.clear()
                    await self._returned.wait()
        except TimeoutError:
            for reader in self._busy():
                reader.connection.leave_behind()
                self._readers.discard(reader)
        if self._timer is not None:
            self._timer.cancel()
        for reader in self._readers:
            await reader.connection.close()
        for task in self._openings:
            task.cancel()
        await asyncio.gather(*self._closings)

    def _busy(self) -> set[_Reader]:
        return self._readers.difference(self._idle)

    def _wake(self) -> None:
        """Have an idle thread look at the queue; a busy one does so anyway."""
        if not self._idle:
            return
        reader = self._idle.pop()
        reader.connection.post(partial(self._work, reader))
        if self._timer is None:
            self._timer = self._loop.call_later(self._replace_seconds / 2, self._look)

    def _work(self, reader: _Reader, connection: sqlite3.Connection) -> None:
        """Run calls until none is left. Runs in the reader's thread."""
        while not reader.aside:
            with self._calls_lock:
                if not self._calls:
                    break
                call = self._calls.take()
            if call.future.done():
                continue  # its caller gave up
            result = error = None
            reader.since, reader.call = time.monotonic(), call
            try:
                result = call.function(connection)
            except Exception as caught:  # the caller gets it
                error = caught
            reader.call = None
            if not self._tell(call.deliver, result, error):
                return
        self._tell(self._return, reader)

    def _tell(self, function: Callable[..., None], *args: Any) -> bool:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return False  # it was abandoned, and the event loop is closed
        return True

    def _return(self, reader: _Reader) -> None:
        """A thread has emptied the queue, or returned from where it hung."""
        if reader not in self._readers:
            return  # abandoned
        was_aside, reader.aside, reader.hangs = reader.aside, False, False
        self._idle.append(reader)
        self._returned.set()
        if was_aside:
            if not self.hang:
                self._hanging(False)
            if len(self._readers) > self._count and not self._closed:
                self._idle.remove(reader)
                self._readers.discard(reader)
                self._start(reader.connection.close(), self._closings)
                return
        if self._calls:
            self._wake()

    def _look(self) -> None:
        """Set hanging connections aside."""
        self._timer = None
        now = time.monotonic()
        for reader in self._busy():
            if reader.call is None:
                continue
            lasted = now - reader.since
            if lasted > self._replace_seconds:
                self._set_aside(reader)
            if lasted > self._hang_seconds:
                self._note_hanging(reader)
        self._replace()
        if self._busy():
            self._timer = self._loop.call_later(self._replace_seconds / 2, self._look)

    def _replace(self) -> None:
        free = sum(not reader.aside for reader in self._readers) + self._opening
        while (
            not self._closed
            and free < self._count
            and len(self._readers) + self._opening < MOST_READERS
        ):
            free += 1
            self._opening += 1
            self._start(self._open_another(), self._openings)

    async def _open_another(self) -> None:
        try:
            await self._open()
        except StoreError:
            pass  # the next look tries again, while calls are running
        finally:
            self._opening -= 1
            self._returned.set()

    async def _open(self) -> None:
        reader = _Reader(await Connection(self._connect).start())
        self._readers.add(reader)
        self._idle.append(reader)
        if self._calls:
            self._wake()

    def _start(self, work: Coroutine[Any, Any, None], running: set[asyncio.Task[None]]) -> None:
        task = self._loop.create_task(work)
        running.add(task)
        task.add_done_callback(running.discard)

    def _expired(self, call: _Call[Any], future: asyncio.Future[Any]) -> None:
        future.set_exception(StoreUnavailable(NO_ANSWER))
        for reader in self._readers:
            # Interrupt only a reader that is set aside: otherwise this could hit its next call.
            if reader.call is call and reader.aside:
                reader.connection.interrupt_now()
