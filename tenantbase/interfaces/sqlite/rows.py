"""Commands that name their keys: computed in memory, written in a few statements.

The rows that a run of transactions names are read in one query and written at the end. So a
transaction costs no statement of its own, and one that fails leaves nothing behind.
"""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Final

from tenantbase.commands import Applied, Delete, Increment, KeyCommand, Set
from tenantbase.entry import JSON, Entry, is_json
from tenantbase.errors import InvalidRequest, NoSuchTenant, WrongType
from tenantbase.interfaces.sqlite.large_values import write_rows
from tenantbase.interfaces.sqlite.queries import STATE, key_batches
from tenantbase.interfaces.sqlite.usage import TenantUsage, Usage, expired_rows
from tenantbase.scope import ScopedKey, plain_key, tenant_of, tenants_of

MAX_DIGITS: Final = 1_000
_TOO_LARGE: Final = 10**MAX_DIGITS
_INTEGER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)")
_WHITESPACE: Final = b" \t\n\r"  # what JSON allows around a value (RFC 8259, section 2)

_LOOK_UP: Final = (
    f"SELECT key, {{}}, content_type, id, version, expires_at, created, {STATE}, length(value)"
    " FROM entries WHERE key IN ({})"
)
_INSERT: Final = """
    INSERT INTO entries (version, expires_at, id, content_type, value, created, key)
    VALUES (?, ?, ?, ?, {}, ?, ?)
"""
_UPDATE: Final = """
    UPDATE entries SET version = ?, expires_at = ?, id = ?, content_type = ?, value = {}
    WHERE created = ?
"""
_DELETE: Final = "DELETE FROM entries WHERE created = ?"
# A deleted prefix that covers only this row, with the row's own version, which no other line has.
_HIDE: Final = "INSERT INTO deleted_prefixes VALUES (?, ?, ?)"

_Changes = Mapping[str, Entry | None]  # by key; None: deleted


class Rows:
    """The rows that some transactions name, as they are and as the transactions leave them.

    Args:
        usage: counts what the transactions change.
        damaged: rows, by ``created``, that cannot be removed: deleting their keys hides them.

    Attributes:
        missing_tenants: tenants of the commands that do not exist, or no longer exist.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        now: float,
        commands: Sequence[KeyCommand],
        usage: Usage,
        damaged: Collection[int] = (),
    ) -> None:
        self._connection = connection
        self._now = now
        self._damaged = damaged
        self._entries: dict[str, Entry] = {}
        self._created: dict[str, int] = {}
        self._dead: dict[str, int] = {}
        # Bytes of the values of all rows that count: those not under a deleted prefix.
        self._sizes: dict[str, int] = {}
        self._expired_rows: dict[str, tuple[int, int]] = {}
        self._pending: dict[str, Entry | None] = {}
        self._accepted: dict[str, Entry | None] = {}
        counters = {command.key for command in commands if isinstance(command, Increment)}
        ordered = sorted(counters)
        others = sorted({command.key for command in commands} - counters)
        self._tenants: dict[str, TenantUsage] = {}
        self.missing_tenants: set[str] = set()
        names = tenants_of(others)
        if ordered:
            names |= tenants_of(ordered)
        limited = False
        for name in names:
            tenant = usage.of(name)
            if tenant is None:
                self.missing_tenants.add(name)
            else:
                self._tenants[name] = tenant
                limited = limited or tenant.limited
        self._limited = limited
        self._look_up(ordered, "value")
        # A value that is not needed may be large, and is left where it is.
        self._look_up(others, "x''")

    def _look_up(self, keys: Sequence[str], value: str) -> None:
        for marks, batch in key_batches(keys):
            query = _LOOK_UP.format(value, marks)
            for row in self._connection.execute(query, (self._now, *batch)):
                # Spelled out, because unpacking with a star creates a list for each row.
                key, found, content_type, id_, version, expires_at, created, state, size = row
                if state is not None:
                    self._sizes[key] = size
                if state:
                    self._entries[key] = Entry(key, found, content_type, id_, version, expires_at)
                    self._created[key] = created
                else:
                    self._dead[key] = created

    def check_tenants(self, transaction: Sequence[KeyCommand]) -> None:
        """Raises NoSuchTenant if a key's tenant does not exist."""
        for command in transaction:
            if (name := tenant_of(command.key)) in self.missing_tenants:
                raise NoSuchTenant(name)

    def get(self, key: str) -> Entry | None:
        """The living entry of a key, as the current transaction has left it."""
        if key in self._pending:
            entry = self._pending[key]
        elif key in self._accepted:
            entry = self._accepted[key]
        else:
            return self._entries.get(key)
        # The entry may have expired a moment before it was stored.
        return entry if entry is not None and entry.alive(self._now) else None

    def put(self, key: str, entry: Entry | None) -> None:
        """Change one key in the current transaction."""
        self._pending[key] = entry

    def accept(self) -> None:
        """The transaction succeeded: count and keep its changes.

        Raises:
            QuotaExceeded: it would take a tenant over a limit; nothing is counted or kept.
        """
        if self._limited:
            self._count(self._pending, self._accepted)
        self._accepted.update(self._pending)
        self._pending.clear()

    def _count(self, changes: _Changes, accepted: _Changes) -> None:
        """Count changes to rows that ``accepted`` has already changed.

        Raises QuotaExceeded.
        """
        if len(self._tenants) == 1:  # nearly always
            (tenant,) = self._tenants.values()
            entries, size = self._growth(tenant, changes, accepted)
            tenant.entries += entries
            tenant.bytes += size
            return
        shares: dict[str, dict[str, Entry | None]] = {}
        for key, entry in changes.items():
            shares.setdefault(tenant_of(key), {})[key] = entry
        grown = [
            (self._tenants[name], self._growth(self._tenants[name], share, accepted))
            for name, share in shares.items()
        ]
        for tenant, (entries, size) in grown:
            tenant.entries += entries
            tenant.bytes += size

    def _growth(self, tenant: TenantUsage, share: _Changes, accepted: _Changes) -> tuple[int, int]:
        """By how many entries and bytes the tenant's rows that count grow with these changes.

        Raises QuotaExceeded.
        """
        sizes = self._sizes
        entries = size = 0
        for key, entry in share.items():
            if key in accepted:
                last = accepted[key]
                before = None if last is None else len(last.value)
            else:
                before = sizes.get(key)
            if entry is not None:
                size += len(entry.value)
                if before is None:
                    entries += 1
                    size += tenant.key_bytes(key)
                else:
                    size -= before
            elif before is not None:
                entries -= 1
                size -= before + tenant.key_bytes(key)
        if not tenant.within(entries, size):  # else it need not be known what has expired
            growth = self._living_growth(tenant, share)
            tenant.check_growth(*growth, partial(self._expired, tenant))
        return entries, size

    def _living_growth(self, tenant: TenantUsage, share: _Changes) -> tuple[int, int]:
        """As ``_growth``, of what readers see."""
        entries = size = 0
        for key, entry in share.items():
            before = after = None
            if key in self._accepted:
                if (last := self._accepted[key]) is not None and last.alive(self._now):
                    before = len(last.value)
            elif key in self._entries:
                before = self._sizes[key]
            if entry is not None and entry.alive(self._now):
                after = len(entry.value)
            for sign, value in ((-1, before), (1, after)):
                if value is not None:
                    entries += sign
                    size += sign * (tenant.key_bytes(key) + value)
        return entries, size

    def _expired(self, tenant: TenantUsage) -> tuple[int, int]:
        """Entries and bytes of the tenant's rows that count but have expired."""
        if tenant.name not in self._expired_rows:
            self._expired_rows[tenant.name] = expired_rows(self._connection, tenant.name, self._now)
        entries, size = self._expired_rows[tenant.name]
        for key, entry in self._accepted.items():
            if tenant_of(key) != tenant.name:
                continue
            if key in self._dead and key in self._sizes:  # replaced
                entries -= 1
                size -= tenant.key_bytes(key) + self._sizes[key]
            if entry is not None and not entry.alive(self._now):
                entries += 1
                size += tenant.key_bytes(key) + len(entry.value)
        return entries, size

    def reject(self) -> None:
        """The transaction failed: drop its changes."""
        self._pending.clear()

    def write(self) -> None:
        """Write the last state of every changed key, and count what has not been counted yet."""
        if not self._limited:  # no transaction had to be counted on its own
            self._count(self._accepted, {})
        deleted, updated, inserted, hidden = [], [], [], []
        for key, entry in self._accepted.items():
            created = self._created.get(key)
            if entry is None:
                if created in self._damaged:
                    hidden.append((created, key, key + "\0"))
                elif created is not None:
                    deleted.append((created,))
                elif key in self._dead:  # set and deleted again
                    deleted.append((self._dead[key],))
                continue
            row = (entry.version, entry.expires_at, entry.id, entry.content_type, entry.value)
            if created is not None:
                updated.append((*row, created))
                continue
            inserted.append((*row, entry.version, key))
            if key in self._dead:
                # Insert instead of updating: the deleted prefix would still cover the old row.
                deleted.append((self._dead[key],))
        if deleted:
            self._connection.executemany(_DELETE, deleted)
        if updated:
            write_rows(self._connection, _UPDATE, updated)
        if inserted:
            write_rows(self._connection, _INSERT, inserted)
        if hidden:
            self._connection.executemany(_HIDE, hidden)


def outcome(command: KeyCommand, before: Entry | None, version: int) -> Applied:
    """The result of a command for the current entry."""
    if isinstance(command, Delete):
        return Applied(removed=0 if before is None else 1)
    content_type, expires_at = JSON, command.expires_at
    if isinstance(command, Set):
        value, content_type = command.value, command.content_type
        if command.keep_expiry and before is not None:
            expires_at = before.expires_at
    elif before is None:
        value = _sum(command.initial, command.by)
    else:
        value, content_type = _sum(_integer(before), command.by), before.content_type
        expires_at = before.expires_at if expires_at is None else expires_at
    identifier = str(uuid.uuid4()) if before is None else before.id
    return Applied(
        entry=Entry(ScopedKey(command.key), value, content_type, identifier, version, expires_at),
        created=before is None,
    )


def _integer(entry: Entry) -> int:
    text = entry.value.strip(_WHITESPACE)
    if not is_json(entry.content_type) or _INTEGER.fullmatch(text) is None:
        raise WrongType(f"the value of key {plain_key(entry.key)!r} is not an integer")
    if len(text.lstrip(b"-")) > MAX_DIGITS:
        raise WrongType(
            f"the integer of key {plain_key(entry.key)!r} has more than {MAX_DIGITS:,} digits"
        )
    return int(text)


def _sum(number: int, by: int) -> bytes:
    result = number + by
    # Compared as numbers: Python refuses to print very long ones.
    if abs(result) >= _TOO_LARGE:
        raise InvalidRequest(f"the result would have more than {MAX_DIGITS:,} digits", "by")
    return b"%d" % result
