"""Commands that stand alone: touch, rename and sweeps; prefix deletes are in ``prefixes.py``."""

from __future__ import annotations

from typing import Final, NamedTuple, assert_never

from tenantbase.commands import (
    AdminCommand,
    Applied,
    DeletePrefix,
    InPlaceCommand,
    Rename,
    Sweep,
    Touch,
)
from tenantbase.commands import Transaction as Commands
from tenantbase.errors import InvalidRequest, NoSuchTenant, StoreError, TenantbaseError
from tenantbase.events import EventKind
from tenantbase.interfaces.planning.identifiers import new_id
from tenantbase.interfaces.planning.in_place import (
    Row,
    growth_of,
    living,
    source_of,
)
from tenantbase.interfaces.planning.named import Outcome
from tenantbase.interfaces.planning.usage import TenantUsage
from tenantbase.interfaces.postgres import queries
from tenantbase.interfaces.postgres.access import administer, read_usage, remove_expired_tokens
from tenantbase.interfaces.postgres.connection import Connection
from tenantbase.interfaces.postgres.prefixes import Counts, delete_prefix
from tenantbase.interfaces.postgres.transaction import Transaction
from tenantbase.listing import prefix_range
from tenantbase.scope import Scope, start_bytes, tenant_of

KEPT_COMMITS: Final = 65_536
KEPT_COMMITS_SECONDS: Final = 600.0
"""Of the commits, the newest so many are kept, and those of so many seconds. A node that falls behind
has to forget what it knows of memcached's items."""
KEPT_MARKS_SECONDS: Final = 600.0
"""Longer than a group may be late; see ``functions.LATE_SECONDS``."""

_TOUCH: Final = "UPDATE entries SET version = $2, expires_at = $3 WHERE key = $1"
_COPY: Final = """
    INSERT INTO entries (key, created, version, expires_at, id, content_type, value)
    SELECT $2, $3, $3, expires_at, $4::uuid, content_type, value FROM entries WHERE key = $1
"""
_DELETE: Final = "DELETE FROM entries WHERE key = ANY($1::text[])"
_EXPIRED: Final = queries.in_transaction("""
    SELECT key, {deleted}, octet_length(value) FROM entries CROSS JOIN head
    WHERE expires_at <= head.now ORDER BY expires_at LIMIT $3
""")
_EXPIRED_USAGE: Final = queries.in_transaction("""
    SELECT count(*), coalesce(sum(octet_length(key) + octet_length(value)), 0)::bigint
    FROM entries CROSS JOIN head
    WHERE expires_at <= head.now AND key >= $3 AND key < $4 AND NOT {deleted}
""")
_PREFIXES: Final = "SELECT version, low, high FROM deleted_prefixes ORDER BY version"
_ROWS: Final = """
    SELECT created, key FROM entries WHERE key >= $1 AND key < $2 ORDER BY key LIMIT $3
"""
_TRIMMED: Final = "SELECT position FROM changes ORDER BY position DESC OFFSET $1 LIMIT 1"
_TRIM_CHANGES: Final = """
    DELETE FROM changes WHERE position IN (
        SELECT position FROM changes WHERE position <= $1 ORDER BY position LIMIT $2
    ) RETURNING 1
"""
_TRIM_COMMITS: Final = """
    WITH gone AS (
        DELETE FROM commits WHERE token IN (
            SELECT token FROM commits
            WHERE number <= (SELECT groups FROM clock) - $1 AND at <= $2 AND made
            ORDER BY number LIMIT $3
        ) RETURNING position
    )
    UPDATE clock SET trimmed = greatest(trimmed, (SELECT max(position) FROM gone))
    WHERE EXISTS (SELECT FROM gone) RETURNING (SELECT count(*) FROM gone)
"""
# Marks have no number, so they are found by its index.
_TRIM_MARKS: Final = "DELETE FROM commits WHERE number = 0 AND NOT made AND at <= $1"


class Upkeep(NamedTuple):
    """What a sweep found out before it took the lock.

    Attributes:
        change_log_end: change log lines up to this position may go; None: none may.
    """

    change_log_end: int | None


async def prepare(connection: Connection, change_log_size: int) -> Upkeep:
    """What a sweep needs that takes time to find out. Meanwhile, lines are only added."""
    rows = await connection.fetch(_TRIMMED, max(change_log_size, 1))
    return Upkeep(rows[0][0] if rows else None)


async def apply_alone(
    transaction: Transaction, commands: Commands, upkeep: Upkeep, counts: Counts
) -> Outcome:
    """Carry out a transaction that stands alone.

    Raises:
        LargePrefix: the keys under a prefix must be counted first.
    """
    try:
        match commands:
            case (DeletePrefix(prefix=prefix),):
                return (await delete_prefix(transaction, prefix, counts),)
            case (Sweep(limit=limit),):
                await remove_expired_tokens(transaction)
                return (await _sweep(transaction, limit, upkeep),)
            case (command,) if isinstance(command, InPlaceCommand):
                return (await _apply_in_place(transaction, command),)
            case (command,) if isinstance(command, AdminCommand):
                return (await administer(transaction, command),)
    except StoreError:
        raise
    except TenantbaseError as error:
        return error.with_traceback(None)
    return InvalidRequest("this command is a transaction of its own")


async def expired_rows(transaction: Transaction, tenant: str) -> tuple[int, int]:
    """Entries and bytes of a tenant's rows that have expired and still count."""
    bounds = prefix_range(Scope(tenant).start)
    ((entries, size),) = await transaction.fetch(
        _EXPIRED_USAGE, transaction.now, transaction.prefixes, *bounds
    )
    return entries, size - entries * start_bytes(tenant)


async def _find(transaction: Transaction, key: str) -> Row | None:
    rows = await transaction.fetch(
        queries.LOCKED_LOOK_UP, transaction.now, transaction.prefixes, [key], [], []
    )
    return queries.row_of(rows[0]) if rows else None


async def _apply_in_place(transaction: Transaction, command: InPlaceCommand) -> Applied:
    name = tenant_of(command.key)
    tenant = (await read_usage(transaction, [name]))[name]
    if tenant is None:
        raise NoSuchTenant(name)
    row = source_of(command, await _find(transaction, command.key))
    match command:
        case Touch():
            return await _touch(transaction, command, row)
        case Rename():
            return await _rename(transaction, tenant, command, row)
        case _:
            assert_never(command)


async def _touch(transaction: Transaction, command: Touch, row: Row) -> Applied:
    change_log = transaction.change_log()
    version = change_log.next_version
    await transaction.fetch(_TOUCH, command.key, version, command.expires_at)
    change_log.record_set(command.key, row.size, row.content_type, command.expires_at)
    await transaction.record(change_log.lines)
    return Applied(row.entry(command.key, row.id, version, command.expires_at))


async def _rename(
    transaction: Transaction, tenant: TenantUsage, command: Rename, source: Row
) -> Applied:
    target = await _find(transaction, command.to)
    replaced = living(target)
    growth = growth_of(tenant, command, source, target)
    if not tenant.within(*growth):
        tenant.check_growth(*growth, await expired_rows(transaction, tenant.name))
    change_log = transaction.change_log()
    gone = []
    if not command.copy:
        change_log.record(EventKind.DELETE, command.key)
        tenant.remove(command.key, source.size)
        gone.append(command.key)
    if target is not None:
        await transaction.fetch(_DELETE, [command.to])
        if target.state is not None:
            tenant.remove(command.to, target.size)
    version = change_log.next_version
    identifier = new_id() if replaced is None else replaced.id
    await transaction.fetch(_COPY, command.key, command.to, version, identifier)
    await transaction.fetch(_DELETE, gone)
    change_log.record_set(command.to, source.size, source.content_type, source.expires_at)
    tenant.entries += 1
    tenant.bytes += tenant.key_bytes(command.to) + source.size
    await transaction.record(change_log.lines, tenant)
    entry = source.entry(command.to, identifier, version, source.expires_at)
    return Applied(entry, created=replaced is None)


async def _sweep(transaction: Transaction, limit: int, upkeep: Upkeep) -> Applied:
    """See ``Sweep``."""
    expired = removed = await _remove_expired(transaction, limit)
    removed += await _remove_deleted(transaction, limit - removed)
    if upkeep.change_log_end is not None and limit > removed:
        gone = await transaction.fetch(_TRIM_CHANGES, upkeep.change_log_end, limit - removed)
        transaction.changed |= bool(gone)
        removed += len(gone)
    kept_from = transaction.now - KEPT_COMMITS_SECONDS
    for (trimmed,) in await transaction.fetch(_TRIM_COMMITS, KEPT_COMMITS, kept_from, limit):
        transaction.changed = True
        removed = max(removed, trimmed)  # a full batch of either may leave more
    await transaction.fetch(_TRIM_MARKS, transaction.now - KEPT_MARKS_SECONDS)
    return Applied(removed=removed, expired=expired)


async def _remove_expired(transaction: Transaction, limit: int) -> int:
    rows = await transaction.fetch(_EXPIRED, transaction.now, transaction.prefixes, limit)
    counted = [(key, size) for key, deleted, size in rows if not deleted]
    names = sorted({tenant_of(key) for key, _ in counted})
    tenants = await read_usage(transaction, names) if names else {}
    change_log = transaction.change_log()
    for key, size in counted:
        change_log.record(EventKind.EXPIRE, key)
        tenant = tenants[tenant_of(key)]
        if tenant is not None:
            tenant.remove(key, size)
    if rows:
        await transaction.fetch(_DELETE, [row[0] for row in rows])
        transaction.changed = True
        await transaction.record(change_log.lines, *tenants.values())
    return len(rows)


async def _remove_deleted(transaction: Transaction, limit: int) -> int:
    """Remove rows under deleted prefixes, which readers no longer see."""
    done = 0
    for version, low, high in await transaction.fetch(_PREFIXES):
        if done >= limit:
            break
        rows = await transaction.fetch(_ROWS, low, high, limit - done)
        await transaction.fetch(_DELETE, [key for created, key in rows if created <= version])
        if len(rows) < limit - done:
            await transaction.fetch("DELETE FROM deleted_prefixes WHERE version = $1", version)
        else:
            # Newer entries stay, so move the range past them for the next batch. No key is between.
            await transaction.fetch(
                "UPDATE deleted_prefixes SET low = $1 WHERE version = $2",
                rows[-1][1] + "\x01",
                version,
            )
        transaction.changed = True
        done += len(rows)
    return done
