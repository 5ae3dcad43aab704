"""What a worker counts: integers in memory that the other workers can read.

Each is a *cell* of 64 bits, and an event is one addition to it where it happens, so counting costs
next to nothing and what is counted is seen at once, also after the worker was killed. A cell is
written by one thread alone. How cells are shared, added up and shown is in ``metrics/``.
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


class CacheFailure(StrEnum):
    """Why an operation of memcached failed."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    PROTOCOL = "protocol"
    TOO_LARGE = "too_large"
    DOWN = "down"  # it was known to be down before the operation began


class CacheState(IntEnum):
    """Whether a worker has a memcached."""

    OFF = 0
    AWAY = 1
    AVAILABLE = 2


class Histogram(NamedTuple):
    """Where the cells of a histogram are: one for each bucket, one for the values above them all,
    and one for the sum of all values.

    Attributes:
        first: the first cell.
        bounds: the greatest value of each bucket, ascending.
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
    """The same bounds with others between them, in equal ratios."""
    for low, high in pairwise(bounds):
        yield from (round(low * (high / low) ** (part / parts)) for part in range(parts))
    yield bounds[-1]


# One millisecond and its neighbours matter most: a cached value takes less, and a commit more.
REQUEST_BOUNDS: Final = _nanoseconds(
    (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05)
    + (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
)
# Percentiles are read from these. Neighbours differ by 15 % at most.
FINE_BOUNDS: Final = tuple(_finer(REQUEST_BOUNDS, 8))
_DISK_BOUNDS: Final = _nanoseconds(
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
)
_WRITES_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# Counters. They outlive their worker: its successor goes on counting where it ended.
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
ALL_REQUESTS: Final = Histogram(CHECKPOINT_DURATION.end, FINE_BOUNDS)  # without its sum
ERRORS: Final = ALL_REQUESTS.end  # requests that failed by the server's fault

# Gauges. They end with their worker.
FIRST_GAUGE: Final = ERRORS + 1
CONNECTIONS: Final = FIRST_GAUGE
WATCHERS: Final = FIRST_GAUGE + 1
CACHE_STATE: Final = FIRST_GAUGE + 2  # see CacheState
LAG: Final = FIRST_GAUGE + 3  # the longest recent delay of the event loop
EARLIER_LAG: Final = FIRST_GAUGE + 4
BEAT_DUE: Final = FIRST_GAUGE + 5  # when the event loop should report again, by the monotonic clock
PID: Final = FIRST_GAUGE + 6
LAST_GAUGE: Final = PID

FIRST_REQUEST_CELL: Final = LAST_GAUGE + 1
"""From here on, HTTP requests are counted, by route, method and status."""


def private_cells(count: int = FIRST_REQUEST_CELL) -> memoryview:
    """Cells that no other process reads."""
    return memoryview(bytearray(count * CELL_BYTES)).cast("Q")
