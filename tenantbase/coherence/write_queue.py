"""Which waiting writes make the next group.

A group is one database transaction, so each of its writes takes as long as the whole group. Small
writes are grouped, up to a bound. A large one is a group of its own, and small ones go first: each
small write waits for one large group at most, the one being committed when it arrives or the one
that follows. Large writes are not starved either: between two of them, only those small ones are
written that had arrived when the first was done.

This reorders writes, which is sound: a client that waits for one answer before it sends the next
write gets that order, and no other order is promised.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, Protocol, TypeVar

GROUP_WRITES: Final = 256
GROUP_ROWS: Final = 1_024
GROUP_BYTES: Final = 8 << 20

# A write above either is large. A sweep is small, and so is any value up to the default limit.
LARGE_ROWS: Final = 512
LARGE_BYTES: Final = 2 << 20

QUEUE_BYTES: Final = 32 << 20
"""Memory for large waiting writes, and as much again for small ones."""


class Weighed(Protocol):
    """A waiting write."""

    @property
    def rows(self) -> int:
        """How many rows it may change."""

    @property
    def bytes(self) -> int:
        """Approximately how much memory it holds."""

    @property
    def large(self) -> bool:
        """Whether it is above ``LARGE_ROWS`` or ``LARGE_BYTES``: a group of its own."""


Write = TypeVar("Write", bound=Weighed)
Receiver = TypeVar("Receiver")


class WriteQueue(Generic[Write, Receiver]):
    """Waiting writes, each with the receiver of its result.

    Args:
        writes: how many of each kind, small and large, may wait.
        bytes: how much those of each kind may hold in memory together.
    """

    def __init__(self, writes: int, bytes: int = QUEUE_BYTES) -> None:
        self._max_writes = writes
        self._max_bytes = bytes
        self._small: deque[tuple[Write, Receiver]] = deque()
        self._large: deque[tuple[Write, Receiver]] = deque()
        self._small_rows = 0
        self._small_bytes = 0
        self._large_bytes = 0
        self._first = 0  # how many small ones go before the next large one
        self._was_large = True  # whether the last group was

    def __len__(self) -> int:
        return len(self._small) + len(self._large)

    @property
    def bytes(self) -> int:
        """What all waiting writes hold."""
        return self._small_bytes + self._large_bytes

    def has_room(self, write: Write) -> bool:
        """Whether it may be added. The first of its kind always may."""
        if write.large:
            waiting, held = len(self._large), self._large_bytes
        else:
            waiting, held = len(self._small), self._small_bytes
        return not waiting or (waiting < self._max_writes and held + write.bytes <= self._max_bytes)

    def append(self, waiting: tuple[Write, Receiver]) -> None:
        """Add a write at the end."""
        write = waiting[0]
        if write.large:
            self._large.append(waiting)
            self._large_bytes += write.bytes
        else:
            self._small.append(waiting)
            self._small_rows += write.rows
            self._small_bytes += write.bytes

    def take(self) -> list[tuple[Write, Receiver]]:
        """Remove and return the next group. Called when a write waits."""
        if self._was_large:
            self._was_large = False
            self._first = len(self._small)
        if self._large and (self._first <= 0 or not self._small):
            self._was_large = True
            waiting = self._large.popleft()
            self._large_bytes -= waiting[0].bytes
            return [waiting]
        return self._take_small()

    def _take_small(self) -> list[tuple[Write, Receiver]]:
        group: list[tuple[Write, Receiver]] = []
        small = self._small
        rows = held = 0
        if (
            len(small) <= GROUP_WRITES
            and self._small_rows <= GROUP_ROWS
            and self._small_bytes <= GROUP_BYTES
        ):
            group.extend(small)  # all of them, which is the usual case
            small.clear()
            rows, held = self._small_rows, self._small_bytes
        while small and len(group) < GROUP_WRITES:
            write = small[0][0]
            if group and (rows + write.rows > GROUP_ROWS or held + write.bytes > GROUP_BYTES):
                break
            rows += write.rows
            held += write.bytes
            group.append(small.popleft())
        self._small_rows -= rows
        self._small_bytes -= held
        self._first -= len(group)
        return group
