"""Damage to one row of a database: its overflow pages point to a page that does not exist."""

from __future__ import annotations

import re
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

_PAGE = 4_096
_KEY = re.compile(rb"k[0-9]{3}")


def damage(path: Path, marker: bytes) -> None:
    """Damage the row whose value repeats ``marker``. The database must be closed."""
    _without_pointer_map(path)
    data = bytearray(path.read_bytes())
    full = [
        at
        for at in range(_PAGE, len(data), _PAGE)
        # An overflow page holds the next one's number, then content (sqlite.org/fileformat).
        if data[at + 4 : at + _PAGE].count(marker) * len(marker) > _PAGE - 3 * len(marker)
    ]
    assert full, "the row has overflow pages"
    for at in full:
        data[at : at + 4] = struct.pack(">I", 0x7FFFFFF0)
    path.write_bytes(data)


def damage_leaf(path: Path, first: bytes) -> list[str]:
    """Damage a leaf page of the table of entries. The database must be closed.

    Args:
        first: damage the page after the first leaf whose keys are not below this text.

    Returns:
        The keys of the rows in the sound leaf before it, in order.
    """
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() is not None
    data = bytearray(path.read_bytes())
    # The leaf pages of a table begin with 0x0d (sqlite.org/fileformat); rows are in order of
    # creation, which here is that of the keys.
    leaves = {}
    for at in range(_PAGE, len(data), _PAGE):
        keys = sorted(set(_KEY.findall(data, at, at + _PAGE)))
        if data[at] == 0x0D and data[at : at + _PAGE].count(b"\0" * 400) > 2 and keys:
            leaves[keys[0]] = at, [key.decode() for key in keys]
    order = sorted(leaves)
    sound = next(number for number, key in enumerate(order) if key >= first)
    at, _ = leaves[order[sound + 1]]
    data[at : at + 200] = b"\xff" * 200
    path.write_bytes(data)
    return leaves[order[sound]][1]


def _without_pointer_map(path: Path) -> None:
    """Rewrite a database as earlier versions made them, with everything in the file itself.

    With a map of pointers, SQLite frees overflow pages without reading them, and so meets no damage.
    """
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() is not None
        assert connection.execute("PRAGMA page_size").fetchone() == (_PAGE,)
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (0,)
