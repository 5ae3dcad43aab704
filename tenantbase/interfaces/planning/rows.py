"""The rows that a run of transactions names, as they are and as the transactions leave them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from tenantbase.commands import MAX_RETURNED_BYTES, Delete, KeyCommand
from tenantbase.entry import Entry
from tenantbase.errors import NoSuchTenant, TooLarge
from tenantbase.interfaces.planning.usage import TenantUsage
from tenantbase.scope import tenant_of

Changes = Mapping[str, Entry | None]  # by key; None: deleted


class NamedRows:
    """The rows of some keys. Subclasses look them up.

    Args:
        now: Unix seconds; entries that have expired by then are absent.

    Attributes:
        missing_tenants: tenants of the commands that do not exist, or no longer exist.
        accepted: the last state of every key that accepted transactions have changed.
        entries, created: the living entries, and the versions that made them.
        dead: the versions that made the rows that are not living entries: they have expired, or are
            under a deleted prefix.
        sizes: bytes of the values of all rows that count: those not under a deleted prefix.
        tenants: the usage of the tenants that exist.
        returned_bytes: the size of the values that the commands delete and return. If it exceeds
            ``MAX_RETURNED_BYTES``, they were not read.
    """

    def __init__(self, now: float) -> None:
        self._now: Final = now
        self.entries: Final[dict[str, Entry]] = {}
        self.created: Final[dict[str, int]] = {}
        self.dead: Final[dict[str, int]] = {}
        self.sizes: Final[dict[str, int]] = {}
        self.tenants: Final[dict[str, TenantUsage]] = {}
        self.missing_tenants: Final[set[str]] = set()
        self.accepted: Final[dict[str, Entry | None]] = {}
        self.returned_bytes = 0
        self._limited = False
        self._expired_rows: dict[str, tuple[int, int]] = {}
        self._pending: dict[str, Entry | None] = {}

    def add_tenant(self, name: str, tenant: TenantUsage | None) -> None:
        """Add a tenant of the commands; None: it does not exist."""
        if tenant is None:
            self.missing_tenants.add(name)
        else:
            self.tenants[name] = tenant
            self._limited = self._limited or tenant.limited

    def finish(self) -> None:
        """Count what has not been counted yet."""
        if not self._limited:  # no transaction had to be counted on its own
            self._count(self.accepted, {})

    def _count_expired(self, tenant: str) -> tuple[int, int]:
        """Entries and bytes of a tenant's rows that count but have expired."""
        raise NotImplementedError

    def check_tenants(self, transaction: Sequence[KeyCommand]) -> None:
        """Raises NoSuchTenant if a key's tenant does not exist."""
        for command in transaction:
            if (name := tenant_of(command.key)) in self.missing_tenants:
                raise NoSuchTenant(name)

    def check_returned(self, transaction: Sequence[KeyCommand]) -> None:
        """Raises TooLarge if the transaction returns values that were too large to be read."""
        if self.returned_bytes > MAX_RETURNED_BYTES and any(map(returns, transaction)):
            raise TooLarge(
                f"the values to return have more than {MAX_RETURNED_BYTES:,} bytes together;"
                " nothing was deleted",
                "return_values",
            )

    def get(self, key: str) -> Entry | None:
        """The living entry of a key, as the current transaction has left it."""
        if key in self._pending:
            entry = self._pending[key]
        elif key in self.accepted:
            entry = self.accepted[key]
        else:
            return self.entries.get(key)
        # The entry may have expired a moment before it was stored.
        return entry if entry is not None and entry.alive(self._now) else None

    @property
    def all_absent(self) -> bool:
        """Whether no key has a living entry, and no transaction has changed any yet."""
        return not (self.entries or self.accepted or self._pending)

    def put(self, key: str, entry: Entry | None) -> None:
        """Change one key in the current transaction."""
        self._pending[key] = entry

    def put_all(self, entries: Iterable[Entry]) -> None:
        """Change the keys of these entries in the current transaction."""
        self._pending.update({entry.key: entry for entry in entries})

    def accept(self) -> None:
        """The transaction succeeded: count and keep its changes.

        Raises:
            QuotaExceeded: it would take a tenant over a limit; nothing is counted or kept.
        """
        if self._limited:
            self._count(self._pending, self.accepted)
        self.accepted.update(self._pending)
        self._pending.clear()

    def _count(self, changes: Changes, accepted: Changes) -> None:
        """Count changes to rows that ``accepted`` has already changed.

        Raises QuotaExceeded.
        """
        if len(self.tenants) == 1:  # nearly always
            (tenant,) = self.tenants.values()
            entries, size = self._growth(tenant, changes, accepted)
            tenant.entries += entries
            tenant.bytes += size
            return
        shares: dict[str, dict[str, Entry | None]] = {}
        for key, entry in changes.items():
            shares.setdefault(tenant_of(key), {})[key] = entry
        grown = [
            (self.tenants[name], self._growth(self.tenants[name], share, accepted))
            for name, share in shares.items()
        ]
        for tenant, (entries, size) in grown:
            tenant.entries += entries
            tenant.bytes += size

    def _growth(self, tenant: TenantUsage, share: Changes, accepted: Changes) -> tuple[int, int]:
        """By how many entries and bytes the tenant's rows that count grow with these changes.

        Raises QuotaExceeded.
        """
        entries, size = self._row_growth(tenant, share, accepted)
        if not tenant.within(entries, size):  # else it need not be known what has expired
            tenant.check_growth(*self._living_growth(tenant, share), self._expired_usage(tenant))
        return entries, size

    def _row_growth(
        self, tenant: TenantUsage, share: Changes, accepted: Changes
    ) -> tuple[int, int]:
        sizes = self.sizes
        if not (sizes or accepted):  # all rows are new, as in most imports
            added = {key: entry for key, entry in share.items() if entry is not None}
            values = sum([len(entry.value) for entry in added.values()])
            return len(added), tenant.keys_bytes(added) + values
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
        return entries, size

    def _living_growth(self, tenant: TenantUsage, share: Changes) -> tuple[int, int]:
        """As ``_growth``, of what readers see."""
        entries = size = 0
        for key, entry in share.items():
            before = after = None
            if key in self.accepted:
                if (last := self.accepted[key]) is not None and last.alive(self._now):
                    before = len(last.value)
            elif key in self.entries:
                before = self.sizes[key]
            if entry is not None and entry.alive(self._now):
                after = len(entry.value)
            for sign, value in ((-1, before), (1, after)):
                if value is not None:
                    entries += sign
                    size += sign * (tenant.key_bytes(key) + value)
        return entries, size

    def _expired_usage(self, tenant: TenantUsage) -> tuple[int, int]:
        """Entries and bytes of the tenant's rows that count but have expired."""
        if tenant.name not in self._expired_rows:
            self._expired_rows[tenant.name] = self._count_expired(tenant.name)
        entries, size = self._expired_rows[tenant.name]
        for key, entry in self.accepted.items():
            if tenant_of(key) != tenant.name:
                continue
            if key in self.dead and key in self.sizes:  # replaced
                entries -= 1
                size -= tenant.key_bytes(key) + self.sizes[key]
            if entry is not None and not entry.alive(self._now):
                entries += 1
                size += tenant.key_bytes(key) + len(entry.value)
        return entries, size

    def reject(self) -> None:
        """The transaction failed: drop its changes."""
        self._pending.clear()


def returns(command: KeyCommand) -> bool:
    """Whether the result has the value that the command removes."""
    return isinstance(command, Delete) and command.returned
