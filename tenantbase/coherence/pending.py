"""A write that waits for the store, and can be withdrawn until the store starts it."""

from __future__ import annotations

import threading
from typing import Final

from tenantbase.coherence.write_queue import LARGE_BYTES, LARGE_ROWS
from tenantbase.commands import Applied, Delete, DeletePrefix, Set, Sweep, Transaction
from tenantbase.errors import OutcomeUnknown, StoreUnavailable
from tenantbase.plain_sets import PlainSets
from tenantbase.stages import Stage
from tenantbase.waits import BatchCall, BatchResult

_COMMAND_BYTES: Final = 512  # a command, its key, and the bookkeeping while it waits
# Only the store knows how many keys a prefix has, and counting them takes time, too.
_PREFIX_ROWS: Final = 1_000


def least_weight(rows: int) -> tuple[bool, int]:
    """Whether a write of this many rows is certainly large, and the least memory it takes, in bytes."""
    return rows > LARGE_ROWS, _COMMAND_BYTES * rows


class PendingWrite:
    """A transaction in the queue.

    Either the store starts it or the caller's timeout cancels it, whichever calls ``try_start``
    first.

    Args:
        lane: where it waits.

    Attributes:
        rows: how many rows it may change.
        bytes: approximately how much memory it holds.
        large: it is committed as a group of its own.
        settled: its outcome is known.
    """

    __slots__ = ("transaction", "lane", "rows", "bytes", "large", "settled", "_not_started")

    def __init__(self, transaction: Transaction, lane: str = "") -> None:
        self.transaction = transaction
        self.lane = lane
        rows = len(transaction)
        # Only the store knows the sizes of the values to return, and it limits them for each
        # transaction. So a group has at most one that returns values.
        returns = False
        held = _COMMAND_BYTES * rows
        if isinstance(transaction, PlainSets):
            held += sum(map(len, transaction.values))
            transaction = ()
        for command in transaction:
            if isinstance(command, Set):
                held += len(command.value)
            elif isinstance(command, Sweep):
                rows += command.limit
            elif isinstance(command, DeletePrefix):
                rows += _PREFIX_ROWS
            elif isinstance(command, Delete) and command.returned:
                returns = True
        self.rows = rows
        self.bytes = held
        self.large = rows > LARGE_ROWS or held > LARGE_BYTES or returns
        self.settled = False
        self._not_started = threading.Lock()

    def try_start(self) -> bool:
        """Claim the write, to carry it out or to give it up. True for the first call only."""
        return self._not_started.acquire(blocking=False)


def give_up(
    pending: PendingWrite, write: BatchResult[tuple[Applied, ...]] | BatchCall[tuple[Applied, ...]]
) -> None:
    """Fail a write that has waited too long, unless only its copy in memcached is missing."""
    if pending.settled:
        return
    if pending.try_start():
        write.give_up(Stage.QUEUE, StoreUnavailable("the database is busy; nothing was written"))
    else:
        write.give_up(
            Stage.COMMIT,
            OutcomeUnknown(
                "the database did not finish in time; the write may or may not have been made"
            ),
        )
