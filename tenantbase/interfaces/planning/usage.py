"""How many entries and bytes a tenant has, while a group is worked out.

Every row that is not under a deleted prefix counts, with its value and its plain key. An expired row
counts until it is swept or replaced, although readers do not see it. Limits apply to what readers
see, so if a write seems to exceed one, the tenant's expired rows are subtracted first.
"""

from __future__ import annotations

from collections.abc import Collection

from tenantbase.errors import QuotaExceeded
from tenantbase.scope import start_bytes


class TenantUsage:
    """The usage of one tenant, as the current transaction has left it, and its limits.

    Attributes:
        entries, bytes: of its rows, expired ones included.
        max_entries, max_bytes: its limits; None: no limit.
        limited: it has a limit.
        stored: entries and bytes as stored.
    """

    __slots__ = (
        "name",
        "entries",
        "bytes",
        "max_entries",
        "max_bytes",
        "limited",
        "stored",
        "_start_bytes",
    )

    def __init__(
        self, name: str, entries: int, bytes: int, max_entries: int | None, max_bytes: int | None
    ) -> None:
        self.name = name
        self.entries = entries
        self.bytes = bytes
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.limited = max_entries is not None or max_bytes is not None
        self.stored = entries, bytes
        self._start_bytes = start_bytes(name)

    @property
    def changed(self) -> bool:
        """Whether it differs from what is stored."""
        return (self.entries, self.bytes) != self.stored

    @property
    def growth(self) -> tuple[int, int]:
        """By how many entries and bytes it differs from what is stored."""
        entries, size = self.stored
        return self.entries - entries, self.bytes - size

    def key_bytes(self, key: str) -> int:
        """The size of the plain key of one of its scoped keys."""
        return (len(key) if key.isascii() else len(key.encode())) - self._start_bytes

    def keys_bytes(self, keys: Collection[str]) -> int:
        """The size of the plain keys of so many of its scoped keys."""
        joined = "".join(keys)
        size = len(joined) if joined.isascii() else len(joined.encode())
        return size - len(keys) * self._start_bytes

    def within(self, entries: int, bytes: int) -> bool:
        """Whether its rows could grow by so many entries and bytes, if expired ones took room."""
        return (self.max_entries is None or self.entries + entries <= self.max_entries) and (
            self.max_bytes is None or self.bytes + bytes <= self.max_bytes
        )

    def check_growth(self, entries: int, bytes: int, expired: tuple[int, int]) -> None:
        """Refuse growth of what readers see that takes it over a limit.

        What does not grow passes even above the limit.

        Args:
            entries, bytes: the growth.
            expired: entries and bytes of those of its rows that have expired. They need not be
                counted for growth that is ``within`` the limits.

        Raises:
            QuotaExceeded: no row may be changed.
        """
        for limit, allowed, growth, living in (
            ("max_entries", self.max_entries, entries, self.entries - expired[0]),
            ("max_bytes", self.max_bytes, bytes, self.bytes - expired[1]),
        ):
            if allowed is not None and growth > 0 and living + growth > allowed:
                raise QuotaExceeded(limit, allowed)

    def remove(self, key: str, value_bytes: int) -> None:
        """Count a row that is gone."""
        self.entries -= 1
        self.bytes -= self.key_bytes(key) + value_bytes
