"""A write that waits for the store, and may be given up until the store begins with it."""

from __future__ import annotations

import asyncio
import threading
from typing import Final

from tenantbase.errors import OutcomeUnknown, StoreUnavailable
from tenantbase.interfaces.store import Applied, DeletePrefix, Set, Sweep, Transaction
from tenantbase.coherence.write_queue import LARGE_BYTES, LARGE_CHANGES

_CHANGE_BYTES: Final = 512  # a change, its key, and what else of it is kept while it waits
# How many keys there are is known by then only, and counting them takes time as well.
_PREFIX_CHANGES: Final = 1_000


class PendingWrite:
    """A transaction in the queue. Who takes it first, the store or its impatient caller, has it.

    Attributes:
        changes: how many rows it may change.
        bytes: what it holds in memory, about.
        large: it is a group of its own.
        settled: what became of it is known.
    """

    __slots__ = ("transaction", "changes", "bytes", "large", "settled", "_not_started")

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        changes = len(transaction)
        held = _CHANGE_BYTES * changes
        for change in transaction:
            if isinstance(change, Set):
                held += len(change.value)
            elif isinstance(change, Sweep):
                changes += change.limit
            elif isinstance(change, DeletePrefix):
                changes += _PREFIX_CHANGES
        self.changes = changes
        self.bytes = held
        self.large = changes > LARGE_CHANGES or held > LARGE_BYTES
        self.settled = False
        self._not_started = threading.Lock()

    def try_start(self) -> bool:
        """Whether it is the caller's now; True once."""
        return self._not_started.acquire(blocking=False)


def give_up(pending: PendingWrite, write: asyncio.Future[tuple[Applied, ...]]) -> None:
    """A write has waited too long; if it is only not in memcached yet, it is not given up."""
    if pending.settled:
        return
    if pending.try_start():
        write.set_exception(StoreUnavailable("the database is busy; nothing was written"))
    else:
        write.set_exception(
            OutcomeUnknown(
                "the database did not finish in time; the write may or may not have been made"
            )
        )
