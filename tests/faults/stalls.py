"""Detects stalls of an event loop."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from tests.faults.control import Control
from tests.faults.stepped import Parts

WORTH_TELLING: Final = 0.05
_INTERVAL: Final = 0.01


class Stall(NamedTuple):
    """A stall of an event loop.

    Attributes:
        at: its end, in nanoseconds of the monotonic clock.
        seconds: its duration.
        waited: for how many of these seconds its thread was ready, but the kernel ran others.
    """

    at: int
    seconds: float
    waited: float
    pid: int


def watched(parts: Parts, control: Control) -> Parts:
    """The same parts; opening the store starts to watch its event loop."""

    class Store_(parts.store):  # type: ignore[misc,name-defined]
        @classmethod
        async def open(cls, *args: Any, **settings: Any) -> Self:
            store: Self = await super().open(*args, **settings)
            # Keep a reference, because the event loop does not.
            store.watch = asyncio.create_task(watch(control.directory))
            return store

    return replace(parts, store=Store_)


async def watch(directory: Path) -> None:
    """Record stalls of this task's event loop, for `told`. Runs forever."""
    log = os.open(
        directory / f"stalls.{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
    )
    while True:
        waited, began = _waited(), time.monotonic()
        await asyncio.sleep(_INTERVAL)
        late = time.monotonic() - began - _INTERVAL
        if late >= WORTH_TELLING:
            waited = _waited() - waited
            os.write(log, f"{time.monotonic_ns()} {late} {waited} {os.getpid()}\n".encode())


def _waited() -> float:
    """Seconds that this thread was ready to run but did not run (proc(5), schedstat)."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_bytes().split()[1]) / 1e9
    except FileNotFoundError:
        return 0.0  # not Linux, or a kernel that does not count this


def told(directory: Path) -> list[Stall]:
    """All stalls recorded so far."""
    return [
        Stall(int(at), float(seconds), float(waited), int(pid))
        for path in directory.glob("stalls.*")
        for at, seconds, waited, pid in (line.split() for line in path.read_text().splitlines())
    ]
