"""The last resort of a shutdown: ends the process even if a thread hangs in the kernel."""

from __future__ import annotations

import os
import threading

from tenantbase.process.logs import last_words


class ExitTimer:
    """Exits with status 1 and one line on standard error, unless cancelled in time.

    A thread that waits for a lock held by a stopped process can be neither cancelled nor joined,
    and Python does not exit without joining it.

    Args:
        seconds: the time from ``start`` to the exit.
        reason: the line on standard error.
    """

    def __init__(self, seconds: float, reason: str) -> None:
        self._timer = threading.Timer(seconds, _exit, [reason])
        self._timer.daemon = True  # otherwise Python would wait for the timer itself to end

    def start(self) -> None:
        self._timer.start()

    def cancel(self) -> None:
        """May be called before ``start``, too."""
        self._timer.cancel()


def _exit(reason: str) -> None:
    last_words(reason)
    os._exit(1)
