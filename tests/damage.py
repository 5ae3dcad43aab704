"""Damage to one row of a database: its overflow pages point to a page that does not exist."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from pathlib import Path

_PAGE = 4_096


def damage(path: Path, marker: bytes) -> None:
    """Damage the row whose value repeats ``marker``; the database is closed."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() is not None
        assert connection.execute("PRAGMA page_size").fetchone() == (_PAGE,)
    data = bytearray(path.read_bytes())
    full = [
        at
        for at in range(_PAGE, len(data), _PAGE)
        # An overflow page is the number of the next one, and content (sqlite.org/fileformat).
        if data[at + 4 : at + _PAGE].count(marker) * len(marker) > _PAGE - 3 * len(marker)
    ]
    assert full, "the row has overflow pages"
    for at in full:
        data[at : at + 4] = struct.pack(">I", 0x7FFFFFF0)
    path.write_bytes(data)
