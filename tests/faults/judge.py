"""Checks the clients' observations against the promises."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from tests.faults.excuses import Excuses
from tests.faults.history import Operation, describe

_MS: Final = 1_000_000


@dataclass
class Latencies:
    """A latency histogram: its memory does not grow with the length of a run."""

    counts: Counter[int] = field(default_factory=Counter)
    longest: int = 0

    def __len__(self) -> int:
        return sum(self.counts.values())

    def add(self, nanoseconds: int) -> None:
        self.longest = max(self.longest, nanoseconds)
        milliseconds = nanoseconds / _MS
        self.counts[max(0, math.ceil(3 * math.log2(max(milliseconds, 1))))] += 1

    def quantile(self, share: float) -> float:
        """The quantile in milliseconds, accurate to about a quarter."""
        wanted = share * len(self)
        for place, count in sorted(self.counts.items()):
            wanted -= count
            if wanted <= 0:
                return min(2 ** (place / 3), self.longest / _MS)
        return 0.0


@dataclass
class Judge:
    """Counts operations, and collects broken promises.

    Attributes:
        operations: by kind and outcome; what a list showed of a key is of the kind "list".
        sources: reads by cache status.
        reads, writes: latencies of requests without an excuse.
        disturbed: latencies of both during faults of memcached or its network.
        broken: broken promises, a line each.
        slow: broken promises about time, which may be due to a busy machine.
        excused: requests that failed or were slow during a fault that excuses it.
    """

    excuses: Excuses
    slowest_allowed: float  # seconds
    operations: Counter[tuple[str, str]] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    reads: Latencies = field(default_factory=Latencies)
    writes: Latencies = field(default_factory=Latencies)
    disturbed: Latencies = field(default_factory=Latencies)
    excused: int = 0
    broken: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)

    def hear(self, operation: Operation, *, disturbed: bool = False) -> None:
        """Judge an operation. ``disturbed``: memcached had a fault during it."""
        kind = "list" if operation.listed else operation.kind
        self.operations[kind, operation.outcome] += 1
        if operation.kind == "get" and operation.cache:
            self.sources[operation.cache] += 1
        if operation.vanished:
            return
        # The command line has no port. Opening the database takes the write lock.
        write = operation.kind != "get" or not operation.port
        begin, end = operation.start, operation.heard
        port = operation.port
        failed = operation.outcome in ("failed", "unknown")
        if failed:
            if self.excuses.failure(begin, end, port, write=write):
                self.excused += 1
            else:
                self.broken.append(f"a request failed: {describe(operation)}")
            return
        if self.excuses.delay(begin, end, port, write=write):
            return
        if not port:
            return  # the command line, whose time is mostly startup
        (self.writes if write else self.reads).add(end - begin)
        if disturbed:
            self.disturbed.add(end - begin)
        if end - begin > self.slowest_allowed * 1e9:
            self.slow.append(f"a request took long: {describe(operation)}")
