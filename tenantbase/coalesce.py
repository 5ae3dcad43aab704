"""Many concurrent callers, one batch.

Calls made in the same turn of the event loop are handed on together. A call that finds nobody
else waits for nobody: the batch is sent at the end of the turn, whatever its size. While
``parallel`` batches are under way, later calls gather for the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Coalescer(Generic[Item, Result]):
    """Turns calls into batches. It belongs to the event loop that first uses it.

    Args:
        run: takes a batch and returns one result for each item, in order. A result that is an
            exception is raised to that item's caller alone; an exception raised by ``run``
            goes to all of them. It runs in a task of its own, which no caller can cancel.
        limit: items a batch has at most.
        parallel: batches under way at most.
        overlapping: further ones that have called ``overlap``, at most.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        limit: int,
        parallel: int,
        overlapping: int = 0,
    ) -> None:
        self._run = run
        self._limit = limit
        self._parallel = parallel
        self._overlapping = overlapping
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._slow: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, item: Item) -> asyncio.Future[Result]:
        """Add an item to the next batch; the future gets its result.

        Cancelling the future gives up the result and stops nothing.
        """
        loop = self._loop
        if loop is None:
            # Asked for once: until Python 3.12 each time costs a system call.
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future))
        if not self._scheduled and len(self._tasks) < self._parallel:
            self._scheduled = True
            loop.call_soon(self._send)
        return future

    def overlap(self) -> None:
        """Called by ``run`` before a slow part of it: the next batch may begin meanwhile."""
        task = asyncio.current_task()
        if task in self._tasks and len(self._slow) < self._overlapping:
            self._tasks.discard(task)
            self._slow.add(task)
            self._send()

    @property
    def waiting(self) -> int:
        """Items that are in no batch yet."""
        return len(self._waiting)

    async def drained(self) -> None:
        """Wait until everything submitted so far, or meanwhile, has its result."""
        while self._waiting or self._tasks or self._slow:
            tasks = self._tasks | self._slow
            await asyncio.wait(tasks) if tasks else await asyncio.sleep(0)

    def _send(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._tasks) < self._parallel:
            batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
            task = asyncio.get_running_loop().create_task(self._settle(batch))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slow.discard(task)
        self._send()

    async def _settle(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = await self._run([item for item, _ in batch])
        except Exception as error:  # the boundary: it belongs to the callers, all of them
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
