"""Many concurrent callers, one batch.

Calls made in the same turn of the event loop are handed on together. A lone call is not delayed:
the batch is sent at the end of the turn, whatever its size. While ``parallel`` batches are in
flight, later calls gather for the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from enum import Enum
from typing import Final, Generic, Literal, Protocol, TypeVar

from tenantbase.lanes import Lanes
from tenantbase.waits import BATCH, DELIVERY, BatchResult, Timing

Item = TypeVar("Item")
Result = TypeVar("Result")
Receiver = Callable[[Result | Exception], None]


class Queue(Protocol[Item, Result]):
    """Holds waiting items, and chooses the next batch."""

    def __len__(self) -> int: ...

    def append(self, waiting: tuple[Item, Receiver[Result]], /) -> None:
        """Add an item with its receiver."""

    def take(self) -> list[tuple[Item, Receiver[Result]]]:
        """Remove and return the next batch. Called when an item waits."""


class Line(Generic[Item, Result]):
    """Items in order of arrival, taken in batches of a bounded weight.

    If more items wait than a batch may hold, each lane gets an equal share of it (``lanes.py``).

    Args:
        limit: the most that a batch may weigh; a heavier item is a batch of its own.
        weight: what an item weighs; None: 1 each.
        lane: the lane of an item; None: all are in the same one.
    """

    def __init__(
        self,
        limit: int,
        weight: Callable[[Item], int] | None = None,
        lane: Callable[[Item], str] | None = None,
    ) -> None:
        self._limit = limit
        self._weight = weight
        self._lane = lane
        # Usually everything fits into the next batch. Lanes are used only if it does not.
        self._arrived: list[tuple[Item, Receiver[Result]]] = []
        self._left = Lanes[tuple[Item, Receiver[Result]]]()
        self.append: Callable[[tuple[Item, Receiver[Result]]], None] = self._arrived.append

    def __len__(self) -> int:
        return len(self._arrived) + self._left.size

    def take(self) -> list[tuple[Item, Receiver[Result]]]:
        """Remove and return the next batch."""
        arrived, left = self._arrived, self._left
        if not left and self._fits():
            batch = arrived.copy()
            arrived.clear()
            return batch
        for waiting in arrived:
            left.append("" if self._lane is None else self._lane(waiting[0]), waiting)
        arrived.clear()
        batch = []
        total = 0
        while left:
            weight = 1 if self._weight is None else self._weight(left.next()[0])
            total += weight
            if batch and total > self._limit:
                break
            batch.append(left.take(weight))
        return batch

    def _fits(self) -> bool:
        if self._weight is None:
            return len(self._arrived) <= self._limit
        return sum(self._weight(item) for item, _ in self._arrived) <= self._limit


class _Mark(Enum):
    LATER = 0
    AGAIN = 1


Later = Literal[_Mark.LATER]
LATER: Final = _Mark.LATER

Again = Literal[_Mark.AGAIN]
AGAIN: Final = _Mark.AGAIN
"""In place of a result: the item goes into another batch, behind the waiting items."""


class Unfinished(Generic[Result]):
    """The result of a batch's first step, if some items need a slow second step.

    Args:
        ready: a result for each item, LATER for those that need the second step. The others are
            delivered at once, and the next batch may begin. None: all need the second step.
        finish: the second step; returns the results of the items marked LATER, in order.
    """

    __slots__ = ("ready", "finish")

    def __init__(
        self,
        ready: Sequence[Result | Exception | Later | Again] | None,
        finish: Callable[[], Awaitable[Sequence[Result | Exception | Again]]],
    ) -> None:
        self.ready = ready
        self.finish = finish


class Batcher(Generic[Item, Result]):
    """Turns calls into batches. Belongs to the event loop that first uses it.

    Args:
        run: takes a batch and returns one result for each item, in order. An exception among the
            results is raised to that item's caller alone; an exception that ``run`` raises goes
            to all of them. It runs in a task of its own, which no caller can cancel. It may
            return ``Unfinished``; the second step must end by itself.
        limit: the maximum weight of a batch; a heavier item is a batch of its own.
        parallel: how many batches may be in their first step.
        finishing: how many more may be in their second step; beyond it, a batch keeps its place
            among ``parallel`` until it has ended. None: no bound.
        weight: what an item weighs; None: 1 each.
        queue: chooses the items of a batch; replaces ``limit`` and ``weight``.
    """

    def __init__(
        self,
        run: Callable[
            [Sequence[Item]], Awaitable[Sequence[Result | Exception | Again] | Unfinished[Result]]
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
        result = BatchResult[Result](self._running_loop())
        self.submit_then(item, result.settle)
        return result

    def submit_then(self, item: Item, receive: Receiver[Result]) -> None:
        """Add an item to the next batch; ``receive`` is called with its result or exception.

        For hot paths, because a future and its callback cost as much as everything else here. If
        ``receive`` raises, the event loop's exception handler is called.
        """
        self._waiting.append((item, receive))
        if not self._scheduled and len(self._tasks) < self._parallel:
            self._scheduled = True
            self._running_loop().call_soon(self._send)

    @property
    def waiting(self) -> int:
        """The number of items not yet in a batch."""
        return len(self._waiting)

    async def drained(self) -> None:
        """Wait until every item has its result, those submitted meanwhile included."""
        while self._waiting or self._tasks or self._finishing:
            tasks = self._tasks | self._finishing
            await asyncio.wait(tasks) if tasks else await asyncio.sleep(0)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            # Looked up once: before Python 3.12, every look-up is a system call.
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _send(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._tasks) < self._parallel:
            # A context of its own, because the batch does not belong to its first caller alone.
            work = self._settle(self._waiting.take())
            task = self._running_loop().create_task(work, context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._finishing.discard(task)
        self._send()

    async def _settle(self, batch: list[tuple[Item, Receiver[Result]]]) -> None:
        results: Sequence[Result | Exception | Again]
        timing = Timing()
        BATCH.set(timing)
        try:
            answer = await self._run([item for item, _ in batch])
            if isinstance(answer, Unfinished):
                if answer.ready is not None:
                    self._deliver(batch, answer.ready, timing)
                    each = zip(batch, answer.ready, strict=True)
                    batch = [waiting for waiting, result in each if result is LATER]
                self._let_next_begin()
                answer = await answer.finish()
            results = answer
        except Exception as error:  # every caller of the batch gets it
            results = [error] * len(batch)
        self._deliver(batch, results, timing)

    def _let_next_begin(self) -> None:
        if self._max_finishing is not None and len(self._finishing) >= self._max_finishing:
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.discard(task)
        self._finishing.add(task)
        self._send()

    def _deliver(
        self,
        batch: Sequence[tuple[Item, Receiver[Result]]],
        results: Sequence[Result | Exception | Later | Again],
        timing: Timing,
    ) -> None:
        DELIVERY.begin(timing)
        for (item, receive), result in zip(batch, results, strict=True):
            if result is AGAIN:
                self.submit_then(item, receive)
            elif result is not LATER:
                try:
                    receive(result)
                except Exception as error:  # one caller's bug must not affect the others
                    self._running_loop().call_exception_handler(
                        {"message": "a batch's result was not received", "exception": error}
                    )
        DELIVERY.end()
