"""What is wrong with the database at the moment, for the health check and the log.

A disk that is full or fails meets every request. The log gets a line when a trouble begins and
one when it is over, however many requests meet it in between.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Final

log = logging.getLogger("tenantbase.troubles")


class Trouble(StrEnum):
    """The kinds, as the health check and the log name them."""

    DAMAGED_ROWS = "damaged rows"
    DISK_FULL = "disk full"
    DISK_ERRORS = "disk errors"
    READS_HANG = "reads hang"


# A trouble is over when it has not been met for so long. A full disk refuses only writes that need
# room, so success in between proves nothing. A damaged row stays damaged, and may be read seldom.
QUIET_SECONDS: Final[dict[Trouble, float]] = {
    Trouble.DAMAGED_ROWS: 600.0,
    Trouble.DISK_FULL: 10.0,
    Trouble.DISK_ERRORS: 10.0,
}


class Troubles:
    """The troubles that last. Belongs to one thread.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_met: dict[Trouble, float] = {}

    def met(self, trouble: Trouble, detail: str) -> None:
        """It has been met; the log is told if that is new."""
        self._forget_old()
        if trouble not in self._last_met:
            log.error("%s: %s", trouble.value, detail)
        self._last_met[trouble] = self._clock()

    def over(self, trouble: Trouble) -> None:
        """It is over, for certain."""
        if self._last_met.pop(trouble, None) is not None:
            log.warning("%s: over", trouble.value)

    @property
    def lasting(self) -> list[Trouble]:
        """Those that last, in a fixed order."""
        self._forget_old()
        return sorted(self._last_met)

    def next_look(self) -> float | None:
        """Seconds until one of them may be over; None while there are none of that kind."""
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
