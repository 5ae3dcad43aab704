"""Damage to one row of a database: its overflow pages point to a page that does not exist."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from pathlib import Path

_PAGE = 4_096


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


def damage_leaves(path: Path, *firsts: str) -> list[list[str]]:
    """Damage leaf pages of the table of entries. The database must be closed.

    Keys are meant without the default tenant, which old databases do not name.

    Args:
        firsts: for each key, damage the page after the first leaf whose keys are not below it.

    Returns:
        For each of them, the keys of the rows in the sound leaf before the damaged page, in order.
    """
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() is not None
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'entries'"
        (root,) = connection.execute(query).fetchone()
        # The order of creation, which here is that of the keys, and that of the leaves.
        rows = connection.execute("SELECT key FROM entries ORDER BY created").fetchall()
    keys = [key.removeprefix("default/") for (key,) in rows]
    data = bytearray(path.read_bytes())
    leaves = []
    for page in _children(data, root):
        at = (page - 1) * _PAGE
        (count,) = struct.unpack_from(">H", data, at + 3)
        leaves.append((at, keys[:count]))
        del keys[:count]
    assert not keys, "the table has two levels of pages"
    sound = []
    for first in firsts:
        number = next(number for number, (_, held) in enumerate(leaves) if held[0] >= first)
        sound.append(leaves[number][1])
        damaged, _ = leaves[number + 1]
        data[damaged : damaged + 200] = b"\xff" * 200
    path.write_bytes(data)
    return sound


def _children(data: bytearray, page: int) -> list[int]:
    """The numbers of the pages below an interior page, in order (sqlite.org/fileformat)."""
    at = (page - 1) * _PAGE
    kind, _, cells, _, _, last = struct.unpack_from(">BHHHBI", data, at)
    assert kind == 0x05, "the table has more than one page"
    pointers = struct.unpack_from(f">{cells}H", data, at + 12)
    return [*(struct.unpack_from(">I", data, at + each)[0] for each in pointers), last]


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
