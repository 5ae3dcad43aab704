"""Changes to keys that commands do not name: prefix deletes, and the sweeps that remove rows later.

A large prefix is deleted by one row in ``deleted_prefixes``, however many entries it has. From then
on their rows do not count. Sweeps remove them, a few at a time, so that other writers get their
turn.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from typing import Final

from tenantbase.commands import Applied
from tenantbase.events import EventKind
from tenantbase.interfaces.planning.change_log import ChangeLog
from tenantbase.interfaces.sqlite.change_log import SqliteChangeLog
from tenantbase.interfaces.sqlite.driver_errors import concerns_a_row
from tenantbase.interfaces.sqlite.prefix_counts import (
    Counts,
    count_expired,
    count_under,
)
from tenantbase.interfaces.sqlite.queries import ALIVE, DELETED
from tenantbase.interfaces.sqlite.usage import Usage
from tenantbase.listing import prefix_range
from tenantbase.scope import Scope, start_bytes, tenant_of

# A prefix with no more keys than this has them deleted one by one, each with a line in the change
# log.
ONE_BY_ONE: Final = 1_000

# As many lines of the change log are removed at least as fast as a row, because they are next to each
# other.
_LINES_A_ROW: Final = 5

_IN_PREFIX: Final = (
    f"SELECT key, length(value) FROM entries WHERE key >= ? AND key < ? AND {ALIVE} LIMIT ?"
)
_BEYOND: Final = f"SELECT 1 FROM entries WHERE key >= ? AND key < ? AND {ALIVE} LIMIT 1 OFFSET ?"
# Reads only the index, so that no damaged row is touched before it is tested.
_EXPIRED: Final = "SELECT created FROM entries WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
_ROW_OF_KEY: Final = "SELECT created FROM entries WHERE key = ?"
_ROW: Final = f"SELECT key, {DELETED}, length(value) FROM entries WHERE created = ?"
_ROWS: Final = "SELECT created, key FROM entries WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"
_PREFIXES: Final = "SELECT version, low, high FROM deleted_prefixes ORDER BY version"
_DELETE_KEY: Final = "DELETE FROM entries WHERE key = ?"
_DELETE_ROW: Final = "DELETE FROM entries WHERE created = ?"


def needs_count(connection: sqlite3.Connection, prefix: str, now: float) -> bool:
    """Whether deleting a scoped prefix takes a count. What a whole tenant has is known."""
    if prefix == Scope(tenant_of(prefix)).start:
        return False
    bounds = (*prefix_range(prefix), now, ONE_BY_ONE)
    return connection.execute(_BEYOND, bounds).fetchone() is not None


def delete_prefix(
    connection: sqlite3.Connection,
    change_log: SqliteChangeLog,
    usage: Usage,
    prefix: str,
    now: float,
    counts: Counts,
) -> Applied:
    """See ``DeletePrefix``.

    Args:
        counts: what was counted before. Without a count, or with one that no longer holds, everything is
            counted now.
    """
    execute = connection.execute
    tenant = usage.of(tenant_of(prefix))
    if tenant is None:
        return Applied()  # it was deleted meanwhile
    rows = execute(_IN_PREFIX, (*prefix_range(prefix), now, ONE_BY_ONE + 1)).fetchall()
    if len(rows) <= ONE_BY_ONE:
        connection.executemany(_DELETE_KEY, ((key,) for key, _ in rows))
        for key, size in rows:
            change_log.record(EventKind.DELETE, key)
            tenant.remove(key, size)
        return Applied(removed=len(rows))
    if (
        prefix == Scope(tenant.name).start
    ):  # what a whole tenant has is known without reading its rows
        entries, size = tenant.entries, tenant.bytes
        expired = count_expired(connection, prefix, now)
    else:
        count = counts.get(prefix)
        # Changes of this transaction are not in the table of changes yet.
        sums = None if count is None or change_log.changed else count.brought_up(connection, now)
        if sums is None:
            sums = count_under(connection, prefix, now)
        entries, size, expired = sums
        size -= entries * start_bytes(tenant.name)
    hide_range(connection, change_log, prefix)
    tenant.entries -= entries
    tenant.bytes -= size
    return Applied(removed=entries - expired)


def hide_range(connection: sqlite3.Connection, change_log: ChangeLog, prefix: str) -> None:
    """Delete all rows under a prefix by one row in ``deleted_prefixes``."""
    low, high = prefix_range(prefix)
    # Ranges within the new one are no longer needed.
    connection.execute("DELETE FROM deleted_prefixes WHERE low >= ? AND high <= ?", (low, high))
    connection.execute(
        "INSERT INTO deleted_prefixes VALUES (?, ?, ?)", (change_log.next_version, low, high)
    )
    change_log.record(EventKind.RESET, prefix)


def sweep(
    connection: sqlite3.Connection,
    change_log: SqliteChangeLog,
    usage: Usage,
    change_log_size: int,
    limit: int,
    now: float,
    damaged: Collection[int] = (),
) -> Applied:
    """See ``Sweep``; ``change_log_size`` lines are left in the change log. Lines count as parts of rows.

    Args:
        damaged: rows, by ``created``, that cannot be removed and are passed over.
    """
    expired = removed = _remove_expired(connection, change_log, usage, limit, now, damaged)
    removed += _remove_deleted(connection, limit - removed, damaged)
    removed += change_log.trim(change_log_size, _LINES_A_ROW * (limit - removed))
    return Applied(removed=removed, expired=expired)


def find_damaged(
    connection: sqlite3.Connection, limit: int, now: float, known: Collection[int]
) -> list[int]:
    """The rows, by ``created``, that a sweep which met damage cannot remove.

    Each is removed on trial in a transaction that is rolled back. Called outside of any
    transaction.
    """
    execute = connection.execute
    rows = [created for (created,) in execute(_EXPIRED, (now, limit + len(known)))]
    for version, low, high in execute(_PREFIXES).fetchall():
        under = execute(_ROWS, (low, high, limit + len(known))).fetchall()
        rows += [created for created, _ in under if created <= version]
    tried = rows[: 2 * (limit + len(known))]
    return _not_removable(connection, [created for created in tried if created not in known])


def find_damaged_keys(
    connection: sqlite3.Connection, keys: Collection[str], known: Collection[int]
) -> list[int]:
    """The rows of these keys, by ``created``, that cannot be removed. Called outside of any
    transaction."""
    rows = []
    for key in keys:
        row = connection.execute(_ROW_OF_KEY, (key,)).fetchone()
        if row is not None and row[0] not in known:
            rows.append(row[0])
    return _not_removable(connection, rows)


def _not_removable(connection: sqlite3.Connection, rows: Iterable[int]) -> list[int]:
    execute = connection.execute
    found = []
    for created in rows:
        execute("BEGIN IMMEDIATE")
        try:
            execute(_ROW, (created,)).fetchone()
            execute(_DELETE_ROW, (created,))
        except sqlite3.Error as error:
            if not concerns_a_row(error):
                raise
            found.append(created)
        finally:
            if connection.in_transaction:
                execute("ROLLBACK")
    return found


def _remove_expired(
    connection: sqlite3.Connection,
    change_log: ChangeLog,
    usage: Usage,
    limit: int,
    now: float,
    damaged: Collection[int],
) -> int:
    expired = [row[0] for row in connection.execute(_EXPIRED, (now, limit + len(damaged)))]
    removed = [created for created in expired if created not in damaged][:limit]
    for created in removed:
        key, deleted, size = connection.execute(_ROW, (created,)).fetchone()
        if not deleted and isinstance(key, str):  # else it was changed by hand, and counts nowhere
            change_log.record(EventKind.EXPIRE, key)
            tenant = usage.of(tenant_of(key))
            if tenant is not None:
                tenant.remove(key, size)
    connection.executemany(_DELETE_ROW, [(created,) for created in removed])
    return len(removed)


def _remove_deleted(connection: sqlite3.Connection, limit: int, damaged: Collection[int]) -> int:
    """Remove rows under deleted prefixes, which readers no longer see."""
    execute = connection.execute
    done = 0
    for version, low, high in execute(_PREFIXES).fetchall():
        if done >= limit:
            break
        rows = execute(_ROWS, (low, high, limit - done)).fetchall()
        removed = [
            (created,) for created, _ in rows if created <= version and created not in damaged
        ]
        connection.executemany(_DELETE_ROW, removed)
        kept = [key for created, key in rows if created in damaged]
        if kept:
            # The range stays for as long as the row does, or the row would reappear.
            execute("UPDATE deleted_prefixes SET low = ? WHERE version = ?", (kept[0], version))
            done += len(removed)
        elif len(rows) < limit - done:
            execute("DELETE FROM deleted_prefixes WHERE version = ?", (version,))
            done += len(rows)
        else:
            # Newer entries stay, so move the range past them for the next batch.
            beyond = rows[-1][1] + "\0"
            execute("UPDATE deleted_prefixes SET low = ? WHERE version = ?", (beyond, version))
            done += len(rows)
    return done
