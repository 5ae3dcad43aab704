"""Changes of keys nobody has named: deleted prefixes, and what is swept away later.

A large prefix is deleted by one line in ``deleted_prefixes``, however many entries it has. Their
rows no longer count from then on, and are removed by sweeping, a few at a time, so that other
writers get their turn.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from tenantbase.interfaces.sql_log import Log
from tenantbase.interfaces.sql_queries import ALIVE, DELETED, prefix_range
from tenantbase.interfaces.store import Applied

# Up to here a prefix's keys are deleted one by one, each with its line in the change log.
ONE_BY_ONE: Final = 1_000

_IN_PREFIX: Final = f"SELECT key FROM entries WHERE key >= ? AND key < ? AND {ALIVE} LIMIT ?"
# Both are read from indexes alone, but for rows that have expired and were not swept yet.
_COUNT: Final = f"SELECT count(*) FROM entries WHERE key >= ? AND key < ? AND NOT {DELETED}"
_COUNT_EXPIRED: Final = (
    "SELECT count(*) FROM entries INDEXED BY entries_expiry"
    f" WHERE expires_at <= ? AND key >= ? AND key < ? AND NOT {DELETED}"
)
_EXPIRED: Final = (
    f"SELECT created, key, {DELETED} FROM entries"
    " WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
)
_ROWS: Final = "SELECT created, key FROM entries WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"
_DELETE_KEY: Final = "DELETE FROM entries WHERE key = ?"
_DELETE_ROW: Final = "DELETE FROM entries WHERE created = ?"


def delete_prefix(connection: sqlite3.Connection, log: Log, prefix: str, now: float) -> Applied:
    """See ``DeletePrefix``."""
    execute = connection.execute
    low, high = prefix_range(prefix)
    keys = execute(_IN_PREFIX, (low, high, now, ONE_BY_ONE + 1)).fetchall()
    if len(keys) <= ONE_BY_ONE:
        connection.executemany(_DELETE_KEY, keys)
        for (key,) in keys:
            log.record("delete", key)
        return Applied(removed=len(keys))
    (count,) = execute(_COUNT, (low, high)).fetchone()
    (expired,) = execute(_COUNT_EXPIRED, (now, low, high)).fetchone()
    # What lies within the new range needs no line of its own any more.
    execute("DELETE FROM deleted_prefixes WHERE low >= ? AND high <= ?", (low, high))
    execute("INSERT INTO deleted_prefixes VALUES (?, ?, ?)", (log.next_version, low, high))
    log.record("reset", prefix)
    return Applied(removed=count - expired)


def sweep(
    connection: sqlite3.Connection, log: Log, log_size: int, limit: int, now: float
) -> Applied:
    """See ``Sweep``; ``log_size`` lines are left in the change log."""
    removed = _remove_expired(connection, log, limit, now)
    removed += _remove_deleted(connection, limit - removed)
    removed += log.trim(log_size, limit - removed)
    return Applied(removed=removed)


def _remove_expired(connection: sqlite3.Connection, log: Log, limit: int, now: float) -> int:
    rows = connection.execute(_EXPIRED, (now, limit)).fetchall()
    connection.executemany(_DELETE_ROW, [(created,) for created, _, _ in rows])
    for _, key, deleted in rows:
        if not deleted:
            log.record("expire", key)
    return len(rows)


def _remove_deleted(connection: sqlite3.Connection, limit: int) -> int:
    """Remove rows under deleted prefixes. They are gone already for everybody."""
    execute = connection.execute
    done = 0
    while done < limit and (
        deleted := execute("SELECT version, low, high FROM deleted_prefixes LIMIT 1").fetchone()
    ):
        version, low, high = deleted
        rows = execute(_ROWS, (low, high, limit - done)).fetchall()
        connection.executemany(
            _DELETE_ROW, [(created,) for created, _ in rows if created <= version]
        )
        done += len(rows)
        if done < limit:
            execute("DELETE FROM deleted_prefixes WHERE version = ?", (version,))
        else:
            # Newer entries stay where they are: the next batch must not walk over them again.
            beyond = rows[-1][1] + "\0"
            execute("UPDATE deleted_prefixes SET low = ? WHERE version = ?", (beyond, version))
    return done
