"""The Protocol of memcached, one server or several, as the policy needs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

LEFT_OUT: Final = b"left out"
"""This very object stands for an item that did not fit into one answer's memory."""

AWAY: Final = b"away"
"""This very object stands for an item that was not asked for, because its server is away."""

Item = tuple[bytes, bytes, int]
"""A name (32 hexadecimal digits), a sealed item, and its lifetime in seconds (0: no limit)."""


class Memcache(Protocol):
    """Many keys per round trip, in both directions. Every call has its own timeout."""

    @property
    def available(self) -> bool:
        """False while all its servers are known to be down; calls then fail at once."""

    @property
    def away(self) -> Sequence[int]:
        """The servers that are known to be down, by their number from 0."""

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The items that it has. Raises CacheUnavailable. Beyond a total size, items are
        ``LEFT_OUT``, but never the first. If only some servers answer, the others' are ``AWAY``.
        """

    async def set_many(self, items: Sequence[Item]) -> None:
        """Store items; those that do not fit are skipped. Raises CacheUnavailable."""
