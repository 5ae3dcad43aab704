"""How large a database is."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from typing import Final

from tenantbase.interfaces.store import StoreSize

_USAGE: Final = "SELECT coalesce(sum(entries), 0), coalesce(sum(bytes), 0) FROM tenants"


def size_of(connection: sqlite3.Connection, path: str) -> StoreSize:
    """See ``Store.size``. ``path``: the database file."""
    entries, size = connection.execute(_USAGE).fetchone()
    return StoreSize(
        entries, size, _bytes(path), _bytes(f"{os.path.realpath(path)}-wal"), free_bytes(path)
    )


def free_bytes(path: str) -> int | None:
    """The space that the disk of a file has left for this process; None: it does not say."""
    with suppress(OSError):
        disk = os.statvfs(path)
        return disk.f_bavail * disk.f_frsize
    return None


def _bytes(path: str) -> int:
    with suppress(OSError):
        return os.stat(path).st_size
    return 0
