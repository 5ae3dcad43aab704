"""The size of a database, and whether it has enough space."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from tenantbase.interfaces.sqlite.reserve import RESERVE_BYTES
from tenantbase.interfaces.store import StoreSize
from tenantbase.troubles import Trouble

# Between two checkpoints, the log grows to some MiB, or to the size of one large transaction.
_GROWN_BYTES: Final = 256 << 20
# Reported below this, while there is still time to act; on a small disk, below a twentieth of it.
_FLOOR_BYTES: Final = 1 << 30
_FLOOR_SHARE: Final = 20
# The trouble is over once this much more is free, or a quarter of a small disk: on a full disk, the
# reserve and the log keep giving back space for a moment.
_OVER_BYTES: Final = 2 * RESERVE_BYTES
_OVER_SHARE: Final = 4
_USAGE: Final = "SELECT coalesce(sum(entries), 0), coalesce(sum(bytes), 0) FROM tenants"


def size_of(connection: sqlite3.Connection, path: str) -> StoreSize:
    """See ``Store.size``. ``path``: the database file."""
    entries, size = connection.execute(_USAGE).fetchone()
    return StoreSize(
        entries, size, _bytes(path), _bytes(f"{os.path.realpath(path)}-wal"), free_bytes(path)
    )


def troubles_of(
    size: StoreSize, path: str, lasting: Collection[Trouble]
) -> dict[Trouble, str | None]:
    """The troubles with space, by kind: a text for the log, or None if there is no such trouble.

    Args:
        lasting: the troubles that there were until now.
    """
    low = grown = None
    floor = _floor(path, Trouble.DISK_NEARLY_FULL in lasting)
    if size.free_bytes is not None and size.free_bytes < floor:
        low = f"{size.free_bytes >> 20:,} MiB are left for the database"
    if size.log_bytes > _GROWN_BYTES:
        log = f"the write-ahead log has {size.log_bytes >> 20:,} MiB"
        grown = f"{log}; a program keeps a read transaction open on the database"
    return {Trouble.DISK_NEARLY_FULL: low, Trouble.LOG_GROWS: grown}


def _floor(path: str, below: bool) -> int:
    """How much must be free. ``below``: whether less was free until now."""
    with suppress(OSError):
        disk = os.statvfs(path)
        size = disk.f_blocks * disk.f_frsize
        more = min(_OVER_BYTES, size // _OVER_SHARE) if below else 0
        return min(_FLOOR_BYTES, size // _FLOOR_SHARE) + more
    return 0


def free_bytes(path: str) -> int | None:
    """The free space for this process on the disk of a file; None: unknown."""
    with suppress(OSError):
        disk = os.statvfs(path)
        return disk.f_bavail * disk.f_frsize
    return None


def _bytes(path: str) -> int:
    with suppress(OSError):
        return os.stat(path).st_size
    return 0
