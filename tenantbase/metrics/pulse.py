"""A worker's pulse: how late its event loop is, and what all workers did in the last ten seconds."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic_ns
from typing import Final, NamedTuple

from tenantbase.figures import (
    ALL_REQUESTS,
    BEAT_DUE,
    CACHE_AWAY,
    CACHE_STATE,
    EARLIER_LAG,
    ERRORS,
    FINE_BOUNDS,
    LAG,
    PID,
    SECOND,
    CacheState,
)
from tenantbase.metrics.board import Board

WINDOW_SECONDS: Final = 10
_BEAT_SECONDS: Final = 0.1
_BEATS_PER_LOOK: Final = 10
# Every delay is kept for at least this long, so that a scrape every 15 s sees it.
_LAG_NANOSECONDS: Final = 15 * SECOND


class Look(NamedTuple):
    """Figures at one moment, by the monotonic clock.

    Attributes:
        durations: requests by duration.
        errors: requests answered with a status from 500.
    """

    at: int
    durations: Sequence[int]
    errors: int


class Recent(NamedTuple):
    """What all workers did lately, usually in the last ten seconds. Watches do not count.

    Attributes:
        per_second, errors_per_second: requests, and those answered with a status from 500.
        p50, p99: percentiles of their durations, in seconds; None: there were no requests.
    """

    per_second: float
    errors_per_second: float
    p50: float | None
    p99: float | None


class Pulse:
    """The pulse of one worker. Belongs to its event loop.

    Args:
        cells: where the worker counts.
        cache_available: whether its memcached answers; None when there is none.
        cache_away: the servers of memcached that are away, by their number.
    """

    def __init__(
        self,
        board: Board,
        cells: memoryview,
        cache_available: Callable[[], bool | None],
        cache_away: Callable[[], Sequence[int]] = tuple,
    ) -> None:
        self._board = board
        self._cells = cells
        self._cache_available = cache_available
        self._cache_away = cache_away
        self._looks: deque[Look] = deque(maxlen=WINDOW_SECONDS + 1)
        self._beats = 0
        self._turned = monotonic_ns()  # when LAG last became EARLIER_LAG
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start beating, in the running event loop."""
        self._cells[PID] = os.getpid()
        self._looks.append(self._look())
        self.note_cache()
        self._next()

    def stop(self) -> None:
        """Stop beating."""
        if self._timer is not None:
            self._timer.cancel()
        self._cells[BEAT_DUE] = 0

    def note_cache(self) -> None:
        """Note whether memcached answers, and which of its servers do not."""
        available = self._cache_available()
        state = CacheState.AVAILABLE if available else CacheState.AWAY
        self._cells[CACHE_STATE] = CacheState.OFF if available is None else state
        self._cells[CACHE_AWAY] = sum(1 << server for server in self._cache_away())

    def recent(self) -> Recent:
        """The last ten seconds, or the time since this worker started if that is shorter."""
        now, then = self._look(), self._looks[0]
        seconds = max(now.at - then.at, 1) / SECOND
        durations = [new - old for new, old in zip(now.durations, then.durations, strict=True)]
        return Recent(
            sum(durations) / seconds,
            (now.errors - then.errors) / seconds,
            percentile(durations, 0.5),
            percentile(durations, 0.99),
        )

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        self._cells[BEAT_DUE] = monotonic_ns() + int(_BEAT_SECONDS * SECOND)
        self._timer = loop.call_later(_BEAT_SECONDS, self._beat)

    def _beat(self) -> None:
        now = monotonic_ns()
        cells = self._cells
        cells[LAG] = max(cells[LAG], now - cells[BEAT_DUE], 0)
        if now - self._turned > _LAG_NANOSECONDS:
            cells[EARLIER_LAG], cells[LAG] = cells[LAG], 0
            self._turned = now
        self._beats += 1
        if self._beats % _BEATS_PER_LOOK == 0:
            self._looks.append(self._look())
        self.note_cache()
        self._next()

    def _look(self) -> Look:
        *durations, _, errors = self._board.total(ALL_REQUESTS.first, ERRORS + 1)
        return Look(monotonic_ns(), durations, errors)


@contextmanager
def beating(pulse: Pulse) -> Iterator[Pulse]:
    """Keep a pulse inside the block."""
    pulse.start()
    try:
        yield pulse
    finally:
        pulse.stop()


def lag(board: Board) -> float:
    """The longest delay of any worker's event loop in the last 15 to 30 seconds, in seconds.

    A loop that is blocked right now counts with the delay so far.
    """
    now = monotonic_ns()
    due = board.of_each(BEAT_DUE)
    late = [now - each for each in due if each]
    return max([0, *late, *board.of_each(LAG), *board.of_each(EARLIER_LAG)]) / SECOND


def percentile(counts: Sequence[int], part: float) -> float | None:
    """The duration within which this part of the requests was answered, in seconds.

    Args:
        counts: requests in each bucket of ``FINE_BOUNDS``, and above.

    Returns: None if there were no requests. Durations are assumed to be spread evenly in a bucket.
    """
    rank = sum(counts) * part
    if not rank:
        return None
    for at, count in enumerate(counts):
        if count and rank <= count:
            low = FINE_BOUNDS[at - 1] if at else 0
            high = FINE_BOUNDS[min(at, len(FINE_BOUNDS) - 1)]
            return (low + (max(high, low) - low) * rank / count) / SECOND
        rank -= count
    return FINE_BOUNDS[-1] / SECOND
