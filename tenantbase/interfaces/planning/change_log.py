"""The change log of one group: the versions that it assigns, and the changes that have them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from tenantbase.entry import Entry
from tenantbase.events import EventKind

_SET: Final = str(EventKind.SET)

Line = tuple[int, str, str, int | None, str | None, float | None]
"""A version, its kind and key and, of an entry that was set, its size, media type and expiry."""


class ChangeLog:
    """The versions assigned in one transaction of the database.

    Args:
        last: the last version assigned before.

    Attributes:
        lines: so far.
    """

    def __init__(self, last: int) -> None:
        self.lines: Final[list[Line]] = []
        self._first = last + 1

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def next_version(self) -> int:
        """The version that the next change will get."""
        return self._first + len(self.lines)

    @property
    def keys(self) -> Collection[str] | None:
        """Every key that changed; None means that any key may have."""
        if EventKind.RESET in {event[1] for event in self.lines}:
            return None
        return {event[2] for event in self.lines}

    @property
    def value_bytes(self) -> int:
        """The total size of the values that were set."""
        return sum([event[3] or 0 for event in self.lines])

    def record(self, kind: EventKind, key: str) -> None:
        """Assign the next version; see ``ChangeEvent``."""
        # As a plain str: sqlite3 searches its adapters for any subclass.
        self.lines.append((self.next_version, str(kind), key, None, None, None))

    def record_set(self, key: str, size: int, content_type: str, expires_at: float | None) -> None:
        """Assign the next version to an entry that was set."""
        self.lines.append((self.next_version, _SET, key, size, content_type, expires_at))

    def record_sets(self, entries: Iterable[Entry]) -> None:
        """As ``record_set`` for each of them, which already have the next versions."""
        self.lines.extend(
            [
                (each.version, _SET, each.key, len(each.value), each.content_type, each.expires_at)
                for each in entries
            ]
        )

    def take_back(self, length: int) -> None:
        """Forget all but the first ``length`` versions, whose changes were undone."""
        del self.lines[length:]
