"""What a worker counts: integers in memory that the other workers can read.

Each is a *cell* of 64 bits. An event is counted where it happens, by one addition to a cell, which
costs next to nothing and is visible at once, even after the worker is killed. Only one thread writes
a cell. ``metrics/`` shares the cells, adds them up and shows them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from enum import IntEnum, StrEnum
from itertools import pairwise
from typing import Final, NamedTuple

CELL_BYTES: Final = 8
SECOND: Final = 1_000_000_000
"""Durations are counted in nanoseconds."""


MOST_CACHE_SERVERS: Final = 64
"""``CACHE_AWAY`` has a bit for each."""


class CacheFailure(StrEnum):
    """Why a memcached operation failed."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    PROTOCOL = "protocol"
    TOO_LARGE = "too_large"
    DOWN = "down"  # known to be down, so the operation was not tried


class SessionLoss(StrEnum):
    """Why a session with a shared database was given up."""

    CONNECTION = "connection"  # it broke, or the server closed it
    TIMEOUT = "timeout"
    TERM = "term"  # another server was promoted
    STANDBY = "standby"  # another standby confirms commits now
    WARNING = "warning"  # the server warned, such as that it no longer waits for the standby


class DoubtEnd(StrEnum):
    """What was found out in time about a group of writes whose COMMIT was not answered."""

    MADE = "made"
    NOT_MADE = "not_made"
    UNKNOWN = "unknown"


class CacheState(IntEnum):
    """Whether a worker has a memcached, and any server of it answers."""

    OFF = 0
    AWAY = 1
    AVAILABLE = 2


class Histogram(NamedTuple):
    """The cells of a histogram: one for each bucket, one for larger values, and one for the sum of
    all values.

    Attributes:
        first: the first cell.
        bounds: the largest value of each bucket, ascending.
    """

    first: int
    bounds: tuple[int, ...]

    @property
    def sum(self) -> int:
        """The cell of the sum."""
        return self.first + len(self.bounds) + 1

    @property
    def end(self) -> int:
        """The cell after the last one."""
        return self.sum + 1

    def add(self, cells: memoryview, value: int) -> None:
        """Count a value."""
        cells[self.first + bisect_left(self.bounds, value)] += 1
        cells[self.sum] += value


def _nanoseconds(seconds: Iterable[float]) -> tuple[int, ...]:
    return tuple(round(each * SECOND) for each in seconds)


def _finer(bounds: tuple[int, ...], parts: int) -> Iterator[int]:
    """The same bounds, with each interval divided into ``parts`` of equal ratios."""
    for low, high in pairwise(bounds):
        yield from (round(low * (high / low) ** (part / parts)) for part in range(parts))
    yield bounds[-1]


# Finest around a millisecond: a cached read takes less, and a commit more.
REQUEST_BOUNDS: Final = _nanoseconds(
    (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05)
    + (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
)
# For percentiles. Adjacent bounds differ by 15 % at most.
FINE_BOUNDS: Final = tuple(_finer(REQUEST_BOUNDS, 8))
_DISK_BOUNDS: Final = _nanoseconds(
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
)
_WRITES_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# Counters. They outlive their worker: its replacement continues from them.
HITS: Final = 0
MISSES: Final = 1
BYPASSES: Final = 2
REJECTED_ITEMS: Final = 3
COMMITS: Final = 4
EXPIRED: Final = 5
RATE_LIMITED: Final = 6
CACHE_FAILURES: Final = {reason: 7 + at for at, reason in enumerate(CacheFailure)}
COMMIT_DURATION: Final = Histogram(7 + len(CACHE_FAILURES), _DISK_BOUNDS)
COMMIT_WRITES: Final = Histogram(COMMIT_DURATION.end, _WRITES_BOUNDS)
CHECKPOINT_DURATION: Final = Histogram(COMMIT_WRITES.end, _DISK_BOUNDS)
ALL_REQUESTS: Final = Histogram(CHECKPOINT_DURATION.end, FINE_BOUNDS)  # its sum is not counted
ERRORS: Final = ALL_REQUESTS.end  # requests answered with a status from 500
# Of a database that several machines share.
STALE_HITS: Final = ERRORS + 1
QUESTION_DURATION: Final = Histogram(STALE_HITS + 1, _DISK_BOUNDS)
QUESTION_READS: Final = QUESTION_DURATION.end  # keys whose copies were judged by an answer
SESSIONS_LOST: Final = {loss: QUESTION_READS + 1 + at for at, loss in enumerate(SessionLoss)}
_FIRST_DOUBT: Final = QUESTION_READS + 1 + len(SESSIONS_LOST)
DOUBTS: Final = {end: _FIRST_DOUBT + at for at, end in enumerate(DoubtEnd)}
LOCK_WAIT: Final = Histogram(_FIRST_DOUBT + len(DOUBTS), _DISK_BOUNDS)

# Gauges. They are cleared when their worker ends.
FIRST_GAUGE: Final = LOCK_WAIT.end
CONNECTIONS: Final = FIRST_GAUGE
WATCHERS: Final = FIRST_GAUGE + 1
CACHE_STATE: Final = FIRST_GAUGE + 2  # see CacheState
LAG: Final = FIRST_GAUGE + 3  # the longest recent delay of the event loop
EARLIER_LAG: Final = FIRST_GAUGE + 4  # the same, of the period before
BEAT_DUE: Final = FIRST_GAUGE + 5  # when the next beat is due, by the monotonic clock
PID: Final = FIRST_GAUGE + 6
STORE_POSITION: Final = FIRST_GAUGE + 7  # up to which a worker knows every change
STORE_TERM: Final = FIRST_GAUGE + 8  # how many terms there have been
STORE_CONFIRMED_AT: Final = FIRST_GAUGE + 9  # when the last answer was asked for, monotonic
CACHE_AWAY: Final = FIRST_GAUGE + 10  # a bit for each server of memcached that is away
STORE_REPLICATED: Final = FIRST_GAUGE + 11  # 1 if the shared database must have a standby
LAST_GAUGE: Final = STORE_REPLICATED

FIRST_REQUEST_CELL: Final = LAST_GAUGE + 1
"""The cells from here on count HTTP requests, by route, method and status."""


def private_cells(count: int = FIRST_REQUEST_CELL) -> memoryview:
    """Cells that no other process reads."""
    return memoryview(bytearray(count * CELL_BYTES)).cast("Q")
