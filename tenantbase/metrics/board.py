"""The figures of all workers, in memory that they share.

The supervisor makes the board before it forks, and gives each worker a *slot* of its own. However a
worker ends, its counters stay there, and its replacement continues from them, so no total ever goes
backwards. Any process can add up all slots without asking the others.

``prometheus_client`` has a multiprocess mode, which keeps files for each process. The files of ended
processes stay, and every scrape reads all of them. In that mode, an addition to a counter takes 2 µs,
and to a histogram 7 µs; with cells, less than 0.1 µs and 0.3 µs.
"""

from __future__ import annotations

import mmap
import os
import time
from typing import Final

from tenantbase.figures import CELL_BYTES, FIRST_GAUGE, LAST_GAUGE, PID, SECOND, private_cells

# Cells of the supervisor, before the slots.
_STARTED: Final = 0  # by the monotonic clock, in nanoseconds
_RESTARTS: Final = 1
_SUPERVISOR: Final = 3  # its process id
_ENDED_CPU: Final = 2  # processor time of workers that have ended, in nanoseconds
_HEAD: Final = 8


class Board:
    """The shared figures. Made before the workers are forked, which inherit it.

    Args:
        slots: the most workers at the same time.
        cells: how many cells each slot has.
    """

    def __init__(self, slots: int, cells: int) -> None:
        self._cells = cells
        # Anonymous memory is shared with processes forked later.
        self._map = mmap.mmap(-1, (_HEAD + slots * cells) * CELL_BYTES)
        everything = memoryview(self._map).cast("Q")
        self._head = everything[:_HEAD]
        self._slots = [
            everything[start : start + cells]
            for start in range(_HEAD, _HEAD + slots * cells, cells)
        ]
        self._taken: set[int] = set()
        self._head[_STARTED] = time.monotonic_ns()
        self._head[_SUPERVISOR] = os.getpid()

    # For the supervisor

    def take(self) -> int:
        """A free slot, for a worker about to be forked."""
        slot = min(set(range(len(self._slots))) - self._taken)
        self._taken.add(slot)
        return slot

    def give_back(self, slot: int, cpu: float = 0.0, *, restarts: bool = False) -> None:
        """Free the slot of a worker that has ended, and clear its gauges.

        Args:
            cpu: seconds of processor time that it has used.
            restarts: another worker will replace it.
        """
        gauges = LAST_GAUGE + 1 - FIRST_GAUGE
        self._head[_ENDED_CPU] += round(cpu * SECOND)
        self._slots[slot][FIRST_GAUGE : LAST_GAUGE + 1] = private_cells(gauges)
        self._head[_RESTARTS] += restarts
        self._taken.discard(slot)

    # For the workers

    def cells(self, slot: int) -> memoryview:
        """The cells of one slot."""
        return self._slots[slot]

    # For every process

    def total(self, first: int = 0, end: int | None = None) -> list[int]:
        """The sums over all slots, of all cells or of a range."""
        return [*map(sum, zip(*(slot[first:end].tolist() for slot in self._slots), strict=True))]

    def of_each(self, cell: int) -> list[int]:
        """One cell of each running worker."""
        return [slot[cell] for slot in self._slots if slot[PID]]

    @property
    def supervisor(self) -> int:
        """The id of the process that made the board."""
        return self._head[_SUPERVISOR]

    @property
    def uptime(self) -> float:
        """Seconds since the supervisor started."""
        return (time.monotonic_ns() - self._head[_STARTED]) / SECOND

    @property
    def restarts(self) -> int:
        """How many workers have been replaced."""
        return self._head[_RESTARTS]

    @property
    def ended_cpu(self) -> float:
        """Processor time of the workers that have ended, in seconds."""
        return self._head[_ENDED_CPU] / SECOND
