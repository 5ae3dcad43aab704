"""What requests wait for, measured once for each batch, so that single requests pay nothing.

A batch has a ``Timing``: when it left its queue, and when each of its stages began and ended. The
fast path answers requests while their batch is being delivered, and finds its timing in ``DELIVERY``.
Tasks are resumed later, so their timing is kept with the request (``request_context.py``).

All times are nanoseconds of ``time.monotonic_ns``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from time import monotonic_ns
from typing import Final, Generic, TypeVar

from tenantbase.request_context import CURRENT, RequestContext
from tenantbase.stages import Span, Stage

Result = TypeVar("Result")


class Timing:
    """The stages of a batch.

    Attributes:
        began: when the batch left its queue.
    """

    __slots__ = ("began", "stages")

    def __init__(self) -> None:
        self.began = monotonic_ns()
        self.stages: list[Span] = []

    def note(self, stage: Stage, began: int) -> int:
        """Note that a stage has just ended. Returns: the time."""
        now = monotonic_ns()
        self.stages.append(Span(stage, began, now))
        return now

    def since(self, submitted: int) -> list[Span]:
        """What a request waited for that was submitted at this moment."""
        return [Span(Stage.QUEUE, submitted, max(submitted, self.began)), *self.stages]


class _Delivery:
    """The batch whose results are being handed over.

    Attributes:
        timing: of this batch; None between batches.
    """

    __slots__ = ("timing", "_at_end")

    def __init__(self) -> None:
        self.timing: Timing | None = None
        self._at_end: list[Callable[[], object]] = []

    def begin(self, timing: Timing | None) -> None:
        """Results are handed over from now on."""
        self.timing = timing

    def at_end(self, call: Callable[[], object]) -> None:
        """Call this once all results of the batch are handed over; at once if there is none."""
        if self.timing is None:
            call()
        else:
            self._at_end.append(call)

    def end(self) -> None:
        """All results are handed over."""
        self.timing = None
        while self._at_end:
            self._at_end.pop()()


DELIVERY: Final = _Delivery()
BATCH: Final[ContextVar[Timing | None]] = ContextVar("batch", default=None)
"""The batch that the running task works for."""


def note(stage: Stage, began: int) -> int:
    """Note that a stage of the running batch or request has just ended. Returns: the time."""
    timing = BATCH.get()
    if timing is not None:
        return timing.note(stage, began)
    now = monotonic_ns()
    context = CURRENT.get()
    if context is not None:
        context.waits.append(Span(stage, began, now))
    return now


def note_write(began: int, waited: int) -> None:
    """Note that the running batch was committed.

    Args:
        waited: how long it had to wait for a checkpoint first, in nanoseconds.
    """
    timing = BATCH.get()
    if timing is not None:
        if waited:
            timing.stages.append(Span(Stage.CHECKPOINT, began, began + waited))
        timing.note(Stage.COMMIT, began + waited)


class BatchResult(asyncio.Future[Result]):
    """The result of one item of a batch, for a task to wait for.

    Attributes:
        timing: of its batch, once the result is set.
    """

    __slots__ = ("timing", "_context", "_submitted")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.timing: Timing | None = None
        self._context: RequestContext | None = CURRENT.get()
        self._submitted = monotonic_ns()

    def settle(self, result: Result | Exception) -> None:
        """Set the result while its batch is delivered, unless the caller gave up."""
        if self.done():
            return
        self.timing = DELIVERY.timing
        if self._context is not None and self.timing is not None:
            self._context.waits.extend(self.timing.since(self._submitted))
        if isinstance(result, Exception):
            self.set_exception(result)
        else:
            self.set_result(result)

    def give_up(self, stage: Stage, error: Exception) -> None:
        """Fail, because this stage took too long."""
        self.timing = _wasted(self._submitted, stage)
        if self._context is not None:
            self._context.waits.extend(self.timing.stages)
        self.set_exception(error)


class BatchCall(Generic[Result]):
    """The result of one item of a batch, for a function to receive.

    For hot paths, because a future and its callback cost as much as everything else that the event
    loop does for a write.

    Args:
        receive: called once, with the result or the exception.
    """

    __slots__ = ("_receive", "_submitted")

    def __init__(self, receive: Callable[[Result | Exception], None]) -> None:
        self._receive: Callable[[Result | Exception], None] | None = receive
        self._submitted = monotonic_ns()

    def done(self) -> bool:
        """Whether the result has been received."""
        return self._receive is None

    def settle(self, result: Result | Exception) -> None:
        """Hand over the result while its batch is delivered, unless it was given up."""
        receive, self._receive = self._receive, None
        if receive is not None:
            receive(result)

    def give_up(self, stage: Stage, error: Exception) -> None:
        """Hand over an error, because this stage took too long."""
        DELIVERY.begin(_wasted(self._submitted, stage))
        try:
            self.settle(error)
        finally:
            DELIVERY.end()


def _wasted(submitted: int, stage: Stage) -> Timing:
    """The timing of an item that was given up: all of its wait counts as this stage."""
    timing = Timing()
    timing.began = submitted
    timing.note(stage, submitted)
    return timing
