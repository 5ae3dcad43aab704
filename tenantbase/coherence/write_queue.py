"""Which waiting writes make the next group.

A group is one database transaction, so each of its writes takes as long as the whole group. Small
writes are grouped, up to a bound. A large one is a group of its own, and small ones go first: each
small write waits for at most one large group, either the one being committed when it arrives or the
next one. Large writes do not starve either: between two of them, only those small ones are written
that had arrived by the end of the first.

Writes come in lanes (``lanes.py``), which get equal shares of each group and of the room to wait. A
lane's large writes wait for the small ones of their own lane, but only for one group of the others'.

This reorders writes, which is sound: a client that waits for one answer before it sends the next
write gets that order, and no other order is promised.
"""

from __future__ import annotations

from typing import Final, Generic, Protocol, TypeVar

from tenantbase.lanes import Lanes

GROUP_WRITES: Final = 256
GROUP_ROWS: Final = 1_024
GROUP_BYTES: Final = 8 << 20

# A write above either is large. A sweep is small, and so is any value up to the default limit.
LARGE_ROWS: Final = 512
LARGE_BYTES: Final = 2 << 20

QUEUE_BYTES: Final = 32 << 20
"""Memory for the large waiting writes of a lane, and as much again for its small ones."""

# What a write costs its lane: its share of a group, expressed in bytes.
_WRITE_COST: Final = GROUP_BYTES // GROUP_WRITES
_ROW_COST: Final = GROUP_BYTES // GROUP_ROWS


class Weighed(Protocol):
    """A waiting write."""

    @property
    def lane(self) -> str:
        """The lane in which it waits."""

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

    A lane may hold as much as is free, so a single one holds half of the room, two hold two thirds,
    and there is always room for one more.

    Args:
        writes: how many writes of each kind, small and large, may wait in a single lane.
        bytes: how much those of each kind may hold in memory together.
    """

    def __init__(self, writes: int, bytes: int = QUEUE_BYTES) -> None:
        self._small = _Kind[Write, Receiver](2 * writes, 2 * bytes)
        self._large = _Kind[Write, Receiver](2 * writes, 2 * bytes)
        # By lane: how many small ones go before its next large one.
        self._first: dict[str, int] = {}
        self._passed = True  # whether small ones of any lane went since the last large one
        self._was_large = True  # whether the last group was

    def __len__(self) -> int:
        return self._small.lanes.size + self._large.lanes.size

    @property
    def bytes(self) -> int:
        """What all waiting writes hold."""
        return self._small.bytes + self._large.bytes

    def has_room(self, lane: str, large: bool, bytes: int) -> bool:
        """Whether a write may be added. The first of its kind in its lane always may."""
        kind = self._large if large else self._small
        free_writes = kind.max_writes - kind.lanes.size
        free_bytes = kind.max_bytes - kind.bytes - bytes
        if kind.lanes.size < free_writes and kind.bytes + bytes <= free_bytes:
            return True  # whichever lane holds it, which is the usual case
        waiting, held = kind.lanes.held(lane)
        return not waiting or waiting < free_writes and held + bytes <= free_bytes

    def append(self, waiting: tuple[Write, Receiver]) -> None:
        """Add a write at the end of its lane."""
        write = waiting[0]
        kind = self._large if write.large else self._small
        kind.rows += write.rows
        kind.bytes += write.bytes
        kind.lanes.append(write.lane, waiting, write.bytes)

    def take(self) -> list[tuple[Write, Receiver]]:
        """Remove and return the next group. Called when a write waits."""
        small, large = self._small.lanes, self._large.lanes
        if self._was_large:
            self._was_large = False
            self._first = small.counts()
            self._passed = not self._first
        if large.size and (not small.size or self._passed and self._large_may_go()):
            self._was_large = True
            return [self._large.take()]
        self._passed = True
        group = self._take_small()
        if self._first:
            for write, _ in group:
                left = self._first.pop(write.lane, 0) - 1
                if left > 0:
                    self._first[write.lane] = left
        return group

    def _large_may_go(self) -> bool:
        return self._large.lanes.next()[0].lane not in self._first

    def _take_small(self) -> list[tuple[Write, Receiver]]:
        small = self._small
        if (
            small.lanes.size <= GROUP_WRITES
            and small.rows <= GROUP_ROWS
            and small.bytes <= GROUP_BYTES
        ):
            small.rows = small.bytes = 0
            return small.lanes.take_all()  # which is the usual case
        group: list[tuple[Write, Receiver]] = []
        rows = held = 0
        while small.lanes.size and len(group) < GROUP_WRITES:
            write = small.lanes.next()[0]
            if group and (rows + write.rows > GROUP_ROWS or held + write.bytes > GROUP_BYTES):
                break
            rows += write.rows
            held += write.bytes
            group.append(small.take())
        return group


class _Kind(Generic[Write, Receiver]):
    """The small writes that wait, or the large ones.

    Attributes:
        max_writes, max_bytes: of all lanes together.
        rows, bytes: of all of them.
    """

    def __init__(self, max_writes: int, max_bytes: int) -> None:
        self.max_writes = max_writes
        self.max_bytes = max_bytes
        self.lanes = Lanes[tuple[Write, Receiver]]()
        self.rows = 0
        self.bytes = 0

    def take(self) -> tuple[Write, Receiver]:
        """Remove and return the write whose turn it is."""
        write = self.lanes.next()[0]
        self.rows -= write.rows
        self.bytes -= write.bytes
        cost = max(write.bytes, _ROW_COST * write.rows, _WRITE_COST)
        return self.lanes.take(cost, write.bytes)
