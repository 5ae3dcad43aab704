"""How many entries and bytes each tenant has, counted in the transaction that changes them.

Every row that is not under a deleted prefix counts, with its value and its plain key. An expired row
counts until it is swept or replaced, although readers do not see it. Limits apply to what readers
see, so if a write seems to exceed one, the tenant's expired rows are subtracted first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final, NamedTuple

from tenantbase.errors import QuotaExceeded
from tenantbase.interfaces.sqlite.queries import DELETED, snapshot
from tenantbase.listing import prefix_range
from tenantbase.scope import Scope, start_bytes

_TENANT: Final = "SELECT entries, bytes, max_entries, max_bytes FROM tenants WHERE name = ?"
_UPDATE: Final = "UPDATE tenants SET entries = ?, bytes = ? WHERE name = ?"
# Bytes of scoped keys: the caller subtracts what comes before the plain ones. The length of a value
# is known without reading it.
_SUM: Final = (
    "SELECT count(*), coalesce(sum(length(CAST(key AS BLOB)) + length(value)), 0) FROM entries"
)
_IN_RANGE: Final = f"{_SUM} WHERE key >= ? AND key < ? AND NOT {DELETED}"
_EXPIRED: Final = (
    f"{_SUM} INDEXED BY entries_expiry"
    f" WHERE expires_at <= ? AND key >= ? AND key < ? AND NOT {DELETED}"
)
_TENANTS: Final = "SELECT name, entries, bytes FROM tenants"
_RECOUNT: Final = f"""
    SELECT substr(key, 1, instr(key, '/') - 1), count(*),
        sum(length(CAST(key AS BLOB)) - instr(key, '/') + length(value))
    FROM entries WHERE NOT {DELETED} GROUP BY 1
"""


class TenantUsage:
    """The usage of one tenant, as the current SQLite transaction has left it, and its limits.

    Attributes:
        entries, bytes: of its rows, expired ones included.
        max_entries, max_bytes: its limits; None: no limit.
    """

    __slots__ = (
        "name",
        "entries",
        "bytes",
        "max_entries",
        "max_bytes",
        "limited",
        "_stored",
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
        self._stored = entries, bytes
        self._start_bytes = start_bytes(name)

    @property
    def changed(self) -> bool:
        """Whether it differs from what is stored."""
        return (self.entries, self.bytes) != self._stored

    def key_bytes(self, key: str) -> int:
        """The size of the plain key of one of its scoped keys."""
        return (len(key) if key.isascii() else len(key.encode())) - self._start_bytes

    def within(self, entries: int, bytes: int) -> bool:
        """Whether its rows could grow by so many entries and bytes, if expired ones took room."""
        return (self.max_entries is None or self.entries + entries <= self.max_entries) and (
            self.max_bytes is None or self.bytes + bytes <= self.max_bytes
        )

    def check_growth(
        self, entries: int, bytes: int, expired: Callable[[], tuple[int, int]]
    ) -> None:
        """Refuse growth of what readers see that takes it over a limit.

        What does not grow passes even above the limit.

        Args:
            entries, bytes: the growth.
            expired: gives the entries and bytes of those of its rows that have expired. Called only
                if the growth is not ``within`` the limits.

        Raises:
            QuotaExceeded: no row may be changed.
        """
        if self.within(entries, bytes):
            return
        expired_entries, expired_bytes = expired()
        for limit, allowed, growth, living in (
            ("max_entries", self.max_entries, entries, self.entries - expired_entries),
            ("max_bytes", self.max_bytes, bytes, self.bytes - expired_bytes),
        ):
            if allowed is not None and growth > 0 and living + growth > allowed:
                raise QuotaExceeded(limit, allowed)

    def remove(self, key: str, value_bytes: int) -> None:
        """Count a row that is gone."""
        self.entries -= 1
        self.bytes -= self.key_bytes(key) + value_bytes


class Usage:
    """The usage of the tenants that one SQLite transaction concerns."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tenants: dict[str, TenantUsage | None] = {}

    def of(self, name: str) -> TenantUsage | None:
        """The usage of a tenant; None: there is no such tenant."""
        try:
            return self._tenants[name]
        except KeyError:
            row = self._connection.execute(_TENANT, (name,)).fetchone()
            found = self._tenants[name] = None if row is None else TenantUsage(name, *row)
            return found

    def settle(self) -> None:
        """Write what has changed, and forget it: from now on, the table may be changed directly."""
        for tenant in self._tenants.values():
            if tenant is not None and tenant.changed:
                self._connection.execute(_UPDATE, (tenant.entries, tenant.bytes, tenant.name))
        self._tenants.clear()


def rows_under(connection: sqlite3.Connection, tenant: str, prefix: str) -> tuple[int, int]:
    """Entries and bytes of a tenant's rows under a scoped prefix, expired ones included."""
    return _plain(connection.execute(_IN_RANGE, prefix_range(prefix)).fetchone(), tenant)


def expired_rows(connection: sqlite3.Connection, tenant: str, now: float) -> tuple[int, int]:
    """Entries and bytes of a tenant's rows that have expired and still count."""
    row = connection.execute(_EXPIRED, (now, *prefix_range(Scope(tenant).start))).fetchone()
    return _plain(row, tenant)


def _plain(row: tuple[int, int], tenant: str) -> tuple[int, int]:
    entries, size = row
    return entries, size - entries * start_bytes(tenant)


class Mismatch(NamedTuple):
    """A tenant whose stored usage is not that of its rows.

    Attributes:
        stored, counted: entries and bytes. Stored ones of a tenant that does not exist are 0.
    """

    name: str
    stored: tuple[int, int]
    counted: tuple[int, int]


def recount(connection: sqlite3.Connection) -> list[Mismatch]:
    """Compare the usage of all tenants with their rows. Reads every row, but no large values."""
    with snapshot(connection):
        stored = {name: (entries, size) for name, entries, size in connection.execute(_TENANTS)}
        counted = {name: (entries, size) for name, entries, size in connection.execute(_RECOUNT)}
    none = (0, 0)
    return [
        Mismatch(name, stored.get(name, none), counted.get(name, none))
        for name in sorted(stored.keys() | counted.keys())
        if stored.get(name, none) != counted.get(name, none)
    ]
