"""The Protocol of memcached, one server or several, as the policy needs it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple, Protocol

Item = tuple[bytes, bytes, int]
"""A name (32 hexadecimal digits), a sealed item, and its lifetime in seconds (0: no limit)."""


class Fetched(NamedTuple):
    """An item that memcached has.

    Attributes:
        cas: memcached's CAS value, by which it tells the versions of an item apart.
    """

    data: bytes
    cas: bytes


class NotFetched(Enum):
    """Why there is no item for a name."""

    ABSENT = 0
    UNCHANGED = 1
    LEFT_OUT = 2
    AWAY = 3


ABSENT: Final = NotFetched.ABSENT
"""memcached has none."""

UNCHANGED: Final = NotFetched.UNCHANGED
"""memcached has the one whose CAS value was given."""

LEFT_OUT: Final = NotFetched.LEFT_OUT
"""It did not fit into one answer's memory."""

AWAY: Final = NotFetched.AWAY
"""Its server is away, so it was not asked for."""

Answer = Fetched | NotFetched


class Memcache(Protocol):
    """Many keys per round trip, in both directions. Every call has its own timeout."""

    @property
    def available(self) -> bool:
        """False while all its servers are known to be down; calls then fail at once."""

    @property
    def away(self) -> Sequence[int]:
        """The servers that are known to be down, by their number from 0."""

    async def get_many(
        self, names: Sequence[bytes], known: Sequence[bytes | None]
    ) -> Sequence[Answer]:
        """The items that it has.

        Args:
            names: 32 lowercase hexadecimal digits each.
            known: for each name, the CAS value of the item that the caller has, or None. If that is the
                item memcached has, its bytes are not sent.

        Returns: an answer for each name, in order. Beyond a total size, items are ``LEFT_OUT``, but never
            the first. If only some servers answer, the others' items are ``AWAY``.

        Raises:
            CacheUnavailable: no answer.
        """

    async def set_many(self, items: Sequence[Item]) -> None:
        """Store items; those that do not fit are skipped. Raises CacheUnavailable."""
