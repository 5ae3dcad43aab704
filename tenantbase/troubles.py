"""Current problems of the database, for the health check and the log.

A full or failing disk affects every request. A trouble is logged once when it begins and once when
it ends, however many requests meet it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from tenantbase.outage import how_often

log = logging.getLogger("tenantbase.troubles")


class Trouble(StrEnum):
    """Kinds of trouble, as the health check and the log name them."""

    # Of any database.

    DAMAGED_ROWS = "damaged rows"
    DISK_FULL = "disk full"
    DISK_ERRORS = "disk errors"
    # Of a file.
    READS_HANG = "reads hang"
    DISK_NEARLY_FULL = "disk nearly full"
    LOG_GROWS = "log grows"
    # Of a server that several machines share.
    NOT_CONFIRMED = "no standby confirms"
    READ_ONLY = "read-only primary"
    LONG_TRANSACTION = "long transaction"
    TRIMMED_LATE = "log trimmed late"


# A trouble that has not been met for this many seconds is over. A full disk refuses only writes
# that need room, so a success in between proves nothing. A damaged row stays damaged, but may be
# read only rarely.
QUIET_SECONDS: Final[dict[Trouble, float]] = {
    Trouble.DAMAGED_ROWS: 600.0,
    Trouble.DISK_FULL: 10.0,
    Trouble.DISK_ERRORS: 10.0,
}


class Troubles:
    """Keeps track of current troubles. Belongs to one thread.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_met: dict[Trouble, float] = {}
        self._began: dict[Trouble, float] = {}
        self._times: dict[Trouble, int] = {}

    def met(self, trouble: Trouble, detail: str) -> None:
        """Note that a request met a trouble; logs it if it is new."""
        self._forget_old()
        if trouble not in self._last_met:
            log.error("%s: %s", trouble.value, detail)
            self._began[trouble] = self._clock()
            self._times[trouble] = 0
        self._last_met[trouble] = self._clock()
        self._times[trouble] += 1

    def over(self, trouble: Trouble) -> None:
        """Note that a trouble is over."""
        last = self._last_met.pop(trouble, None)
        if last is not None:
            times = self._times[trouble]
            lasted = last - self._began[trouble]
            log.warning("%s: over; it was met %s", trouble.value, how_often(times, lasted))

    @property
    def lasting(self) -> list[Trouble]:
        """Current troubles, in a fixed order."""
        self._forget_old()
        return sorted(self._last_met)

    def next_look(self) -> float | None:
        """Seconds until a trouble may have timed out; None if none can."""
        ends = [
            met + QUIET_SECONDS[trouble]
            for trouble, met in self._last_met.items()
            if trouble in QUIET_SECONDS
        ]
        return max(0.0, min(ends) - self._clock()) if ends else None

    def _forget_old(self) -> None:
        now = self._clock()
        for trouble, met in list(self._last_met.items()):
            if now - met >= QUIET_SECONDS.get(trouble, float("inf")):
                self.over(trouble)
