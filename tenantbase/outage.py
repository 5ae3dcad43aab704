"""Lasting trouble: one log line when it begins, and one when it is over.

``troubles.py`` is for the database's troubles, which the health check shows as well.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic


def how_often(times: int, seconds: float) -> str:
    """``once``, or how many times in how many seconds."""
    within = "less than 1 s" if seconds < 1 else f"{seconds:.0f} s"
    return "once" if times == 1 else f"{times} times in {within}"


class Outage:
    """One kind of trouble. Not thread-safe.

    Args:
        log: the logger for its lines.
        end: the line when it is over, to which count and duration are added.
        level: of the line when it begins.
        quiet_seconds: it is over once it was not met for this long. Needs a running event loop.
            None: only ``over`` ends it.
    """

    def __init__(
        self,
        log: logging.Logger,
        end: str,
        *,
        level: int = logging.WARNING,
        quiet_seconds: float | None = None,
    ) -> None:
        self._log = log
        self._end = end
        self._level = level
        self._quiet_seconds = quiet_seconds
        self._times = 0
        self._began = self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def met(self, text: str, *details: object) -> None:
        """The trouble was met. Logs a line if it has just begun."""
        self._last = monotonic()
        self._times += 1
        if self._times > 1:
            return
        self._began = self._last
        self._log.log(self._level, text, *details)
        if self._quiet_seconds is not None:
            self._look_after(self._quiet_seconds)

    def close(self) -> None:
        """Stop looking whether it is over. What met it is gone."""
        if self._timer is not None:
            self._timer.cancel()

    def over(self) -> None:
        """The trouble is over. Logs a line if there was any."""
        if self._times:
            times, self._times = self._times, 0
            ended = monotonic() if self._quiet_seconds is None else self._last
            often = how_often(times, ended - self._began)
            self._log.warning("%s; the trouble was met %s", self._end, often)

    def _look(self) -> None:
        assert self._quiet_seconds is not None
        left = self._last + self._quiet_seconds - monotonic()
        if left <= 0:
            self.over()
        else:
            self._look_after(left)

    def _look_after(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)
