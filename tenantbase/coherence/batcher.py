"""Many concurrent callers, one batch.

Calls made in the same turn of the event loop are handed on together. A call that finds nobody
else waits for nobody: the batch is sent at the end of the turn, whatever its size. While
``parallel`` batches are under way, later calls gather for the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from functools import partial
from typing import Final, Generic, Literal, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Receiver = Callable[[Result | Exception], None]


class Queue(Protocol[Item, Result]):
    """Items that wait, and which of them make the next batch."""

    def __len__(self) -> int: ...

    def append(self, waiting: tuple[Item, Receiver[Result]], /) -> None:
        """Add an item with its receiver."""

    def take(self) -> list[tuple[Item, Receiver[Result]]]:
        """Remove and return the next batch. Called when something waits."""


class Line(list[tuple[Item, Receiver[Result]]], Generic[Item, Result]):
    """Batches in the order of arrival, of a bounded weight."""

    def __init__(self, limit: int, weight: Callable[[Item], int] | None = None) -> None:
        super().__init__()
        self._limit = limit
        self._weight = weight

    def take(self) -> list[tuple[Item, Receiver[Result]]]:
        """Remove and return the next batch."""
        size = self._size()
        batch = self[:size]
        del self[:size]
        return batch

    def _size(self) -> int:
        if self._weight is None:
            return self._limit
        total = 0
        for size, (item, _) in enumerate(self):
            total += self._weight(item)
            if total > self._limit:
                return max(size, 1)
        return len(self)


class _Mark(Enum):
    LATER = 0


Later = Literal[_Mark.LATER]
LATER: Final = _Mark.LATER


class Unfinished(Generic[Result]):
    """What the first step of a batch gives when a second, slow one is needed.

    Args:
        ready: a result for each item, LATER for those that need the second step. The others
            are delivered at once, and the next batch may begin.
        finish: the second step; the results of those that are LATER, in order.
    """

    __slots__ = ("ready", "finish")

    def __init__(
        self,
        ready: Sequence[Result | Exception | Later],
        finish: Callable[[], Awaitable[Sequence[Result | Exception]]],
    ) -> None:
        self.ready = ready
        self.finish = finish


class Batcher(Generic[Item, Result]):
    """Turns calls into batches. It belongs to the event loop that first uses it.

    Args:
        run: takes a batch and returns one result for each item, in order. A result that is an
            exception is raised to that item's caller alone; an exception raised by ``run``
            goes to all of them. It runs in a task of its own, which no caller can cancel. It may
            return ``Unfinished``; second steps are not counted and must end by themselves.
        limit: what the items of a batch weigh at most; a heavier one is a batch of its own.
        parallel: batches under way at most.
        finishing: batches in their second step at most; further ones keep their place among
            ``parallel`` until they have ended. None: no bound.
        weight: what an item weighs; None: 1 each.
        queue: decides instead of ``limit`` and ``weight`` which items make a batch.
    """

    def __init__(
        self,
        run: Callable[
            [Sequence[Item]], Awaitable[Sequence[Result | Exception] | Unfinished[Result]]
        ],
        *,
        limit: int = 0,
        parallel: int,
        finishing: int | None = None,
        weight: Callable[[Item], int] | None = None,
        queue: Queue[Item, Result] | None = None,
    ) -> None:
        self._run = run
        self._waiting = Line[Item, Result](limit, weight) if queue is None else queue
        self._parallel = parallel
        self._max_finishing = finishing
        self._tasks: set[asyncio.Task[None]] = set()
        self._finishing: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, item: Item) -> asyncio.Future[Result]:
        """Add an item to the next batch; the future gets its result.

        Cancelling the future gives up the result and stops nothing.
        """
        future: asyncio.Future[Result] = self._running_loop().create_future()
        self.submit_then(item, partial(_resolve, future))
        return future

    def submit_then(self, item: Item, receive: Receiver[Result]) -> None:
        """Add an item to the next batch; ``receive`` is called with its result or exception.

        For callers that are many: a future and its callback cost as much as the rest. If
        ``receive`` raises, the event loop's exception handler is told.
        """
        self._waiting.append((item, receive))
        if not self._scheduled and len(self._tasks) < self._parallel:
            self._scheduled = True
            self._running_loop().call_soon(self._send)

    @property
    def waiting(self) -> int:
        """Items that are in no batch yet."""
        return len(self._waiting)

    async def drained(self) -> None:
        """Wait until everything submitted so far, or meanwhile, has its result."""
        while self._waiting or self._tasks or self._finishing:
            tasks = self._tasks | self._finishing
            await asyncio.wait(tasks) if tasks else await asyncio.sleep(0)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            # Asked for once: until Python 3.12 each time costs a system call.
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _send(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._tasks) < self._parallel:
            task = self._running_loop().create_task(self._settle(self._waiting.take()))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._finishing.discard(task)
        self._send()

    async def _settle(self, batch: list[tuple[Item, Receiver[Result]]]) -> None:
        results: Sequence[Result | Exception]
        try:
            answer = await self._run([item for item, _ in batch])
            if isinstance(answer, Unfinished):
                ready = list(zip(batch, answer.ready, strict=True))
                batch = [waiting for waiting, result in ready if result is LATER]
                for (_, receive), result in ready:
                    if result is not LATER:
                        self._deliver(receive, result)
                self._let_next_begin()
                answer = await answer.finish()
            results = answer
        except Exception as error:  # the boundary: it belongs to the callers, all of them
            results = [error] * len(batch)
        for (_, receive), result in zip(batch, results, strict=True):
            self._deliver(receive, result)

    def _let_next_begin(self) -> None:
        if self._max_finishing is not None and len(self._finishing) >= self._max_finishing:
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.discard(task)
        self._finishing.add(task)
        self._send()

    def _deliver(self, receive: Receiver[Result], result: Result | Exception) -> None:
        try:
            receive(result)
        except Exception as error:  # one caller's mistake must not keep the others waiting
            self._running_loop().call_exception_handler(
                {"message": "a batch's result was not received", "exception": error}
            )


def _resolve(future: asyncio.Future[Result], result: Result | Exception) -> None:
    if future.done():
        return  # its caller has given up
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
