"""Fair queues: each *lane* gets the same share of what is taken.

A lane is a name that is opaque to this module; its user knows what it stands for, such as a tenant.
Within a lane, items keep their order. Between lanes, the next item comes from the lane that has been
given least (start-time fair queueing, Goyal et al. 1996). A lane that begins to wait starts level
with the others: it gets no credit for the time before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush, heapreplace
from typing import Generic, TypeVar

Item = TypeVar("Item")

LaneOf = Callable[[str], str]
"""The lane of a scoped key or prefix."""


def one_lane(_: str) -> str:
    """The same lane for every key."""
    return ""


class _Lane(Generic[Item]):
    """The items of one lane.

    Attributes:
        weight: of all its items together.
    """

    __slots__ = ("items", "weight")

    def __init__(self) -> None:
        self.items: deque[Item] = deque()
        self.weight = 0


class Lanes(Generic[Item]):
    """Waiting items, by lane. Not thread-safe.

    Attributes:
        size: how many wait.
    """

    __slots__ = ("size", "_lanes", "_turns", "_now", "_ties")

    def __init__(self) -> None:
        self.size = 0
        self._lanes: dict[str, _Lane[Item]] = {}
        # For each lane that is not empty: what it has been given, the order of ties, its name.
        self._turns: list[tuple[float, int, str]] = []
        self._now = 0.0  # what the lane of the last item had been given before it
        self._ties = 0

    def __len__(self) -> int:
        return self.size

    def counts(self) -> dict[str, int]:
        """How many items wait in each lane that is not empty."""
        return {name: len(lane.items) for name, lane in self._lanes.items()}

    def held(self, name: str) -> tuple[int, int]:
        """How many items wait in one lane, and what they weigh together."""
        lane = self._lanes.get(name)
        return (0, 0) if lane is None else (len(lane.items), lane.weight)

    def append(self, name: str, item: Item, weight: int = 0) -> None:
        """Add an item at the end of its lane.

        Args:
            weight: for ``held``; the same is given to ``take``.
        """
        try:
            lane = self._lanes[name]
        except KeyError:
            lane = self._lanes[name] = _Lane()
            self._ties += 1
            heappush(self._turns, (self._now, self._ties, name))
        lane.items.append(item)
        lane.weight += weight
        self.size += 1

    def next(self) -> Item:
        """The item whose turn it is. There must be one."""
        return self._lanes[self._turns[0][2]].items[0]

    def next_lane(self) -> str:
        """The lane whose turn it is. There must be an item."""
        return self._turns[0][2]

    def take(self, cost: float = 1, weight: int = 0) -> Item:
        """Remove and return the item whose turn it is.

        Args:
            cost: how much its lane is charged for it.
        """
        given, _, name = self._turns[0]
        lane = self._lanes[name]
        item = lane.items.popleft()
        lane.weight -= weight
        self.size -= 1
        if not lane.items:
            heappop(self._turns)
            del self._lanes[name]
            self._now = given
        elif len(self._turns) > 1:
            self._now = given
            self._ties += 1
            heapreplace(self._turns, (given + cost, self._ties, name))
        return item

    def take_all(self) -> list[Item]:
        """Remove and return everything, lane by lane."""
        lanes = list(self._lanes.values())
        self._lanes.clear()
        self._turns.clear()
        self._now = 0.0
        self.size = 0
        if len(lanes) == 1:
            return list(lanes[0].items)
        return [item for lane in lanes for item in lane.items]
