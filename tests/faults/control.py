"""Controls running servers from a torture test: clock errors, delays and failpoints. All servers
map a small file, which holds the error of their clocks and the delays at the protocol's steps.
*Failpoints* are armed by files in a directory: the next process that reaches the step does, once,
what the failpoint says. An unarmed step costs one failing system call.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import signal
import struct
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, Literal

# The steps of a write, in order; then those of a read, and of a list that is remembered.
WRITE_STEPS: Final = ("locked", "applied", "odd", "committed", "even", "unlocked", "publishing")
READ_STEPS: Final = ("asked", "selected", "listed")

Action = Literal["stop", "kill"]
STEPS: Final = (*WRITE_STEPS, *READ_STEPS)
_WORDS: Final = struct.Struct("dddQ")
_SIZE: Final = mmap.PAGESIZE


class Control:
    """The servers' clock error, dawdling and failpoints.

    Args:
        directory: shared by the torture test and all its servers.
        steps: the names of the protocol's steps.
    """

    def __init__(self, directory: Path, steps: Sequence[str] = STEPS) -> None:
        self.directory = directory
        self._steps = steps
        directory.mkdir(exist_ok=True)
        fd = os.open(directory / "words", os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(fd, _SIZE)
        self._map = mmap.mmap(fd, _SIZE)
        os.close(fd)

    @property
    def clock_error(self) -> float:
        """Seconds by which the servers' clocks are fast."""
        return self._words[0]

    @clock_error.setter
    def clock_error(self, seconds: float) -> None:
        _WORDS.pack_into(self._map, 0, seconds, *self._words[1:])

    def dawdle(
        self, likelihood: float, longest: float, steps: Collection[str] | None = None
    ) -> None:
        """Make some steps take longer at random.

        Args:
            likelihood: probability, from 0 to 1.
            longest: the longest delay in seconds.
            steps: the steps to delay; None: all.
        """
        delayed = self._steps if steps is None else steps
        chosen = sum(1 << self._steps.index(step) for step in delayed)
        _WORDS.pack_into(self._map, 0, self.clock_error, likelihood, longest, chosen)

    @property
    def _words(self) -> tuple[float, float, float, int]:
        clock_error, likelihood, longest, steps = _WORDS.unpack_from(self._map)
        return clock_error, likelihood, longest, steps

    def arm(self, step: str, action: Action) -> None:
        """Make the next process that reaches the step stop there, or die."""
        (self.directory / f"{step}.{action}").touch()

    def armed(self, step: str, action: Action) -> bool:
        """Whether the step is still armed, because no process has reached it."""
        return (self.directory / f"{step}.{action}").exists()

    def disarm(self) -> None:
        """Disarm all failpoints."""
        for step in self._steps:
            for action in ("stop", "kill"):
                (self.directory / f"{step}.{action}").unlink(missing_ok=True)

    def caught(self) -> list[int]:
        """The processes that have reached an armed step since the last call."""
        pids = []
        for path in self.directory.glob("caught.*"):
            pids.append(int(path.suffix[1:]))
            path.unlink()
        return pids

    def reach(self, step: str) -> None:
        """Called when a process reaches a step, in a thread that may block."""
        self._spring(step)
        delay = self._delay(step)
        if delay:
            time.sleep(delay)

    async def reach_async(self, step: str) -> None:
        """The same in an event loop, without blocking it."""
        self._spring(step)
        delay = self._delay(step)
        if delay:
            await asyncio.sleep(delay)

    def _delay(self, step: str) -> float:
        _, likelihood, longest, steps = self._words
        if likelihood and steps >> self._steps.index(step) & 1 and random.random() < likelihood:
            return random.uniform(0, longest)
        return 0.0

    def _spring(self, step: str) -> None:
        pid = os.getpid()
        for action, number in (("stop", signal.SIGSTOP), ("kill", signal.SIGKILL)):
            try:  # only one process can rename it
                os.rename(self.directory / f"{step}.{action}", self.directory / f"caught.{pid}")
            except FileNotFoundError:
                continue
            # Sent to this thread: of a signal to the process, another thread may be the first to
            # learn, while this one continues.
            signal.pthread_kill(threading.get_ident(), number)
