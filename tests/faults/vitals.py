"""Measures the servers under torture: memory, stalls, and how soon hits are back."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import Final

from tests.faults.cluster import Cluster, memory_of
from tests.faults.excuses import Excuses
from tests.faults.history import NEVER, Operation

STALL: Final = 0.1
HITS_BACK: Final = 30.0
_SAMPLE: Final = 2.0
_WARM: Final = 60.0  # seconds of a run after which memory is to stay flat
_GROWTH: Final = 1.1
_SLACK: Final = 8 << 20


class _Calm:
    """From the end of a fault of the cache to the beginning of the next."""

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.end = NEVER
        self.first_hits: dict[int, int] = {}  # by port

    def hear(self, operation: Operation) -> None:
        if self.begin <= operation.start < self.end:
            first = self.first_hits.get(operation.port, NEVER)
            self.first_hits[operation.port] = min(first, operation.heard)


class Vitals:
    """What is measured in one run."""

    def __init__(self, cluster: Cluster, excuses: Excuses) -> None:
        self._cluster = cluster
        self._excuses = excuses
        self._calms: list[_Calm] = [_Calm(time.monotonic_ns())]
        self._disturbing = 0
        self._memory: dict[int, list[tuple[float, int]]] = {}
        self._begin = time.monotonic()

    def disturb(self) -> None:
        """A fault of the cache, or of the way to it, begins."""
        self._calms[-1].end = min(self._calms[-1].end, time.monotonic_ns())
        self._disturbing += 1

    def calm(self) -> None:
        """It has ended."""
        self._disturbing -= 1
        if not self._disturbing:
            self._calms.append(_Calm(time.monotonic_ns()))

    def hear(self, operation: Operation) -> None:
        """Take in what a client saw."""
        if operation.cache == "HIT":
            for calm in self._calms[-3:]:
                calm.hear(operation)

    async def sample(self) -> None:
        """Look at memory now and then, for ever."""
        while True:
            for pid, size in memory_of(self._cluster.servers[0].workers).items():
                self._memory.setdefault(pid, []).append((time.monotonic() - self._begin, size))
            await asyncio.sleep(_SAMPLE)

    def slowest_return(self) -> float:
        """Seconds from the end of a fault until every server had a hit, at most."""
        return max(
            (
                (first - calm.begin) / 1e9
                for calm in self._calms[1:]
                for first in calm.first_hits.values()
            ),
            default=0.0,
        )

    def stalls(self) -> list[float]:
        """How long event loops stood still by themselves, the longest first, in seconds."""
        return sorted(
            (
                stall.seconds - stall.waited
                for stall in self._cluster.stalls()
                if not self._excuses.failure(
                    stall.at - int(stall.seconds * 1e9), stall.at, 0, write=True
                )
            ),
            reverse=True,
        )

    def growth(self) -> list[tuple[int, int]]:
        """For each worker that lived long: bytes early in its life, and late in it."""
        grown = []
        for samples in self._memory.values():
            warm = [size for at, size in samples if at - samples[0][0] > _WARM]
            quarter = len(warm) // 4
            if quarter * _SAMPLE > _WARM:
                early, late = median(warm[:quarter]), median(warm[-quarter:])
                grown.append((int(early), int(late)))
        return grown

    def broken(self) -> list[str]:
        """Promises on memory that did not hold, a line each."""
        return [
            f"a worker grew from {early:,} to {late:,} bytes"
            for early, late in self.growth()
            if late > early * _GROWTH + _SLACK
        ]

    def slow(self) -> list[str]:
        """Promises on time that did not hold, a line each."""
        found = []
        stalls = self.stalls()
        if stalls and stalls[0] >= STALL:
            found.append(f"an event loop stood still for {stalls[0] * 1000:.0f} ms")
        if self.slowest_return() > HITS_BACK:
            found.append(f"hits were back only after {self.slowest_return():.1f} s")
        return found
