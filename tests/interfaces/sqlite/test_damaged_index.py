"""A damaged index of expiry times is rebuilt when a write meets it: no write fails for long."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec
import pytest

from tenantbase.json_requests import Read, SetValue
from tenantbase.process.config import Config
from tenantbase.process.wiring import open_database
from tenantbase.scope import DEFAULT
from tests.servers import poll_async

_PAGE: Final = 4_096
_ENTRIES: Final = 1_500


def _damage(path: Path, *, root: bool) -> None:
    """Overwrite a page of the index: its root, or a leaf (sqlite.org/fileformat)."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'entries_expiry'"
        (page,) = connection.execute(query).fetchone()
    with path.open("r+b") as file:
        if not root:
            file.seek((page - 1) * _PAGE + 8)
            page = int.from_bytes(file.read(4), "big")  # the rightmost: where later times belong
        file.seek((page - 1) * _PAGE)
        file.write(b"\xff" * _PAGE)


@pytest.mark.parametrize("root", [True, False], ids=["root", "leaf"])
async def test_it_is_rebuilt(tmp_path: Path, caplog: pytest.LogCaptureFixture, root: bool) -> None:
    path = tmp_path / "x.db"
    keys = [f"default/k{number:04}" for number in range(_ENTRIES)]
    async with open_database(Config(database=path)) as database:
        for at in range(0, _ENTRIES, 500):
            given = [Read(_given(key, 3_600 + at)) for key in keys[at : at + 500]]
            await database.set_many(DEFAULT, given)
        await database.set(DEFAULT, _given("short", 0.05))
        expired_from = database.now() + 0.05
    _damage(path, root=root)
    with caplog.at_level(logging.ERROR):
        async with open_database(Config(database=path)) as database:
            for key in keys[::50]:
                await database.set(DEFAULT, _given(key, 10_000))
                await database.delete(DEFAULT, key)
                await database.set(DEFAULT, SetValue(key, msgspec.Raw(b"2")))
            await poll_async(lambda: database.now() >= expired_from, "the short one has expired")
            while await database.sweep():
                pass
            for key in keys:
                found = (await database.get(DEFAULT, key)).entry
                assert found is not None and found.value == (b"2" if key in keys[::50] else b"1")
    lines = [record.getMessage() for record in caplog.records if "rebuilt" in record.message]
    assert lines == ["the index of expiry times was damaged, and has been rebuilt"]
    with closing(sqlite3.connect(path)) as connection:
        (indexed,) = connection.execute(
            "SELECT count(*) FROM entries INDEXED BY entries_expiry WHERE expires_at IS NOT NULL"
        ).fetchone()
        (counted,) = connection.execute("SELECT count(expires_at) FROM entries").fetchone()
        assert indexed == counted == _ENTRIES - len(keys[::50])


def _given(key: str, ttl: float) -> SetValue:
    return SetValue(key, msgspec.Raw(b"1"), ttl=ttl)
