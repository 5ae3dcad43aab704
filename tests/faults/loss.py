"""Declared losses: an operator goes on with a server that lacks acknowledged writes.

The history is then that of a copy that goes back to an earlier position once, within a known window of
time.
Until then it must be that of a single copy. So must the remaining history: everything up to the
position that survived, and everything later. Deletes have no position, so a delete that may be lost
counts as one of unknown outcome.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tests.faults.history import NEVER, Operation, Violation


class Loss(msgspec.Struct, frozen=True):
    """A declared loss. Times are nanoseconds of the monotonic clock.

    Attributes:
        since: everything acknowledged before this time has survived.
        begin, end: operations that ended before ``begin`` saw the copy before it went back, and those
            that started after ``end`` saw it afterwards.
        lost: ranges of lost positions, each as the last position before it and its last one.
    """

    since: int
    begin: int
    end: int
    lost: tuple[tuple[int, int], ...]

    def takes(self, version: int | None) -> bool:
        """Whether a version is lost."""
        return version is not None and any(low < version <= high for low, high in self.lost)

    def before(self, operation: Operation) -> Operation | None:
        """What an operation says about the copy before the loss; None: nothing."""
        if operation.start > self.end:
            return None
        if _ended(operation) < self.begin or self.takes(operation.version):
            return operation
        if operation.kind == "get" or operation.outcome == "refused":
            return None
        if operation.version is not None:
            # The lowest lost position is the lowest that the copy before has above what survives.
            return operation if operation.version <= self.lost[0][0] else None
        return _unknown(operation)  # also a write that failed, because it was lost

    def after(self, operation: Operation) -> Operation | None:
        """What an operation says about the copy that survived; None: nothing."""
        if operation.start > self.end or _ended(operation) < self.since:
            return operation
        if self.takes(operation.version) or operation.outcome == "refused":
            return None
        if operation.kind == "get" and operation.version is None:
            return None  # what removed the entry may be lost
        return _unknown(operation) if _deleted(operation) else operation


def _ended(operation: Operation) -> int:
    return operation.heard or operation.end


def _deleted(operation: Operation) -> bool:
    return operation.kind == "delete" and operation.outcome == "ok"


def _unknown(operation: Operation) -> Operation:
    return msgspec.structs.replace(operation, outcome="unknown", end=NEVER)


def remaining(operations: Sequence[Operation], losses: Sequence[Loss]) -> list[Operation]:
    """The history that remains after all losses, in their order."""
    left = list(operations)
    for loss in losses:
        left = [kept for each in left if (kept := loss.after(each)) is not None]
    return left


def histories(operations: Sequence[Operation], losses: Sequence[Loss]) -> list[list[Operation]]:
    """All histories that a single copy must be able to produce.

    Raises:
        Violation: an operation saw what had been lost before it began.
    """
    found = []
    for number, loss in enumerate(losses):
        if all(each.start > loss.end or _ended(each) < loss.since for each in operations):
            continue  # nothing was going on
        left = remaining(operations, losses[:number])
        for each in left:
            if each.start > loss.end and loss.takes(each.version):
                raise Violation("a lost version was seen again", each)
        found.append([known for each in left if (known := loss.before(each)) is not None])
    return [*found, remaining(operations, losses)]
