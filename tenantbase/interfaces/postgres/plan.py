"""Works out a group before the lock is taken: from rows that may be old, which the server checks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, cast

from msgspec.structs import replace

from tenantbase.commands import Applied, Increment, Transaction
from tenantbase.entry import Entry
from tenantbase.interfaces.planning.change_log import ChangeLog, Line
from tenantbase.interfaces.planning.named import NamedTransaction, Outcome, apply_named
from tenantbase.interfaces.planning.rows import NamedRows, returns
from tenantbase.interfaces.planning.usage import TenantUsage


class ExpiredNeeded(Exception):
    """Whether a limit is exceeded depends on how many of a tenant's rows have expired."""

    def __init__(self, tenant: str) -> None:
        super().__init__(tenant)
        self.tenant = tenant


class Effects:
    """What a run of transactions does to the tables: the parameters of ``write_rows``.

    Attributes:
        deleted: keys whose rows are removed.
        put: rows as they become: the key, which of the run's changes it is, the position that
            created it (None: this change), and the entry.
        grown: by how many entries and bytes tenants grow.
        lines: of the change log, with positions as planned.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        self.deleted: list[str] = []
        self.put: list[tuple[int, int | None, Entry]] = []
        self.grown: list[tuple[str, int, int]] = []
        self.lines: Final = lines

    def arguments(self) -> tuple[list[Any], ...]:
        """The parameters of ``write_rows`` after the first."""
        entries = [entry for _, _, entry in self.put]
        return (
            self.deleted,
            [entry.key for entry in entries],
            [offset for offset, _, _ in self.put],
            [created for _, created, _ in self.put],
            [entry.expires_at for entry in entries],
            [entry.id for entry in entries],
            [entry.content_type for entry in entries],
            [entry.value for entry in entries],
            *_columns(self.grown, 3),
            *_columns([line[1:] for line in self.lines], 5),
        )


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    return [[row[at] for row in rows] for at in range(count)]


class PlannedRows(NamedRows):
    """The rows that some transactions name, as they were looked up.

    Args:
        looked_up: rows of ``queries.LOOK_UP``.
        tenants: of all the keys; None: there is no such tenant.
        returned: keys whose values are returned.
        expired: entries and bytes of the tenants' rows that have expired, as far as they are known.

    Attributes:
        versions: of all rows, by key.
    """

    def __init__(
        self,
        now: float,
        looked_up: Sequence[Any],
        tenants: Mapping[str, TenantUsage | None],
        returned: Collection[str],
        expired: Mapping[str, tuple[int, int]],
    ) -> None:
        super().__init__(now)
        self.versions: dict[str, int] = {}
        self._expired = expired
        for name, usage in tenants.items():
            self.add_tenant(name, usage)
        for row in looked_up:
            key, value, content_type, id_, version, expires_at, created, state, size = row
            if key is None:
                continue
            self.versions[key] = version
            if key in returned:
                self.returned_bytes += size
            if state is not None:
                self.sizes[key] = size
            if state:
                self.entries[key] = Entry(key, value, content_type, id_, version, expires_at)
                self.created[key] = created
            else:
                self.dead[key] = created

    def effects(self, base: int, lines: Sequence[Line]) -> Effects:
        """What is to be written, if the last position was ``base``."""
        self.finish()
        effects = Effects(lines)
        for key, entry in self.accepted.items():
            created = self.created.get(key)
            if entry is not None:
                effects.put.append((entry.version - base, created, entry))
            elif created is not None or key in self.dead:
                effects.deleted.append(key)
        for name, tenant in self.tenants.items():
            if tenant.changed:
                effects.grown.append((name, *tenant.growth))
        return effects

    def alive_until(self) -> float | None:
        """When the first of the living entries expires."""
        ends = [e.expires_at for e in self.entries.values() if e.expires_at is not None]
        return min(ends, default=None)

    def _count_expired(self, tenant: str) -> tuple[int, int]:
        try:
            return self._expired[tenant]
        except KeyError:
            raise ExpiredNeeded(tenant) from None


class Plan:
    """A run of transactions, worked out.

    Attributes:
        outcomes: of each transaction, with positions counted from ``base``.
        effects: what it does to the tables.
    """

    def __init__(self, transactions: Sequence[Transaction], rows: PlannedRows, base: int) -> None:
        named = cast("Sequence[NamedTransaction]", transactions)
        change_log = ChangeLog(base)
        self.rows: Final = rows
        self.base: Final = base
        self.outcomes: Final = apply_named(change_log, rows, named)
        self.effects: Final = rows.effects(base, change_log.lines)

    def outcomes_from(self, base: int) -> list[Outcome]:
        """The outcomes if the last position was this one instead."""
        more = base - self.base
        if not more:
            return self.outcomes
        return [
            each if isinstance(each, Exception) else tuple(_moved(one, more) for one in each)
            for each in self.outcomes
        ]


def _moved(applied: Applied, more: int) -> Applied:
    entry = applied.entry
    if entry is None:
        return applied
    return replace(applied, entry=replace(entry, version=entry.version + more))


def keys_of(transactions: Sequence[Transaction]) -> tuple[list[str], list[str], list[str]]:
    """The keys that transactions name, those whose values are needed, and those whose values are
    returned."""
    keys: set[str] = set()
    counters: set[str] = set()
    returned: set[str] = set()
    for transaction in transactions:
        for command in cast("NamedTransaction", transaction):
            keys.add(command.key)
            if isinstance(command, Increment):
                counters.add(command.key)
            elif returns(command):
                returned.add(command.key)
    return sorted(keys), sorted(counters), sorted(returned)


def depends_on_base(transactions: Sequence[Transaction]) -> bool:
    """Whether an outcome may depend on versions that the group itself gives out, because a transaction
    has a condition on a key that another one names, or returns its entry."""
    if len(transactions) < 2:
        return False
    users: dict[str, int] = {}
    conditional: set[str] = set()
    for at, transaction in enumerate(transactions):
        for command in cast("NamedTransaction", transaction):
            if users.setdefault(command.key, at) != at:
                users[command.key] = -1
            if command.condition is not None or returns(command):
                conditional.add(command.key)
    return any(users[key] < 0 for key in conditional)
