"""How many entries and bytes each tenant has, counted in the transaction that changes them.

``planning/usage.py`` says what counts.
"""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

from tenantbase.interfaces.planning.usage import TenantUsage
from tenantbase.interfaces.sqlite.queries import DELETED, snapshot
from tenantbase.listing import prefix_range
from tenantbase.scope import Scope, start_bytes

_TENANT: Final = "SELECT entries, bytes, max_entries, max_bytes FROM tenants WHERE name = ?"
_UPDATE: Final = "UPDATE tenants SET entries = ?, bytes = ? WHERE name = ?"
SUMS: Final = "count(*), coalesce(sum(length(CAST(key AS BLOB)) + length(value)), 0)"
"""Entries, and the bytes of their scoped keys and values. The caller subtracts what comes before the plain
keys. SQLite knows the length of a value without reading it."""

_EXPIRED: Final = (
    f"SELECT {SUMS} FROM entries INDEXED BY entries_expiry"
    f" WHERE expires_at <= ? AND key >= ? AND key < ? AND NOT {DELETED}"
)
_TENANTS: Final = "SELECT name, entries, bytes FROM tenants"
_RECOUNT: Final = f"""
    SELECT substr(key, 1, instr(key, '/') - 1), count(*),
        sum(length(CAST(key AS BLOB)) - instr(key, '/') + length(value))
    FROM entries WHERE NOT {DELETED} AND typeof(key) = 'text' GROUP BY 1
"""


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


def correct(connection: sqlite3.Connection) -> None:
    """Make the usage of all tenants that of their rows. Called while nobody else writes."""
    for each in recount(connection):
        connection.execute(_UPDATE, (*each.counted, each.name))


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
