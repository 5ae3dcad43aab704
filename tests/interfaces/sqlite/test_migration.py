"""Migrating databases of earlier schemas: completely, by one process, or not at all.

``tests/fixtures/schema-1.db`` was made with the code of the commit before schema 2, by this script:

    FAR = 4102444800.0
    sweep.ONE_BY_ONE = 2  # three entries are a large prefix
    async with open_cache(Config(database=path)) as cache:
        json, text = "application/json", "text/plain; charset=utf-8"
        await cache.write(*(Set(f"gone/{n}", b"1", json) for n in range(3)))
        await cache.write(DeletePrefix("gone/"))
        await cache.write(Set("gone/1", b'"again"', json))
        await cache.write(Set("a", b'"plain"', json), Set("default/a", b'"slashed"', json))
        await cache.write(Set("b", b"1", json, FAR), Set("text", b"words", text))
        await cache.write(Set("large", bytes(range(256)) * 64, "application/octet-stream"))
        await cache.write(Set("k" * 1024, b"[]", json), Set("\u00fc/\U0010ffff", b"{}", json))
        await cache.write(Set("expired", b"0", json, cache.now() + 0.2))
        await cache.write(Increment("counter", 41, 1), Increment("counter", 1, 0))
        await cache.write(Set("deleted", b"0", json))
        await cache.write(Delete("deleted"))
        await asyncio.sleep(0.3)

``tests/fixtures/schema-2.db`` was made with the code of the commit before schema 3, by this:

    FAR = 4102444800.0
    sweep.ONE_BY_ONE = 2
    async with open_cache(Config(database=path)) as cache:
        json, text = "application/json", "text/plain; charset=utf-8"
        await cache.write(*(Set(f"default/gone/{n}", b"1", json) for n in range(3)))
        await cache.write(DeletePrefix("default/gone/"))
        await cache.write(Set("default/gone/1", b'"again"', json))
        await cache.write(Set("default/a", b'"plain"', json), Set("default/b", b"1", json, FAR))
        await cache.write(Set("default/text", b"words", text))
        await cache.write(
            Set("default/large", bytes(range(256)) * 64, "application/octet-stream")
        )
        await cache.write(Set("default/\u00fc/\U0010ffff", b"{}", json))
        await cache.write(Set("default/expired", b"0", json, cache.now() + 0.2))
        await asyncio.sleep(0.3)

``tests/fixtures/schema-3.db`` was made with the code of the commit before schema 4, by this:

    FAR = 4102444800.0
    async with open_database(Config(database=path)) as database:
        await database.put_tenant("other", max_entries=10)
        for scope in (DEFAULT, Scope("other")):
            for key in ("a", "b"):
                draft = database.draft(scope, key, "application/json", expires_at=FAR)
                await database.put(scope, draft, b"1")
            await database.delete(scope, "b")
        await database.create_token("t", TokenScope.READ, "other", "a", None)
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from tenantbase.coherence import sealed_item
from tenantbase.coherence.sealed_item import REJECTED, ItemSealer
from tenantbase.coherence.tag_file import TagFile
from tenantbase.entry import JSON, Entry
from tenantbase.errors import CannotOpen
from tenantbase.events import EventKind
from tenantbase.interfaces.cache import Fetched
from tenantbase.interfaces.sqlite import opening, schema
from tenantbase.interfaces.sqlite.read_only import reading
from tenantbase.json_requests import SetValue
from tenantbase.lookup import Lookup
from tenantbase.process.config import Config
from tenantbase.process.wiring import open_database
from tenantbase.scope import DEFAULT, Scope, plain_key
from tests.app_server import AppServer

FIXTURES: Final = Path(__file__).parents[2] / "fixtures"
NEWEST: Final = 4
LARGE: Final = bytes(range(256)) * 64
VALUES: Final = {
    "a": b'"plain"',
    "b": b"1",
    "counter": b"43",
    "default/a": b'"slashed"',
    "gone/1": b'"again"',
    "k" * 1024: b"[]",
    "large": LARGE,
    "text": b"words",
    "ü/\U0010ffff": b"{}",
}
VALUES_2: Final = {
    key: VALUES[key] for key in ("a", "b", "gone/1", "large", "text", "ü/\U0010ffff")
}
FAR: Final = 4102444800.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of schema 1."""
    return Path(shutil.copyfile(FIXTURES / "schema-1.db", tmp_path / "x.db"))


@pytest.fixture
def path_2(tmp_path: Path) -> Path:
    """A database of schema 2."""
    return Path(shutil.copyfile(FIXTURES / "schema-2.db", tmp_path / "x.db"))


@pytest.fixture
def path_3(tmp_path: Path) -> Path:
    """A database of schema 3, with two tenants and a token."""
    return Path(shutil.copyfile(FIXTURES / "schema-3.db", tmp_path / "x.db"))


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def contents(path: Path) -> dict[str, list[Any]]:
    """Every row of every table, and the schema's version."""
    tables = [name for (name,) in rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {name: rows(path, f"SELECT * FROM {name} ORDER BY 1") for name in tables}
    return {**found, "version": rows(path, "PRAGMA user_version")}


async def test_every_entry_is_where_it_was(path: Path) -> None:
    before = {row[1]: row for row in contents(path)["entries"]}
    async with open_database(Config(database=path)) as database:
        found: dict[str, Entry] = {}
        async for piece, _ in database.scan(DEFAULT):
            found.update(
                (entry.key[DEFAULT.plain], entry) for entry in piece if isinstance(entry, Entry)
            )
        assert {key: entry.value for key, entry in found.items()} == VALUES
        assert list(found) == sorted(found, key=str.encode)
        for key, entry in found.items():
            assert (await database.get(DEFAULT, key)).entry == entry
            _, _, version, expires_at, identifier, content_type, _ = before[key]
            assert (entry.version, entry.id) == (version, identifier)
            assert (entry.expires_at, entry.content_type) == (expires_at, content_type)
        assert found["b"].expires_at == FAR
        for absent in ("gone/0", "gone/2", "expired", "deleted", "default/default/a"):
            assert (await database.get(DEFAULT, absent)).entry is None
    assert rows(path, "PRAGMA user_version") == [(NEWEST,)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


async def test_versions_and_the_change_log_survive(path: Path) -> None:
    before = contents(path)
    async with open_database(Config(database=path)) as database:
        async with database.watch(DEFAULT, "", 0, lambda: None) as changes:
            events = [(e.version, e.kind, e.key) for e in await anext(changes)]
        assert events == before["changes"], "a resumed watch misses nothing"
        while await database.sweep():
            pass  # the remaining rows are under the deleted prefix, or expired
        newest = before["changes"][-1][0]
        applied = await database.set(DEFAULT, _given("new"))
        assert applied.entry is not None and applied.entry.version > newest
        assert (await database.set(DEFAULT, _given("a"))).created is False
        assert (await database.increment(DEFAULT, "counter")).entry is not None
    after = contents(path)
    keys = {row[1] for row in after["entries"]}
    assert keys == {f"default/{key}" for key in [*VALUES, "new"]}
    assert after["deleted_prefixes"] == []
    assert after["state"] == before["state"], "the secret stays"


async def test_a_deleted_prefix_stays_deleted(path: Path) -> None:
    async with open_database(Config(database=path)) as database:
        assert (await database.get(DEFAULT, "gone/1")).entry is not None
    assert rows(path, "SELECT low, high FROM deleted_prefixes") == [
        ("default/gone/", "default/gone0")
    ]
    covered = "SELECT key FROM entries WHERE created <= 4 ORDER BY 1"
    assert rows(path, covered) == [("default/gone/0",), ("default/gone/2",)]


def _given(key: str) -> SetValue:
    return SetValue(key, msgspec.Raw(b"1"))


def _shape(path: Path) -> list[Any]:
    statements = rows(path, "SELECT type, tbl_name, sql FROM sqlite_master ORDER BY 1, 2, 3")
    return [(kind, table, " ".join((sql or "").split())) for kind, table, sql in statements]


@pytest.mark.parametrize("version", range(1, NEWEST))
async def test_a_migrated_database_has_the_schema_of_a_new_one(
    tmp_path: Path, version: int
) -> None:
    path = Path(shutil.copyfile(FIXTURES / f"schema-{version}.db", tmp_path / "x.db"))
    new = tmp_path / "new.db"
    for each in (path, new):
        async with open_database(Config(database=each)):
            pass
    assert _shape(path) == _shape(new)


async def test_the_second_opening_changes_nothing(path: Path) -> None:
    for _ in range(2):
        async with open_database(Config(database=path)) as database:
            pieces = [piece async for piece, _ in database.scan(DEFAULT)]
            keys = [entry.key[DEFAULT.plain] for piece in pieces for entry in piece]
        assert sorted(keys) == sorted(VALUES)


_KILLED: Final = """
import os, signal, sqlite3, sys
from tenantbase.interfaces.sqlite import opening, schema

statement, version = int(sys.argv[2]), int(sys.argv[3])
steps = list(schema.MIGRATIONS[version - 1])

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

connection = opening._connect(sys.argv[1], "rw", 5.0)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("PRAGMA cache_size = 2")  # what is not committed reaches the file's log, too
connection.create_function("die", 0, die)
steps.insert(statement, "SELECT die()")
schema.migrate(connection, [*schema.MIGRATIONS[: version - 1], steps])
"""
_STEPS: Final = [
    (version, statement)
    for version in range(2, NEWEST + 1)
    for statement in range(len(schema.MIGRATIONS[version - 1]) + 1)
]


@pytest.mark.parametrize(("version", "statement"), _STEPS)
async def test_a_killed_migration_leaves_the_schema_before_it(
    tmp_path: Path, version: int, statement: int
) -> None:
    path = Path(shutil.copyfile(FIXTURES / f"schema-{version - 1}.db", tmp_path / "x.db"))
    before = contents(path)
    run = subprocess.run(
        [sys.executable, "-c", _KILLED, str(path), str(statement), str(version)], timeout=60
    )
    assert run.returncode == -signal.SIGKILL
    assert contents(path) == before
    async with open_database(Config(database=path)) as database:
        assert (await database.get(DEFAULT, "a")).entry is not None


@pytest.mark.parametrize(("version", "statement"), _STEPS)
def test_a_failed_migration_leaves_the_schema_before_it(
    tmp_path: Path, version: int, statement: int
) -> None:
    path = Path(shutil.copyfile(FIXTURES / f"schema-{version - 1}.db", tmp_path / "x.db"))
    before = contents(path)
    steps = list(schema.MIGRATIONS[version - 1])
    steps.insert(statement, "SELECT nonsense")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError):
            schema.migrate(connection, [*schema.MIGRATIONS[: version - 1], steps])
    assert contents(path) == before


# Alone


_HOLDS: Final = """
import sys
from pathlib import Path
from tenantbase.coherence.tag_file import TagFile

tags = TagFile.open(Path(sys.argv[1] + "-tags"))
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the database open, as one of the earlier version would."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.stdin.close()


async def test_only_a_process_that_is_alone_migrates(
    path: Path, other: subprocess.Popen[str]
) -> None:
    before = contents(path)
    for _ in range(2):
        with pytest.raises(CannotOpen) as caught:
            async with open_database(Config(database=path)):
                pass
        line = str(caught.value)
        assert "another process has it open" in line and str(path) in line and "\n" not in line
    assert contents(path) == before
    assert other.stdin is not None
    other.stdin.close()
    assert other.wait(20) == 0
    async with open_database(Config(database=path)) as database:
        assert (await database.get(DEFAULT, "a")).entry is not None


def test_a_process_that_is_not_alone_keeps_its_shared_lock(tmp_path: Path) -> None:
    file = tmp_path / "x.db-tags"
    first = TagFile.open(file)
    assert first.is_alone()
    second = TagFile.open(file)
    assert not first.is_alone() and not second.is_alone()
    assert first.tag(7) == second.tag(7)
    second.close()
    assert file.exists(), "the other one still shares it"
    assert first.is_alone()
    first.close()
    assert not file.exists()


def test_a_tag_file_that_was_removed_meanwhile(tmp_path: Path) -> None:
    tags = TagFile.open(tmp_path / "x.db-tags")
    tags.path.unlink()
    with pytest.raises(CannotOpen, match="was removed by another process"):
        tags.is_alone()
    tags.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_migrates_before_it_serves(path: Path, workers: str) -> None:
    with AppServer(path, "--workers", workers) as server:
        assert server.ask("GET", "/get-value?key=a").json["value"] == "plain"
        assert server.ask("GET", "/get-value?key=default/a").json["value"] == "slashed"
        assert server.stop() == 0
        assert len(server.stderr.splitlines()) == 1
        assert f"from schema 1 to {NEWEST}" in server.stderr


def test_a_newer_schema_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {NEWEST + 1}")
    line = rf"a newer tenantbase \(schema {NEWEST + 1}, this one %s {NEWEST}\)$"
    with pytest.raises(CannotOpen, match=line % "knows"):
        opening.open_writer(str(path), 1.0)
    with pytest.raises(CannotOpen, match=line % "reads"):
        with reading(str(path)):
            pass


@pytest.mark.parametrize("version", range(1, NEWEST))
def test_a_read_only_database_says_what_to_do(tmp_path: Path, version: int) -> None:
    path = Path(shutil.copyfile(FIXTURES / f"schema-{version}.db", tmp_path / "x.db"))
    before = path.read_bytes()
    with pytest.raises(CannotOpen) as caught:
        with reading(str(path)):
            pass
    line = str(caught.value)
    assert line.endswith(
        "it is read-only, and was made by an earlier tenantbase"
        f" (schema {version}, this one reads {NEWEST});"
        " to convert it, open it where it may be written"
    )
    assert path.read_bytes() == before


# From schema 2


def usage(path: Path) -> list[Any]:
    return rows(path, "SELECT name, entries, bytes FROM tenants")


def expected_usage(values: dict[str, bytes]) -> list[Any]:
    """Of these entries, and of ``expired``, which counts until it is swept."""
    counted = {**values, "expired": b"0"}
    return [("default", len(counted), sum(len(k.encode()) + len(v) for k, v in counted.items()))]


async def test_entries_of_schema_1_are_counted(path: Path) -> None:
    async with open_database(Config(database=path)):
        assert usage(path) == expected_usage(VALUES)


async def test_schema_3_is_kept_and_new_changes_have_details(path_3: Path) -> None:
    before = contents(path_3)
    async with open_database(Config(database=path_3)) as database:
        other = Scope("other")
        for scope in (DEFAULT, other):
            entry = (await database.get(scope, "a")).entry
            assert entry is not None and (entry.value, entry.expires_at) == (b"1", FAR)
            assert (await database.get(scope, "b")).entry is None
        (token,) = await database.tokens()
        assert (token.name, token.tenant, token.prefix) == ("t", "other", "a")
        async with database.watch(other, "", 0, lambda: None) as changes:
            events = await anext(changes)
            assert [(e.key, e.kind, e.size) for e in events] == [
                ("a", EventKind.SET, None),
                ("b", EventKind.SET, None),
                ("b", EventKind.DELETE, None),
            ]
            await database.set(other, SetValue("c", msgspec.Raw(b"123")))
            (event,) = await anext(changes)
            assert (event.size, event.content_type) == (3, "application/json")
    after = contents(path_3)
    for table in ("deleted_prefixes", "state", "tokens", "access"):
        assert after[table] == before[table]


async def test_entries_of_schema_2_are_counted_and_kept(path_2: Path) -> None:
    before = contents(path_2)
    async with open_database(Config(database=path_2)) as database:
        for key, value in VALUES_2.items():
            entry = (await database.get(DEFAULT, key)).entry
            assert entry is not None and entry.value == value
        listed = [
            each.key[DEFAULT.plain] async for piece, _ in database.scan(DEFAULT) for each in piece
        ]
        assert listed == sorted(VALUES_2, key=str.encode)
        assert usage(path_2) == expected_usage(VALUES_2)
    after = contents(path_2)
    for table in ("entries", "deleted_prefixes", "state"):
        assert after[table] == before[table]
    assert [line[:3] for line in after["changes"]] == before["changes"]
    assert after["access"] == [(1, 0)] and after["tokens"] == [], "it is open"
    assert after["version"] == [(NEWEST,)]
    assert rows(path_2, "PRAGMA integrity_check") == [("ok",)]


async def test_an_empty_database_of_schema_2_has_the_tenant_default(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema.migrate(connection, schema.MIGRATIONS[:2])
        schema.migrate(connection)
    assert usage(path) == [("default", 0, 0)]


def test_items_of_the_earlier_version_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier version's key ``default/a`` has the same name in memcached as ``a`` has now."""
    sealer = ItemSealer(b"s" * 32)
    slot, tag = sealer.slot(DEFAULT.key("a")), (b"e" * 16, 2)
    entry = Entry(slot.key, b'"slashed"', JSON, "0" * 36, 7, None)
    assert plain_key(entry.key) == "a"
    opened = sealer.open(Fetched(sealer.seal(slot.name, tag, entry), b"1"), slot, tag)
    assert isinstance(opened, Lookup) and opened.entry == entry
    monkeypatch.setattr(sealed_item, "_MAGIC", b"TBF\x01")
    earlier = sealer.seal(slot.name, tag, entry)
    monkeypatch.undo()
    assert sealer.open(Fetched(earlier, b"2"), slot, tag) is REJECTED
