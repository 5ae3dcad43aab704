"""Touch and rename: what they find, and whether they are carried out.

These commands leave the value in the database: values may be large, and many such commands queued.
"""

from __future__ import annotations

from typing import NamedTuple

from tenantbase.commands import InPlaceCommand, Rename
from tenantbase.entry import Entry
from tenantbase.errors import ConditionFailed, NoSuchKey, QuotaExceeded
from tenantbase.interfaces.planning.usage import TenantUsage
from tenantbase.scope import ScopedKey, plain_key


class Row(NamedTuple):
    """A row, without its value.

    Attributes:
        state: None for a row under a deleted prefix, which does not count; 0 for one that has
            expired; 1 for an entry.
    """

    created: int
    state: int | None
    size: int
    content_type: str
    id: str
    version: int
    expires_at: float | None

    def entry(self, key: str, identifier: str, version: int, expires_at: float | None) -> Entry:
        """What the row becomes, with its value left out."""
        return Entry(ScopedKey(key), b"", self.content_type, identifier, version, expires_at)


def living(row: Row | None) -> Row | None:
    """The row if it is an entry."""
    return row if row is not None and row.state else None


def source_of(command: InPlaceCommand, row: Row | None) -> Row:
    """The entry that a command is about.

    Raises:
        NoSuchKey, ConditionFailed: nothing is to be done.
    """
    found = living(row)
    version = None if found is None else found.version
    if command.condition is not None and not command.condition.holds(version):
        raise ConditionFailed(plain_key(command.key), version)
    if found is None:
        raise NoSuchKey()
    return found


class Growth(NamedTuple):
    """By how many entries, and bytes of keys and values, readers see more."""

    entries: int
    bytes: int


def growth_of(tenant: TenantUsage, command: Rename, source: Row, target: Row | None) -> Growth:
    """What a rename adds.

    Raises:
        ConditionFailed: there is an entry at the target, and it may not be replaced.
    """
    replaced = living(target)
    if replaced is not None and not command.replace:
        raise ConditionFailed(plain_key(command.to), replaced.version)
    entries = (replaced is None) - (not command.copy)
    size = tenant.key_bytes(command.to) + source.size
    if not command.copy:
        size -= tenant.key_bytes(command.key) + source.size
    if replaced is not None:
        size -= tenant.key_bytes(command.to) + replaced.size
    return Growth(entries, size)


def check_limits(tenant: TenantUsage, growth: Growth, expired: tuple[int, int]) -> None:
    """Refuse what takes a tenant, as readers see it, over a limit.

    Args:
        expired: entries and bytes of its rows that have expired and still count.

    Raises:
        QuotaExceeded: nothing is to be done.
    """
    for limit, allowed, more, would_be in (
        ("max_entries", tenant.max_entries, growth.entries, tenant.entries - expired[0]),
        ("max_bytes", tenant.max_bytes, growth.bytes, tenant.bytes - expired[1]),
    ):
        if allowed is not None and more > 0 and would_be + more > allowed:
            raise QuotaExceeded(limit, allowed)
