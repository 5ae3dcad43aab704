"""The way out when a thread hangs in the kernel, where nothing can interrupt it."""

from __future__ import annotations

import os
import sys
import threading


class ExitTimer:
    """Ends the process, with status 1 and one line, unless it is called off in time.

    A thread that waits for a lock which a stopped process holds can be neither cancelled nor
    joined, and Python does not exit without joining it.

    Args:
        seconds: from ``start`` to the end.
        reason: the line on standard error.
    """

    def __init__(self, seconds: float, reason: str) -> None:
        self._timer = threading.Timer(seconds, _end, [reason])
        self._timer.daemon = True  # else it would be joined itself

    def start(self) -> None:
        self._timer.start()

    def call_off(self) -> None:
        """Never mind; also if it was never started."""
        self._timer.cancel()


def _end(reason: str) -> None:
    print(f"Error: {reason}", file=sys.stderr, flush=True)
    os._exit(1)
