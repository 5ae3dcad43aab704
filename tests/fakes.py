"""Named fakes: an in-memory store that fails on demand, pending writes, a recording seqlock."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import msgspec

from tenantbase.access import Access, Tenant, TenantLimits, Token
from tenantbase.commands import (
    MAX_RETURNED_BYTES,
    AdminCommand,
    Applied,
    Command,
    CreateToken,
    Delete,
    DeletePrefix,
    DeleteTenant,
    DisableTokens,
    Increment,
    KeyCommand,
    PutTenant,
    Rename,
    RevokeToken,
    Set,
    Sweep,
    Touch,
    Transaction,
)
from tenantbase.entry import JSON, Entry, is_json
from tenantbase.errors import (
    ConditionFailed,
    InvalidRequest,
    NoSuchKey,
    NoSuchTenant,
    OutcomeUnknown,
    QuotaExceeded,
    StoreError,
    StoreUnavailable,
    TenantbaseError,
    TenantRequired,
    TooLarge,
    WrongType,
)
from tenantbase.events import ChangeEvent, EventKind
from tenantbase.interfaces.store import GroupResult, PendingWrite, Seqlock, StoreSize, Ticket
from tenantbase.listing import EntryMeta, Folded, KeyRange
from tenantbase.plain_entries import Render
from tenantbase.scope import ScopedKey, plain_key, tenant_of
from tenantbase.troubles import Trouble


class Granted:
    """A pending write that the store may always start."""

    def __init__(self, *changes: Command) -> None:
        self.transaction: Transaction = changes

    def try_start(self) -> bool:
        return True


class Withdrawn(Granted):
    """A pending write that its caller has withdrawn."""

    def try_start(self) -> bool:
        return False


class RecordingSeqlock:
    """Records its calls: "lock", a write's keys (None: all), "commit" or "roll_back", "unlock"."""

    def __init__(self) -> None:
        self.told: list[object] = []

    @contextmanager
    def lock(self) -> Iterator[None]:
        self.told.append("lock")
        yield
        self.told.append("unlock")

    def begin_write(self, keys: Collection[str] | None) -> object:
        assert self.told[-1] == "lock"
        self.told.append(keys if keys is None else set(keys))
        return object()

    def commit(self, ticket: object) -> None:
        self.told.append("commit")

    def roll_back(self, ticket: object) -> None:
        self.told.append("roll_back")


@dataclass
class Tables:
    """The state that a FakeStore would have on disk."""

    entries: dict[str, Entry] = field(default_factory=dict)
    log: list[ChangeEvent] = field(default_factory=list)
    version: int = 0
    secret: bytes = b"\x07" * 32
    limits: dict[str, TenantLimits] = field(default_factory=lambda: {"default": TenantLimits()})
    tokens: dict[bytes, Token] = field(default_factory=dict)
    access_version: int = 1
    closed: bool = False

    def copy(self) -> Tables:
        return replace(
            self,
            entries=dict(self.entries),
            log=list(self.log),
            limits=dict(self.limits),
            tokens=dict(self.tokens),
        )

    def record(self, kind: EventKind, key: str) -> int:
        self.version += 1
        self.log.append(ChangeEvent(self.version, kind, key))
        return self.version

    def store(self, entry: Entry) -> Entry:
        """The same entry with the next version, stored and recorded."""
        self.version += 1
        stored = msgspec.structs.replace(entry, version=self.version)
        details = len(entry.value), entry.content_type, entry.expires_at
        self.log.append(ChangeEvent(self.version, EventKind.SET, entry.key, *details))
        self.entries[entry.key] = stored
        return stored


class FakeStore:
    """A store in memory that fails with the errors set in its attributes.

    Attributes:
        read_error: raised by all reads.
        write_error: the outcome of every member of a group. An OutcomeUnknown leaves the write
            begun on the seqlock, and the store takes no more writes.
        check_error: raised by ``check``.
    """

    def __init__(
        self, tables: Tables, *, change_log_size: int = 65_536, one_by_one: int = 1_000
    ) -> None:
        self._tables = tables
        self._log_size = change_log_size
        self._one_by_one = one_by_one
        self._open = True
        self.read_error: TenantbaseError | None = None
        self.write_error: TenantbaseError | None = None
        self.check_error: TenantbaseError | None = None

    @property
    def secret(self) -> bytes:
        return self._tables.secret

    troubles: Sequence[Trouble] = ()

    async def read(self, keys: Sequence[str], now: float) -> list[Entry | None | StoreError]:
        entries = self._living(now)
        return [entries.get(key) for key in keys]

    async def scan(
        self,
        wanted: KeyRange,
        limit: int,
        max_bytes: int,
        now: float,
        render: Render | None = None,
    ) -> tuple[list[Entry | Folded], bool]:
        found = self._listed(wanted, now)
        piece: list[Entry | Folded] = []
        size = 0
        for item in found[:limit]:
            piece.append(item)
            if isinstance(item, Entry):
                size += len(item.value)
                if size >= max_bytes:
                    return piece, True
        return piece, len(found) > limit

    async def scan_meta(
        self, wanted: KeyRange, limit: int, now: float
    ) -> tuple[list[EntryMeta | Folded], bool]:
        found, more = await self.scan(wanted, limit, 1 << 62, now)
        return [item if isinstance(item, Folded) else _meta(item) for item in found], more

    def counting(self, prefix: str, now: float) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def count(
        self, wanted: KeyRange, limit: int, now: float
    ) -> tuple[int, int, ScopedKey | None]:
        plain = KeyRange(wanted.prefix, wanted.start, wanted.end)
        found = [item for item in self._listed(plain, now) if isinstance(item, Entry)][:limit]
        size = sum(len(entry.key.encode()) + len(entry.value) for entry in found)
        return len(found), size, found[-1].key if len(found) == limit else None

    def _listed(self, wanted: KeyRange, now: float) -> list[Entry | Folded]:
        """By the rules as the contract states them, from all keys."""
        items: dict[str, Entry | Folded] = {}
        for key, entry in sorted(self._living(now).items(), reverse=wanted.descending):
            if not key.startswith(wanted.prefix) or key < wanted.start:
                continue
            if wanted.end and key >= wanted.end:
                continue
            name, found, _ = key[len(wanted.prefix) :].partition(wanted.delimiter or "\0")
            if found:
                folded = ScopedKey(wanted.prefix + name + found)
                items.setdefault(folded, Folded(folded))
            else:
                items[key] = entry
        return list(items.values())

    async def write(
        self, group: Sequence[PendingWrite], now: float, seqlock: Seqlock[Ticket]
    ) -> GroupResult[Ticket]:
        if not self._open:
            self.write_error = StoreUnavailable("closed")
        with seqlock.lock():
            if self.write_error is not None and not isinstance(self.write_error, OutcomeUnknown):
                return GroupResult([self.write_error for _ in group], None)
            tables, outcomes, events = self._apply_group(group, now)
            ticket = None
            if events:
                everything = any(event.kind is EventKind.RESET for event in events)
                ticket = seqlock.begin_write(
                    None if everything else {event.key for event in events}
                )
            if self.write_error is not None:
                unknown, self.write_error = self.write_error, StoreUnavailable("no more writes")
                self.check_error = self.write_error
                return GroupResult([unknown for _ in group], None)
            self._tables.__dict__.update(tables.__dict__)
            if ticket is not None:
                seqlock.commit(ticket)
            return GroupResult(outcomes, ticket)

    def _apply_group(
        self, group: Sequence[PendingWrite], now: float
    ) -> tuple[Tables, list[tuple[Applied, ...] | TenantbaseError | None], list[ChangeEvent]]:
        """The tables after a group, the outcomes, and what changed. Nothing is stored yet."""
        tables = self._tables.copy()
        first = tables.version
        outcomes: list[tuple[Applied, ...] | TenantbaseError | None] = []
        for pending in group:
            if not pending.try_start():
                outcomes.append(None)
                continue
            attempt = tables.copy()
            try:
                outcomes.append(self._apply(attempt, pending.transaction, now))
                tables = attempt
            except TenantbaseError as error:
                outcomes.append(error)
        return tables, outcomes, [event for event in tables.log if event.version > first]

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        self._living(0.0)
        log = self._tables.log
        oldest = log[0].version if log else 1
        if not oldest - 1 <= after <= self._tables.version:
            return [], False
        return [event for event in log if event.version > after][:limit], True

    async def last_version(self) -> int:
        self._living(0.0)
        return self._tables.version

    async def access(self, known: int | None) -> Access | None:
        self._living(0.0)
        tables = self._tables
        if tables.access_version == known:
            return None
        tenants = {
            name: Tenant(name, *_usage(tables.entries, name), limits)
            for name, limits in sorted(tables.limits.items())
        }
        return Access(tables.access_version, tables.closed, tenants, dict(tables.tokens))

    async def size(self) -> StoreSize:
        self._living(0.0)
        used = [_usage(self._tables.entries, name) for name in self._tables.limits]
        return StoreSize(
            sum(entries for entries, _ in used), sum(size for _, size in used), 0, 0, None
        )

    async def check(self) -> None:
        self._living(0.0)
        if self.check_error is not None:
            raise self.check_error

    async def close(self) -> None:
        self._open = False

    def _living(self, now: float) -> dict[str, Entry]:
        if not self._open:
            raise StoreUnavailable("closed")
        if self.read_error is not None:
            raise self.read_error
        return {key: entry for key, entry in self._tables.entries.items() if entry.alive(now)}

    def _apply(self, tables: Tables, transaction: Transaction, now: float) -> tuple[Applied, ...]:
        match transaction:
            case (DeletePrefix(prefix=prefix),):
                return (self._delete_prefix(tables, prefix, now),)
            case (Sweep(limit=limit),):
                _remove_expired_tokens(tables, now)
                return (self._sweep(tables, limit, now),)
            case (command,) if isinstance(command, AdminCommand):
                return (_administer(tables, command),)
            case (Touch() | Rename() as command,):
                return (self._change_in_place(tables, command, now),)
        for change in transaction:
            if not isinstance(change, KeyCommand):
                raise InvalidRequest("a transaction of its own")
            if tenant_of(change.key) not in tables.limits:
                raise NoSuchTenant(tenant_of(change.key))
        for change in transaction:
            assert isinstance(change, KeyCommand)
            before = _alive(tables.entries.get(change.key), now)
            version = None if before is None else before.version
            if change.condition is not None and not change.condition.holds(version):
                raise ConditionFailed(plain_key(change.key), version)
        returned = [each.key for each in transaction if isinstance(each, Delete) and each.returned]
        stored = [entry for key in returned if (entry := _alive(tables.entries.get(key), now))]
        if sum(len(entry.value) for entry in stored) > MAX_RETURNED_BYTES:
            raise TooLarge("the values to return are too large", "return_values")
        earlier = tables.copy()
        applied = tuple(self._change(tables, change, now) for change in transaction)
        for name, limits in tables.limits.items():
            _check_limits(earlier, tables, name, limits, now)
        return applied

    def _change(self, tables: Tables, change: Command, now: float) -> Applied:
        assert isinstance(change, Set | Delete | Increment)
        before = _alive(tables.entries.get(change.key), now)
        if isinstance(change, Delete):
            if before is None:
                return Applied()
            del tables.entries[change.key]
            tables.record(EventKind.DELETE, change.key)
            return Applied(removed=1, before=before if change.returned else None)
        expires_at, content_type = change.expires_at, JSON
        if isinstance(change, Set):
            value, content_type = change.value, change.content_type
            if change.keep_expiry and before is not None:
                expires_at = before.expires_at
        elif before is None:
            value = _digits(change.initial + change.by)
        else:
            if not is_json(before.content_type):
                raise WrongType("not JSON")
            if re.fullmatch(rb"\s*-?(0|[1-9]\d{0,999})\s*", before.value) is None:
                raise WrongType("not an integer")
            value = _digits(int(before.value) + change.by)
            content_type = before.content_type
            expires_at = before.expires_at if expires_at is None else expires_at
        identifier = str(uuid.uuid4()) if before is None else before.id
        entry = Entry(ScopedKey(change.key), value, content_type, identifier, 0, expires_at)
        return Applied(entry=tables.store(entry), created=before is None)

    def _change_in_place(self, tables: Tables, change: Touch | Rename, now: float) -> Applied:
        tenant = tenant_of(change.key)
        if tenant not in tables.limits:
            raise NoSuchTenant(tenant)
        entry = _alive(tables.entries.get(change.key), now)
        version = None if entry is None else entry.version
        if change.condition is not None and not change.condition.holds(version):
            raise ConditionFailed(plain_key(change.key), version)
        if entry is None:
            raise NoSuchKey()
        earlier = tables.copy()
        if isinstance(change, Touch):
            entry = tables.store(msgspec.structs.replace(entry, expires_at=change.expires_at))
            created = False
        else:
            target = _alive(tables.entries.get(change.to), now)
            if target is not None and not change.replace:
                raise ConditionFailed(plain_key(change.to), target.version)
            if not change.copy:
                del tables.entries[change.key]
                tables.record(EventKind.DELETE, change.key)
            created = target is None
            identifier = str(uuid.uuid4()) if target is None else target.id
            moved = msgspec.structs.replace(entry, key=ScopedKey(change.to), id=identifier)
            entry = tables.store(moved)
        _check_limits(earlier, tables, tenant, tables.limits[tenant], now)
        return Applied(entry=msgspec.structs.replace(entry, value=b""), created=created)

    def _delete_prefix(self, tables: Tables, prefix: str, now: float) -> Applied:
        if tenant_of(prefix) not in tables.limits:
            return Applied()
        keys = [key for key in sorted(tables.entries) if key.startswith(prefix)]
        living = [key for key in keys if tables.entries[key].alive(now)]
        if len(living) > self._one_by_one:
            tables.record(EventKind.RESET, prefix)
            for key in keys:
                del tables.entries[key]
        else:
            for key in living:
                del tables.entries[key]
                tables.record(EventKind.DELETE, key)
        return Applied(removed=len(living))

    def _sweep(self, tables: Tables, limit: int, now: float) -> Applied:
        surplus = len(tables.log) - max(self._log_size, 1)
        expired = [entry for entry in tables.entries.values() if not entry.alive(now)]
        expired = sorted(expired, key=lambda entry: entry.expires_at or 0.0)[:limit]
        for entry in expired:
            del tables.entries[entry.key]
            tables.record(EventKind.EXPIRE, entry.key)
        trimmed = max(0, min(surplus, limit - len(expired)))
        del tables.log[:trimmed]
        return Applied(removed=len(expired) + trimmed, expired=len(expired))


def _meta(entry: Entry) -> EntryMeta:
    return EntryMeta(
        entry.key,
        len(entry.value),
        entry.content_type,
        entry.id,
        entry.version,
        entry.expires_at,
    )


def _usage(entries: Mapping[str, Entry], tenant: str) -> tuple[int, int]:
    """How many of the entries are the tenant's, and the bytes of their plain keys and values."""
    sizes = [
        len(plain_key(key).encode()) + len(entry.value)
        for key, entry in entries.items()
        if tenant_of(key) == tenant
    ]
    return len(sizes), sum(sizes)


def _check_limits(
    before: Tables, after: Tables, name: str, limits: TenantLimits, now: float
) -> None:
    old, new = (
        _usage({key: entry for key, entry in tables.entries.items() if entry.alive(now)}, name)
        for tables in (before, after)
    )
    for limit, allowed, was, would_be in (
        ("max_entries", limits.max_entries, old[0], new[0]),
        ("max_bytes", limits.max_bytes, old[1], new[1]),
    ):
        if allowed is not None and would_be > allowed and would_be > was:
            raise QuotaExceeded(limit, allowed)


def _remove_expired_tokens(tables: Tables, now: float) -> None:
    week = 7 * 86_400
    ends = {digest: token.expires_at for digest, token in tables.tokens.items()}
    for digest, end in ends.items():
        if end is not None and end + week <= now:
            del tables.tokens[digest]
            tables.access_version += 1


def _administer(tables: Tables, command: AdminCommand) -> Applied:
    before = tables.limits.copy(), tables.tokens.copy(), tables.closed
    applied = _change_access(tables, command)
    tables.access_version += before != (tables.limits, tables.tokens, tables.closed)
    return applied


def _change_access(tables: Tables, command: AdminCommand) -> Applied:
    match command:
        case PutTenant(name=name):
            created = name not in tables.limits
            given = {
                field: value
                for field in TenantLimits.__struct_fields__
                if (value := getattr(command, field)) is not msgspec.UNSET
            }
            old = tables.limits.get(name, TenantLimits())
            tables.limits[name] = msgspec.structs.replace(old, **given)
            return Applied(created=created)
        case DeleteTenant(name=name):
            if name == "default":
                raise TenantRequired("required")
            if name not in tables.limits:
                return Applied()
            del tables.limits[name]
            kept = {d: token for d, token in tables.tokens.items() if token.tenant != name}
            tables.tokens = kept
            tables.record(EventKind.RESET, f"{name}/")
            for key in [key for key in tables.entries if tenant_of(key) == name]:
                del tables.entries[key]
            return Applied(removed=1)
        case CreateToken(token=token, digest=digest):
            if token.tenant is not None and token.tenant not in tables.limits:
                raise NoSuchTenant(token.tenant)
            if digest in tables.tokens or token.id in {t.id for t in tables.tokens.values()}:
                raise InvalidRequest("the token exists", "id")
            tables.tokens[digest] = token
            tables.closed = True
            return Applied(created=True)
        case RevokeToken(id=identifier):
            kept = {d: token for d, token in tables.tokens.items() if token.id != identifier}
        case DisableTokens():
            kept, tables.closed = {}, False
    removed = len(tables.tokens) - len(kept)
    tables.tokens = kept
    return Applied(removed=removed)


def _digits(number: int) -> bytes:
    if abs(number) >= 10**1_000:
        raise InvalidRequest("too many digits", "by")
    return str(number).encode()


def _alive(entry: Entry | None, now: float) -> Entry | None:
    return entry if entry is not None and entry.alive(now) else None
