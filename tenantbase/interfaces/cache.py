"""What the policy needs from memcached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Item = tuple[bytes, bytes, int]
"""A name (32 hexadecimal digits), a frame, and its lifetime in seconds (0: no limit)."""


class Memcache(Protocol):
    """Many keys a round trip, in both directions. Every call has a deadline of its own."""

    @property
    def available(self) -> bool:
        """False while it is known to be away: asking would fail at once."""

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The items that are there. Raises CacheUnavailable."""

    async def set_many(self, items: Sequence[Item]) -> None:
        """Store items; one that does not fit is left out. Raises CacheUnavailable."""
