"""Measures the servers under test: memory, stalls, and how soon cache hits return."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from statistics import median
from typing import Final, NamedTuple

from tests.faults.cluster import Cluster, memory_of
from tests.faults.excuses import Excuses
from tests.faults.history import NEVER, Operation

STALL: Final = 0.1
HITS_BACK: Final = 30.0
REST: Final = 10.0
"""Seconds without faults at the end of a long run, in which hits must return."""
_SAMPLE: Final = 2.0
_WARM: Final = 60.0  # seconds of warm-up, after which a process's memory must not grow
_GROWTH: Final = 1.1
_SLACK: Final = 8 << 20
ABOVE_REST_BYTES: Final = 100 << 20
"""Memory that hostile clients may temporarily add to a worker."""
_RECENT: Final = 20  # operations are reported long before this many more faults have ended


class Memory(NamedTuple):
    """The resident memory of a worker of the first server, in bytes.

    Attributes:
        seconds: how long it was watched.
        judged: whether that was long enough to judge growth.
    """

    pid: int
    seconds: float
    early: int
    late: int
    most: int
    judged: bool


class _Calm:
    """The time from the end of a cache fault to the beginning of the next."""

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.end = NEVER
        self.first_hits: dict[int, int] = {}  # by port

    def hear(self, operation: Operation) -> None:
        if self.begin <= operation.start < self.end:
            first = self.first_hits.get(operation.port, NEVER)
            self.first_hits[operation.port] = min(first, operation.heard)


class Vitals:
    """The measurements of one run."""

    def __init__(self, cluster: Cluster, excuses: Excuses) -> None:
        self._cluster = cluster
        self._excuses = excuses
        self._calms: list[_Calm] = [_Calm(time.monotonic_ns())]
        self._disturbing = 0
        self._memory: dict[int, list[tuple[float, int]]] = {}
        self._begin = time.monotonic()

    def disturb(self) -> None:
        """A fault of memcached or its network begins."""
        self._calms[-1].end = min(self._calms[-1].end, time.monotonic_ns())
        self._disturbing += 1

    def calm(self) -> None:
        """The fault has ended."""
        self._disturbing -= 1
        if not self._disturbing:
            self._calms.append(_Calm(time.monotonic_ns()))

    def ended(self) -> None:
        """The clients have stopped."""
        self._calms[-1].end = min(self._calms[-1].end, time.monotonic_ns())

    def disturbed(self, begin: int, end: int) -> bool:
        """Whether there was a fault of the cache at any time from ``begin`` to ``end``."""
        return not any(calm.begin <= begin and end <= calm.end for calm in self._calms[-_RECENT:])

    def hear(self, operation: Operation) -> None:
        """Add what a client saw."""
        if operation.cache == "HIT":
            for calm in self._calms[-_RECENT:]:
                calm.hear(operation)

    async def sample(self) -> None:
        """Sample memory at intervals. Runs forever."""
        while True:
            for pid, size in memory_of(self._cluster.servers[0].workers).items():
                self._memory.setdefault(pid, []).append((time.monotonic() - self._begin, size))
            await asyncio.sleep(_SAMPLE)

    def returns(self) -> list[float]:
        """Seconds from the end of each fault until a server's first hit, if there was one."""
        return [
            (first - calm.begin) / 1e9
            for calm in self._calms[1:]
            for first in calm.first_hits.values()
        ]

    def never_back(self) -> list[str]:
        """Servers without a hit for too long, a line each."""
        found = []
        for calm in self._calms:
            last = calm is self._calms[-1]
            seconds = (calm.end - calm.begin) / 1e9
            if seconds < (REST / 2 if last else HITS_BACK):
                continue
            for port in self._cluster.ports:
                away = self._excuses.failure(calm.begin, calm.end, port, write=True)
                if port not in calm.first_hits and not away:
                    found.append(f"no hits from port {port} in {seconds:.1f} s without a fault")
        return found

    def stalls(self) -> list[float]:
        """The stalls that event loops caused themselves, in seconds, the longest first."""
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

    def memory(self) -> list[Memory]:
        """The memory of the workers, the longest-lived first."""
        lives = []
        for pid, samples in self._memory.items():
            born, died = samples[0][0], samples[-1][0]
            warm = [size for at, size in samples if at - born > _WARM]
            judged = len(warm) // 4 * _SAMPLE > _WARM
            sizes = warm if judged else [size for _, size in samples]
            quarter = max(1, len(sizes) // 4)
            early, late = median(sizes[:quarter]), median(sizes[-quarter:])
            most = max(size for _, size in samples)
            lives.append(Memory(pid, died - born, int(early), int(late), most, judged))
        return sorted(lives, key=lambda life: life.seconds, reverse=True)

    def broken(self) -> list[str]:
        """Broken promises about memory, a line each."""
        lives = self.memory()
        grown = [
            f"worker {life.pid} grew from {life.early:,} to {life.late:,} bytes"
            for life in lives
            if life.judged and life.late > life.early * _GROWTH + _SLACK
        ]
        bloated = [
            f"worker {life.pid} held {life.most:,} bytes, {life.early:,} in its beginning"
            for life in lives
            if life.most > life.early + ABOVE_REST_BYTES
        ]
        return grown + bloated

    def slow(self, stalls: Sequence[float]) -> list[str]:
        """Broken promises about time, a line each. ``stalls``: the longest first."""
        found = []
        if stalls and stalls[0] >= STALL:
            found.append(f"an event loop stood still for {stalls[0] * 1000:.0f} ms")
        slowest = max(self.returns(), default=0.0)
        if slowest > HITS_BACK:
            found.append(f"hits were back only after {slowest:.1f} s")
        return found + self.never_back()
