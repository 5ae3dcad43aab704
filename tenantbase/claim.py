"""A write that waits for the store, and may be given up until the store begins with it."""

from __future__ import annotations

import asyncio
import threading

from tenantbase.errors import OutcomeUnknown, StoreUnavailable
from tenantbase.interfaces.store import Applied, Transaction


class Claim:
    """A transaction in the queue. Who takes it first, the store or its impatient caller, has it.

    Attributes:
        settled: what became of it is known.
    """

    __slots__ = ("transaction", "settled", "_unclaimed")

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.settled = False
        self._unclaimed = threading.Lock()

    def take(self) -> bool:
        """Whether it is the caller's now; True once."""
        return self._unclaimed.acquire(blocking=False)


def give_up(claim: Claim, write: asyncio.Future[tuple[Applied, ...]]) -> None:
    """A write has waited too long; if it is only not in memcached yet, it is not given up."""
    if claim.settled:
        return
    if claim.take():
        write.set_exception(StoreUnavailable("the database is busy; nothing was written"))
    else:
        write.set_exception(
            OutcomeUnknown(
                "the database did not finish in time; the write may or may not have been made"
            )
        )
