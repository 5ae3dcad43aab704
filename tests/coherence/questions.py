"""What a memcached is asked for, and whether it sends any bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tenantbase.interfaces.cache import Answer, Fetched, Memcache

UNCHANGED: Final = "known: unchanged"
"""It has the item that was known. No byte of it was sent."""

CHANGED: Final = "known: sent"
"""It has another item than the one that was known, and has sent that."""

LOST: Final = "known: absent"
"""It no longer has an item, although one was known."""

SENT: Final = "unknown: sent"
"""It was asked for the whole item, and has sent it."""

ABSENT: Final = "unknown: absent"
"""It was asked for the whole item, and has none."""


class Questions:
    """Records what a memcached is asked, from now on. The memcached itself answers."""

    def __init__(self, memcache: Memcache) -> None:
        self._asked: list[tuple[bytes, str]] = []
        self._get_many = memcache.get_many
        memcache.get_many = self._record  # type: ignore[method-assign]

    def taken(self) -> list[str]:
        """What was asked and answered since the last call, in order."""
        return [kind for _, kind in self.taken_by_name()]

    def taken_by_name(self) -> list[tuple[bytes, str]]:
        """The same, with the names of the items."""
        asked, self._asked = self._asked, []
        return asked

    async def _record(
        self, names: Sequence[bytes], known: Sequence[bytes | None]
    ) -> Sequence[Answer]:
        answers = await self._get_many(names, known)
        for name, cas, answer in zip(names, known, answers, strict=True):
            before = "unknown" if cas is None else "known"
            after = "sent" if isinstance(answer, Fetched) else answer.name.lower()
            self._asked.append((name, f"{before}: {after}"))
        return answers
