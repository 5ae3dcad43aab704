"""Deletes everything under a prefix.

Up to a thousand keys are deleted one by one, with the lock held. More are hidden by one row, but have
to be counted for the tenant's usage and for the answer, which takes a second for a million keys.
So they are counted before the lock is taken, in a snapshot that stays open. With the lock held, only
the keys that have changed since are counted again: as they are now, and as they were in the snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

from tenantbase.commands import Applied, DeletePrefix
from tenantbase.commands import Transaction as Commands
from tenantbase.errors import StoreError, prefix_too_large
from tenantbase.events import EventKind
from tenantbase.interfaces.postgres import queries
from tenantbase.interfaces.postgres.access import read_usage
from tenantbase.interfaces.postgres.connection import SNAPSHOT, Connection
from tenantbase.interfaces.postgres.driver_errors import TooSlow
from tenantbase.interfaces.postgres.session import Session
from tenantbase.interfaces.postgres.transaction import Transaction
from tenantbase.listing import prefix_range
from tenantbase.scope import start_bytes, tenant_of

# A prefix with no more keys than this has them deleted one by one, each with a line in the change
# log.
ONE_BY_ONE: Final = 1_000

_DELETE: Final = "DELETE FROM entries WHERE key = ANY($1::text[])"
_IN_PREFIX: Final = queries.in_transaction(
    "SELECT key, octet_length(value) FROM entries CROSS JOIN head"
    " WHERE key >= $3 AND key < $4 AND {alive} ORDER BY key LIMIT $5"
)
_SUMS: Final = """
    SELECT count(*), coalesce(sum(octet_length(key) + octet_length(value)), 0)::bigint,
        count(*) FILTER (WHERE NOT {unexpired})
    FROM entries CROSS JOIN head
"""
_UNDER: Final = queries.in_transaction(
    _SUMS + "WHERE key >= $3 AND key < $4 AND NOT {deleted}"  # a statement in two parts
)
_AMONG: Final = queries.in_transaction(_SUMS + "WHERE key = ANY($3::text[]) AND NOT {deleted}")
_EXPIRED_SINCE: Final = queries.in_transaction("""
    SELECT count(*) FROM entries CROSS JOIN head
    WHERE expires_at > $3 AND NOT {unexpired} AND key >= $4 AND key < $5 AND NOT {deleted}
""")
_NOW: Final = "SELECT position, prefixes, greatest(at, present()) FROM clock"
# The change log is trimmed from its oldest line on.
_CHANGED: Final = """
    SELECT position, key, kind FROM changes WHERE position > $1 AND (kind = $2 OR key >= $3 AND key < $4)
"""
_REACHES: Final = "SELECT coalesce(min(position), 0) <= $1::bigint + 1 FROM changes"


class LargePrefix(Exception):
    """A prefix has too many keys to be counted with the lock held."""


class Sums(NamedTuple):
    """Entries, the bytes of their scoped keys and values, and how many of them have expired."""

    entries: int
    bytes: int
    expired: int


class Counted:
    """What is under a prefix, counted in a snapshot that is still open.

    Args:
        connection: the one that has the snapshot open.
        position, prefixes, now: of the snapshot.
    """

    def __init__(
        self, connection: Connection, position: int, prefixes: int, now: float, sums: Sums
    ) -> None:
        self._connection = connection
        self._position = position
        self._prefixes = prefixes
        self._now = now
        self._sums = sums

    async def brought_up(self, transaction: Transaction, prefix: str) -> Sums:
        """The sums as of a transaction that holds the lock.

        Raises:
            LargePrefix: too much has changed since it was counted.
        """
        low, high = prefix_range(prefix)
        place = (transaction.now, transaction.prefixes)
        changed = await transaction.fetch(_CHANGED, self._position, str(EventKind.RESET), low, high)
        ((reaches,),) = await transaction.fetch(_REACHES, self._position)
        resets = [
            (position, key)
            for position, key, kind in changed
            if kind == EventKind.RESET and (key.startswith(prefix) or prefix.startswith(key))
        ]
        if not reaches or any(position <= transaction.base for position, _ in resets):
            raise LargePrefix
        # An earlier command of the group may have deleted the prefix, or a part of it.
        covered = max((at for at, key in resets if prefix.startswith(key)), default=None)
        if resets and covered is None:
            return Sums(*(await transaction.fetch(_UNDER, *place, low, high))[0])
        keys = list(
            {key for at, key, kind in changed if at > (covered or 0) and kind != EventKind.RESET}
        )
        after = Sums(*(await transaction.fetch(_AMONG, *place, keys))[0])
        if covered is not None:
            return after
        then = (transaction.now, self._prefixes)
        before = Sums(*(await self._connection.fetch(_AMONG, *then, keys))[0])
        ((expired,),) = await self._connection.fetch(_EXPIRED_SINCE, *then, self._now, low, high)
        found = zip(self._sums, before, after, strict=True)
        entries, size, expired_then = (total - old + new for total, old, new in found)
        return Sums(entries, size, expired_then + expired)


Counts = Mapping[str, Counted]
"""By prefix."""

NONE_COUNTED: Final[Counts] = {}


@asynccontextmanager
async def counting(
    session: Session, group: Sequence[Commands], seconds: float
) -> AsyncIterator[Counts]:
    """Count what is under each prefix that a group deletes, without the lock. The counts hold for the
    block.

    Raises:
        StoreUnavailable: it takes longer.
    """
    prefixes = [each.prefix for one in group for each in one if isinstance(each, DeletePrefix)]
    loop = asyncio.get_running_loop()
    async with session.listers.take(loop.time() + seconds) as connection:
        with session.within(2 * seconds):  # the server's own timeout comes first
            milliseconds = max(round(seconds * 1000), 1)
            await connection.execute(f"""
                BEGIN {SNAPSHOT};
                SET LOCAL statement_timeout = {milliseconds};
                SET LOCAL idle_in_transaction_session_timeout = {2 * milliseconds}
            """)
            try:
                yield await _count(connection, prefixes)
            except TooSlow:
                raise prefix_too_large(seconds) from None
            finally:
                # The group may have been made: no error here may hide that.
                if not connection.ended:
                    with suppress(StoreError):
                        await connection.execute("ROLLBACK")


async def _count(connection: Connection, prefixes: Sequence[str]) -> Counts:
    ((position, last_prefix, now),) = await connection.fetch(_NOW)
    counts = {}
    for prefix in prefixes:
        (row,) = await connection.fetch(_UNDER, now, last_prefix, *prefix_range(prefix))
        counts[prefix] = Counted(connection, position, last_prefix, now, Sums(*row))
    return counts


async def delete_prefix(transaction: Transaction, prefix: str, counts: Counts) -> Applied:
    """See ``DeletePrefix``.

    Raises:
        LargePrefix: it must be counted first.
    """
    name = tenant_of(prefix)
    tenant = (await read_usage(transaction, [name]))[name]
    if tenant is None:
        return Applied()  # it was deleted meanwhile
    bounds = prefix_range(prefix)
    rows = await transaction.fetch(
        _IN_PREFIX, transaction.now, transaction.prefixes, *bounds, ONE_BY_ONE + 1
    )
    if len(rows) <= ONE_BY_ONE:
        await transaction.fetch(_DELETE, [key for key, _ in rows])
        change_log = transaction.change_log()
        for key, size in rows:
            change_log.record(EventKind.DELETE, key)
            tenant.remove(key, size)
        await transaction.record(change_log.lines, tenant)
        return Applied(removed=len(rows))
    counted = counts.get(prefix)
    if counted is None:
        raise LargePrefix
    entries, size, expired = await counted.brought_up(transaction, prefix)
    await transaction.hide_range(prefix)
    tenant.entries -= entries
    tenant.bytes -= size - entries * start_bytes(name)
    await transaction.record([], tenant)
    return Applied(removed=entries - expired)
