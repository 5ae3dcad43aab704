"""A damaged database of an earlier schema is converted around the damage: what was served is served."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from tenantbase.entry import JSON
from tenantbase.interfaces.sqlite.salvage import SET_ASIDE, known_rows
from tenantbase.interfaces.sqlite.schema import MIGRATIONS, migrate
from tenantbase.json_requests import SetValue
from tenantbase.process.config import Config
from tenantbase.process.wiring import open_database
from tenantbase.scope import DEFAULT
from tenantbase.withheld import Withheld
from tests.app_server import AppServer
from tests.damage import damage, damage_leaves

FIXTURE: Final = Path(__file__).parents[2] / "fixtures" / "schema-1.db"
MARKER: Final = b"damaged!"
OLD: Final = {"a": b'"plain"', "default/a": b'"slashed"', "gone/1": b'"again"'}
FIRST: Final = 1_000  # the version of the first entry added here


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The fixture, with the rows k000 to k199, of which k100 has a large value."""
    path = tmp_path / "x.db"
    shutil.copyfile(FIXTURE, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for number in range(200):
            value = MARKER * 4_000 if number == 100 else b'"%d"' % number + b"\0" * 600
            row = (FIRST + number, f"k{number:03}", FIRST + number, None, "0" * 36, JSON, value)
            connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            change = (FIRST + number, "set", f"k{number:03}")
            connection.execute("INSERT INTO changes VALUES (?, ?, ?)", change)
    return path


def one_row(path: Path) -> set[str]:
    damage(path, MARKER)
    return {"k100"}


def a_leaf(path: Path) -> set[str]:
    """Damage a leaf page of the entries. Returns: the keys that cannot be read any more."""
    ((*_, last),) = damage_leaves(path, "k020")
    with closing(sqlite3.connect(path)) as connection:
        lost = set()
        for number in range(200):
            query = "SELECT value FROM entries WHERE created = ?"
            try:
                connection.execute(query, (FIRST + number,)).fetchall()
            except sqlite3.DatabaseError:
                lost.add(f"k{number:03}")
    assert f"k{int(last[1:]) + 1:03}" in lost and 2 < len(lost) < 20
    return lost


def an_index(path: Path) -> set[str]:
    """Damage the only page of the expiry index, but no row."""
    _damage_index(path, "entries_expiry")
    return set()


def _damage_index(path: Path, name: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        (page,) = connection.execute(query, (name,)).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4_096)
        file.write(b"\xff" * 4_096)


@pytest.mark.parametrize("spoil", [one_row, a_leaf, an_index])
async def test_every_sound_row_is_carried_over(
    path: Path, spoil: Callable[[Path], set[str]], caplog: pytest.LogCaptureFixture
) -> None:
    lost = spoil(path)
    keys = [f"k{number:03}" for number in range(200)]
    with caplog.at_level(logging.ERROR):
        async with open_database(Config(database=path)) as database:
            for key, value in OLD.items():
                found = (await database.get(DEFAULT, key)).entry
                assert found is not None and found.value == value
            present = set()
            for number, key in enumerate(keys):
                found = (await database.get(DEFAULT, key)).entry
                if found is not None:
                    assert found.value.startswith(b'"%d"' % number) or number == 100
                    assert found.version == FIRST + number
                    present.add(key)
            assert present == set(keys) - lost
            assert (await database.get(DEFAULT, "gone/0")).entry is None
            for key in keys:  # absent ones, too
                applied = await database.set(DEFAULT, SetValue(key, msgspec.Raw(b"1"), ttl=60))
                assert applied.created == (key in lost)
            while await database.sweep():
                pass
            pieces = [piece async for piece, _ in database.scan(DEFAULT)]
            listed = {entry.key[DEFAULT.plain] for piece in pieces for entry in piece}
            assert listed >= {*keys, *OLD}
    (record,) = [each for each in caplog.records if "damaged" in each.message]
    assert f" {len(lost)} cannot be read" in record.message and SET_ASIDE in record.message
    assert isinstance(record.args, tuple)
    named = [each.text for each in record.args if isinstance(each, Withheld)]
    assert all(repr(key) in named[0] for key in sorted(lost)[:10])
    assert not any(repr(key) in record.message for key in lost), "keys need --log-keys"
    assert _rows(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    query = (
        "SELECT count(*) FROM sqlite_master WHERE name = 'entries_expiry' AND tbl_name = 'entries'"
    )
    assert _rows(path, query) == [(1,)]


def test_rows_behind_the_damage_are_found_without_the_keys(path: Path) -> None:
    lost = a_leaf(path)
    _damage_index(path, "sqlite_autoindex_entries_1")
    with closing(sqlite3.connect(path)) as connection:
        found = known_rows(connection, lambda error: True)
    # The driver reads one row ahead, so the rows on both sides of the damage may be missing.
    numbers = [int(key[1:]) for key in lost]
    sound = {*range(min(numbers) - 1), *range(max(numbers) + 2, 200)}
    assert {FIRST + number for number in sound} <= set(found)


@pytest.mark.parametrize("spoil", [one_row, a_leaf])
def test_rows_that_can_be_read_are_counted(
    path: Path, spoil: Callable[[Path], set[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """From schema 2. The size of a value is known even if its content is damaged."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, MIGRATIONS[:2])
    sizes = {
        key: len(key.encode()) - len("default/") + size
        for key, size in _rows(path, "SELECT key, length(value) FROM entries")
        if key not in ("default/gone/0", "default/gone/2")
    }
    lost = spoil(path) if spoil is a_leaf else spoil(path) - {"k100"}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with caplog.at_level(logging.ERROR):
            migrate(connection)
    for key in lost:
        del sizes[f"default/{key}"]
    assert _rows(path, "SELECT name, entries, bytes FROM tenants") == [
        ("default", len(sizes), sum(sizes.values()))
    ]
    assert ("damaged" in caplog.text) == bool(lost)


def test_a_server_with_a_damaged_row_is_upgraded(path: Path) -> None:
    one_row(path)
    with AppServer(path, "--log-keys") as server:
        assert server.ask("GET", "/get-value?key=a").json["value"] == "plain"
        assert server.ask("GET", "/get-value?key=k100").status == 404
        assert server.stop() == 0
        server.start()  # there is nothing left to convert
        assert server.ask("GET", "/get-value?key=k199").status == 200
        assert server.stop() == 0
        assert server.stderr.count("k100") == 1


def _rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()
