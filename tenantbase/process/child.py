"""A worker as its supervisor sees it: what it reports on its pipe, and how it ended."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Final, NamedTuple

# A worker's messages on its pipe. Everything after FAILED is the reason.
READY: Final = b"+"
BEAT: Final = b"."
FAILED: Final = b"!"

_FAILURE_STATUS: Final = 1  # of a worker that has logged, and so reported, its own failure


@dataclass(slots=True)
class Worker:
    """A worker process, and what it has reported.

    Attributes:
        pipe: the read end.
        slot: where its figures are on the board.
        born: when it was forked, by the monotonic clock.
        silent: seconds since its last message, while the supervisor was awake.
        failure: why it cannot serve, as it reported.
        killed: why the watchdog killed the worker; empty if it did not.
    """

    pid: int
    pipe: int
    slot: int
    born: float
    ready: bool = False
    silent: float = 0.0
    failure: bytes | None = None
    killed: str = ""

    def receive(self, data: bytes) -> None:
        self.silent = 0.0
        if self.failure is None:
            messages, failed, data = data.partition(FAILED)
            self.ready = self.ready or READY in messages
            if failed:
                self.failure = b""
        if self.failure is not None:
            self.failure += data


class Ending(NamedTuple):
    """How a worker ended.

    Attributes:
        text: for the log.
        report: for the error report: a constant text, which quotes nothing; empty if the worker has
            reported it itself.
    """

    text: str
    report: str


def ending(worker: Worker, raw: int) -> Ending:
    """How a worker ended, given its status from ``wait``."""
    code = os.waitstatus_to_exitcode(raw)
    if worker.failure:
        return Ending(worker.failure.decode(), "a worker cannot serve; the log says why")
    if worker.killed:
        return Ending(
            f"worker {worker.pid} was killed: {worker.killed}",
            "a worker was killed: its event loop was blocked",
        )
    if code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    else:
        how = f"exited with {code}"
    report = f"a worker {how}" if code != _FAILURE_STATUS else ""
    return Ending(f"worker {worker.pid} {how}", report)
