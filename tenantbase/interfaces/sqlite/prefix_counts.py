"""Counts what is under a large prefix before it is deleted, while others write.

Deleting a large prefix writes a single row (``sweep.py``), but the answer and the tenant's usage need the
number of its entries and their size, and counting a million takes more than half a second. So they are
counted before the write waits for its turn, in a snapshot that stays open. With the lock held, only the
keys that have changed since are counted again: as they are now, and as they were in the snapshot.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from tenantbase.events import EventKind
from tenantbase.interfaces.sqlite.queries import DELETED, key_batches, last_version
from tenantbase.interfaces.sqlite.usage import SUMS
from tenantbase.listing import prefix_range

_UNDER: Final = f"SELECT {SUMS} FROM entries WHERE key >= ? AND key < ? AND NOT {DELETED}"
_AMONG: Final = (
    f"SELECT {SUMS}, count(CASE WHEN expires_at <= ? THEN 1 END) FROM entries"
    f" WHERE key IN ({{}}) AND NOT {DELETED}"
)
_EXPIRED: Final = (
    "SELECT count(*) FROM entries INDEXED BY entries_expiry"
    f" WHERE expires_at > ? AND expires_at <= ? AND key >= ? AND key < ? AND NOT {DELETED}"
)
_OLDEST: Final = "SELECT coalesce(min(version), 0) FROM changes"
# The key of a RESET is a prefix.
_CHANGED: Final = f"""
    SELECT key, kind = '{EventKind.RESET}' FROM changes
    WHERE version > ? AND (kind = '{EventKind.RESET}' OR key >= ? AND key < ?)
"""
_LONG_AGO: Final = float("-inf")


class Sums(NamedTuple):
    """Entries, the bytes of their scoped keys and values, and how many of them have expired."""

    entries: int
    bytes: int
    expired: int


def count_expired(
    connection: sqlite3.Connection, prefix: str, now: float, since: float = _LONG_AGO
) -> int:
    """The entries under a prefix that expired after one moment, up to another."""
    bounds = (since, now, *prefix_range(prefix))
    (expired,) = connection.execute(_EXPIRED, bounds).fetchone()
    return int(expired)


def count_under(connection: sqlite3.Connection, prefix: str, now: float) -> Sums:
    """Count everything under a prefix."""
    entries, size = connection.execute(_UNDER, prefix_range(prefix)).fetchone()
    return Sums(entries, size, count_expired(connection, prefix, now))


class PrefixCount:
    """What is under a prefix, counted in a snapshot that stays open.

    Made in the thread of its connection, which is idle while another thread calls ``brought_up``.

    Args:
        connection: of its own; its thread is not checked.
        prefix: scoped.
        now: Unix seconds.
    """

    def __init__(self, connection: sqlite3.Connection, prefix: str, now: float) -> None:
        self._connection = connection
        self._prefix = prefix
        self._now = now
        self._in_use = threading.Lock()
        self._ended = False
        connection.execute("BEGIN")
        self._version = last_version(connection)
        self._sums = count_under(connection, prefix, now)

    def brought_up(self, writer: sqlite3.Connection, now: float) -> Sums | None:
        """The sums as of a transaction that has written nothing yet.

        Returns: None if everything has to be counted again.

        Raises:
            sqlite3.Error: the rows cannot be read.
        """
        with self._in_use:
            if self._ended:
                return None
            (oldest,) = writer.execute(_OLDEST).fetchone()
            changed = writer.execute(
                _CHANGED, (self._version, *prefix_range(self._prefix))
            ).fetchall()
            resets = {key for key, is_reset in changed if is_reset}
            if oldest > self._version + 1 or any(map(self._overlaps, resets)):
                return None
            keys = list({key for key, is_reset in changed if not is_reset})
            before = _among(self._connection, keys, now)
            after = _among(writer, keys, now)
            expired = count_expired(self._connection, self._prefix, now, self._now)
        sums = zip(self._sums, before, after, strict=True)
        entries, size, expired_then = (total - old + new for total, old, new in sums)
        return Sums(entries, size, expired_then + expired)

    def end(self) -> None:
        """Say that the connection will be closed, once nobody uses it."""
        with self._in_use:
            self._ended = True

    def _overlaps(self, prefix: str) -> bool:
        return prefix.startswith(self._prefix) or self._prefix.startswith(prefix)


Counts = Mapping[str, PrefixCount]
"""By scoped prefix."""

NONE_COUNTED: Final[Counts] = MappingProxyType({})


def _among(connection: sqlite3.Connection, keys: Sequence[str], now: float) -> Sums:
    """Count these keys, expired ones included."""
    batches = [
        connection.execute(_AMONG.format(places), (now, *batch)).fetchone()
        for places, batch in key_batches(keys)
    ]
    return Sums(*map(sum, zip((0, 0, 0), *batches, strict=True)))
