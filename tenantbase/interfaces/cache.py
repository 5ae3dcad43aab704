"""What the policy needs from memcached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Item = tuple[bytes, bytes, int]
"""A name (32 hexadecimal digits), a sealed item, and its lifetime in seconds (0: no limit)."""


class Memcache(Protocol):
    """Many keys per round trip, in both directions. Every call has its own timeout."""

    @property
    def available(self) -> bool:
        """False while it is known to be away: calls would fail at once."""

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Those of the items that it has. Raises CacheUnavailable."""

    async def set_many(self, items: Sequence[Item]) -> None:
        """Store items; those that do not fit are left out. Raises CacheUnavailable."""
