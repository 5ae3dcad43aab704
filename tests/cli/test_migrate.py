"""``tenantbase migrate``, from a file to a real PostgreSQL and back."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tenantbase.commands import Command, Delete, DeletePrefix, Set
from tenantbase.entry import JSON, OCTETS
from tenantbase.interfaces.postgres.store import PostgresStore
from tenantbase.interfaces.sqlite.queries import DELETED
from tests.app_server import AppServer, clean_environment
from tests.command import command, invoked, refused
from tests.fakes import Granted
from tests.interfaces.shared import name_hash, open_postgres
from tests.postgres import PostgresProcess, programs
from tests.servers import free_port, poll
from tests.service import opened

ENTRIES = 1_200
STEPS = 7  # of a move of the original, to PostgreSQL
ROW = "key, created, version, expires_at, id, content_type, value"
LIMITS = "max_entries, max_bytes, max_requests_per_second"
TOKEN = "id, digest, name, scope, tenant, prefix, created_at, expires_at"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresProcess]:
    with PostgresProcess() as server:
        yield server


_numbers = count()


class Place:
    """An empty database on the server, and what is in it after a move."""

    def __init__(self, server: PostgresProcess) -> None:
        self._server = server
        self.name = f"moved{next(_numbers)}"
        server.sql(f"CREATE DATABASE {self.name} OWNER tenantbase")
        self.url = server.url(self.name)

    def sql(self, statement: str) -> str:
        return self._server.sql(
            f"SET search_path TO tenantbase, tenantbase_moving; {statement}", self.name
        )

    def connections(self) -> int:
        """Those of tenantbase to this database."""
        return int(
            self._server.sql(
                "SELECT count(*) FROM pg_stat_activity"
                f" WHERE datname = '{self.name}' AND application_name = 'tenantbase'"
            )
        )

    @contextmanager
    def session(self) -> Iterator[None]:
        """A connection like a server's, open inside the block."""
        command = [str(programs() / "psql"), f"{self.url}?application_name=tenantbase", "-X", "-q"]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as psql:
            poll(lambda: self.connections() == 1, "it is connected")
            yield
            psql.communicate()

    async def changed(self, target: Path) -> int:
        """Move it to a file, while a store changes it. Returns: its version in the end."""
        move = ("migrate", "--store-unreplicated", "--from", self.url, "--to", str(target))
        store = await open_postgres(self.url)
        try:
            assert (await asyncio.to_thread(command, *move)).returncode == 0
            await self._write(store, Set("default/new", b"5", JSON))
            await self._write(store, Set("default/k00001", b"6", JSON), Delete("default/k00003"))
            many = [Set(f"default/many/{number:05}", b"1", JSON) for number in range(1_500)]
            await self._write(store, *many)
            assert (await asyncio.to_thread(command, *move)).returncode == 0
            await self._write(store, DeletePrefix("default/many/"))
            await self._write(store, DeletePrefix("default/k008"))
            await self._write(store, Set("default/many/after", b"7", JSON))
            refusal = await asyncio.to_thread(command, *move, "--finish")
            assert refused(refusal, "servers have", "stop them first") and not target.exists()
            version = await store.last_version()
        finally:
            await store.close()
        poll(lambda: self.connections() == 0, "its connections are closed")
        assert (await asyncio.to_thread(command, *move, "--finish")).returncode == 0
        return version

    @staticmethod
    async def _write(store: PostgresStore, *commands: Command) -> None:
        (outcome,) = (await store.commit([Granted(*commands)], name_hash)).outcomes
        assert isinstance(outcome, tuple), outcome


@pytest.fixture
def place(postgres: PostgresProcess) -> Place:
    return Place(postgres)


async def fill(database: Path) -> None:
    """Entries of all kinds, and more than one page of them; also some under a deleted prefix."""
    soon = time.time() + 1e6
    async with opened(database) as cache:
        await cache.write(
            *(
                Set(
                    f"default/k{number:05}",
                    b"1" + b"0" * (number % 300),
                    JSON,
                    soon if number % 3 else None,
                )
                for number in range(ENTRIES)
            )
        )
        await cache.write(*(Set(f"default/gone/{number}", b"1", JSON) for number in range(2_000)))
        await cache.write(DeletePrefix("default/gone/"))
        await cache.write(Set("default/gone/after", b"2", JSON))
        await cache.write(Set("default/\u00e9/\U0001f600 '\\", b"[1.0]", JSON))
        await cache.write(Set("default/k00001", b"7", JSON), Delete("default/k00002"))
        await cache.write(
            *(Set(f"default/large{n}", bytes([n]) * (3 << 20), OCTETS) for n in (1, 2, 3))
        )


def run(*arguments: object) -> str:
    done = invoked(*map(str, arguments))
    assert (done.returncode, done.stderr) == (0, b""), done.stderr
    return done.stdout.decode()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with everything there is to move. Tests copy it."""
    database = tmp_path_factory.mktemp("original") / "x.db"
    asyncio.run(fill(database))
    at = ("--database", database)
    run("tenant", "create", "acme", "--max-entries", 10, "--max-bytes", "1MiB", *at)
    run("tenant", "create", "idle", *at)
    run("set", "k", '{"a": 1}', "--tenant", "acme", *at)
    run("token", "create", "root", "--scope", "admin", *at)
    run("token", "create", "reader", "--scope", "read", "--tenant", "acme", "--prefix", "p/", *at)
    return database


@pytest.fixture
def database(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path / "x.db"))


def table(database: Path, columns: str, of: str, order: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(f"SELECT {columns} FROM {of} ORDER BY {order}").fetchall()


def contents(database: Path) -> dict[str, list[Any]]:
    """All that a move must keep."""
    return {
        "entries": table(database, ROW, f"entries WHERE NOT {DELETED}", "key"),
        "tenants": table(database, f"name, entries, bytes, {LIMITS}", "tenants", "name"),
        "tokens": table(database, TOKEN, "tokens", "rowid"),
        "access": table(database, "*", "access", "1"),
        "last": table(database, "*", "changes", "version DESC LIMIT 1"),
    }


def migrate(source: object, target: object, *options: str) -> subprocess.CompletedProcess[bytes]:
    where = ("--from", str(source), "--to", str(target))
    return command("migrate", "--store-unreplicated", *where, *options)


def succeeds(source: object, target: object, *options: str) -> str:
    done = migrate(source, target, *options)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr
    return done.stdout.decode()


def test_there_and_back(database: Path, place: Place, tmp_path: Path) -> None:
    before = contents(database)
    assert "stop the servers" in succeeds(database, place.url)
    assert place.sql("SELECT to_regnamespace('tenantbase') IS NULL") == "t", "servers see nothing"
    said = succeeds(database, place.url, "--finish")
    version, entries = before["last"][0][0], len(before["entries"])
    found = re.search("moved ([0-9,]+) entries, all compared, checksum ([0-9a-f]{32})", said)
    assert found and int(found[1].replace(",", "")) == entries
    assert place.sql("SELECT position, trimmed, closed FROM clock") == f"{version}|{version}|t"
    assert place.sql("SELECT count(*) FROM entries") == str(entries)
    assert place.sql("SELECT max(position) FROM changes") == str(version)
    assert contents(database) == before, "the old one is as it was"
    back = tmp_path / "back.db"
    again = succeeds(place.url, back, "--finish")
    assert again == said
    assert contents(back) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.db", "x.db"]
    assert back.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(back)) as new, closing(sqlite3.connect(database)) as old:
        secret = "SELECT secret FROM state"
        assert new.execute(secret).fetchone() != old.execute(secret).fetchone()
        assert new.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert run("check", "--database", back).startswith("ok: ")
    run("set", "new", "1", "--database", back)
    assert contents(back)["last"][0][0] == version + 1


@contextmanager
def writing(server: AppServer) -> Iterator[None]:
    """Set, change and delete keys until the block ends."""
    stop = threading.Event()

    def write() -> None:
        for number in count():
            if stop.is_set():
                return
            body = json.dumps({"key": f"w{number % 700:03}", "value": number}).encode()
            assert server.ask("POST", "/set-value", body).status == 200
            server.ask("DELETE", f"/delete-value?key=k{number % ENTRIES:05}")
            if number % 50 == 0:
                server.ask("POST", "/delete-values", b'{"prefix": "w1"}')

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


def test_while_servers_write(original: Path, tmp_path: Path, place: Place) -> None:
    database = tmp_path / "x.db"
    asyncio.run(fill(database))
    with AppServer(database) as server, writing(server):
        for _ in range(2):
            version = int(
                re.findall("version ([0-9,]+)", succeeds(database, place.url))[0].replace(",", "")
            )
        done = migrate(database, place.url, "--finish")
        assert refused(done, "another process has", "stop it first")
    assert contents(database)["last"][0][0] > version
    succeeds(database, place.url, "--finish")
    succeeds(place.url, tmp_path / "back.db", "--finish")
    assert contents(tmp_path / "back.db") == contents(database)


def test_from_postgresql_while_servers_write(database: Path, place: Place, tmp_path: Path) -> None:
    succeeds(database, place.url, "--finish")
    first = contents(database)["last"][0][0]
    back = tmp_path / "back.db"
    version = asyncio.run(place.changed(back))
    assert version > first + 1_000
    entries = {row[0]: row for row in contents(back)["entries"]}
    assert entries["default/new"][2] > first and entries["default/new"][5:] == (JSON, b"5")
    assert entries["default/k00001"][6] == b"6" and entries["default/k00001"][2] > first
    before = {row[0]: row for row in contents(database)["entries"]}
    assert entries["default/k00001"][4] == before["default/k00001"][4], "it keeps its id"
    assert "default/k00003" not in entries and "default/k00800" not in entries
    assert entries["default/k00007"] == before["default/k00007"]
    assert entries["default/many/after"][6] == b"7"
    assert not any(key.startswith("default/many/0") for key in entries)
    assert run("check", "--database", back).startswith("ok: ")
    run("set", "newer", "1", "--database", back)
    assert contents(back)["last"][0][0] == version + 1


def test_versions_that_were_skipped_are_never_given(
    database: Path, place: Place, tmp_path: Path
) -> None:
    succeeds(database, place.url, "--finish")
    # As when another server becomes the primary.
    place.sql("UPDATE clock SET position = position + 1048576")
    version = contents(database)["last"][0][0] + 1_048_576
    succeeds(place.url, tmp_path / "back.db", "--finish")
    assert contents(tmp_path / "back.db")["last"] == [(version, "reset", "", None, None, None)]
    assert contents(tmp_path / "back.db")["entries"] == contents(database)["entries"]


def test_killed_at_each_step_to_postgresql(database: Path, postgres: PostgresProcess) -> None:
    for step in count():
        place = Place(postgres)
        killed = killed_at(step, database, place.url)
        if not killed:
            break
        assert place.sql("SELECT to_regnamespace('tenantbase') IS NULL") == "t"
        succeeds(database, place.url, "--finish")
        version = contents(database)["last"][0][0]
        assert place.sql("SELECT position FROM clock") == str(version)
        assert place.sql("SELECT count(*) FROM tenants, tokens") == "6"
        assert place.sql("SELECT to_regclass('moving') IS NULL") == "t"
    assert step == STEPS


def test_killed_at_each_step_from_postgresql(
    database: Path, place: Place, postgres: PostgresProcess, tmp_path: Path
) -> None:
    succeeds(database, place.url, "--finish")
    for step in count():
        target = tmp_path / f"target{step}.db"
        killed = killed_at(step, place.url, target)
        if not killed:
            break
        assert not target.exists()
        poll(lambda: place.connections() == 0, "the server has noticed that it was killed")
        succeeds(place.url, target, "--finish")
        assert contents(target) == contents(database)
    assert step == STEPS + 1, "and before the file gets its name"


def killed_at(step: int, source: object, target: object) -> bool:
    """Begin a move, and kill it at a step. Returns: whether it had one of this number."""
    where = ["--from", str(source), "--to", str(target)]
    arguments = ["migrate", "--store-unreplicated", *where, "--finish"]
    killed = subprocess.run(
        [sys.executable, "-m", "tests.process.killed_move", str(step), *arguments],
        capture_output=True,
        env=clean_environment(),
    )
    assert killed.returncode in (0, -signal.SIGKILL), killed.stderr
    return killed.returncode != 0


def test_a_second_run_goes_on_where_the_first_was(
    database: Path, place: Place, tmp_path: Path
) -> None:
    # What the first run has copied is not copied again, as the comparison then finds.
    remove = "DELETE FROM entries WHERE key = 'default/gone/after'"
    expected = ("the copy is not correct", "'default/gone/after'")
    assert killed_at(2, database, place.url)
    place.sql(remove)
    assert refused(migrate(database, place.url, "--finish"), *expected)
    assert place.sql("SELECT to_regnamespace('tenantbase') IS NULL") == "t"
    place.sql("DROP SCHEMA tenantbase_moving CASCADE")
    succeeds(database, place.url, "--finish")
    target = tmp_path / "back.db"
    assert killed_at(2, place.url, target)
    with closing(sqlite3.connect(f"{target}.moving")) as connection, connection:
        connection.execute(remove)
    poll(lambda: place.connections() == 0, "the server has noticed that it was killed")
    assert refused(migrate(place.url, target, "--finish"), *expected)
    assert not target.exists()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE entries SET value = 'y' WHERE key = 'default/k00004'",
        "UPDATE entries SET expires_at = expires_at + 0.001 WHERE key = 'default/k00004'",
        "UPDATE entries SET version = version + 1 WHERE key = 'default/k00004'",
        "INSERT INTO entries SELECT 'zzz/k', 1, 1, NULL, id, 'a/b', '' FROM entries LIMIT 1",
    ],
)
def test_every_row_is_compared(database: Path, place: Place, damage: str) -> None:
    succeeds(database, place.url)
    place.sql(damage)
    done = migrate(database, place.url, "--finish")
    assert refused(done, "the copy is not correct", "k00004" if "k00004" in damage else "zzz/k")


def test_a_trimmed_change_log_begins_again(database: Path, place: Place, tmp_path: Path) -> None:
    succeeds(database, place.url)
    run("delete", "k00005", "--database", database)
    run("set", "k00006", "1", "--database", database)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM changes WHERE version < (SELECT max(version) FROM changes)")
    succeeds(database, place.url, "--finish")
    assert place.sql("SELECT count(*) FROM entries WHERE key = 'default/k00005'") == "0"
    back = tmp_path / "back.db"
    succeeds(place.url, back)
    place.sql(
        "BEGIN; DELETE FROM entries WHERE key IN ('default/k00006', 'default/k00007');"
        " INSERT INTO changes SELECT position + 1, 'delete', 'default/k00006' FROM clock;"
        " INSERT INTO changes SELECT position + 2, 'delete', 'default/k00007' FROM clock;"
        " UPDATE clock SET position = position + 2;"
        " DELETE FROM changes WHERE position < (SELECT position FROM clock); COMMIT"
    )
    succeeds(place.url, back, "--finish")
    assert len(contents(back)["entries"]) == len(contents(database)["entries"]) - 2


def test_the_target_must_be_new(database: Path, place: Place, tmp_path: Path) -> None:
    succeeds(database, place.url)
    other = tmp_path / "other.db"
    run("set", "a", "1", "--database", other)
    done = migrate(other, place.url)
    assert refused(done, "an unfinished copy of another database")
    succeeds(database, place.url, "--finish")
    assert refused(migrate(database, place.url), "a database of tenantbase already")
    assert refused(migrate(place.url, other), "other.db exists")
    assert refused(migrate(place.url, tmp_path / "no" / "x.db"), "there is no directory")


def test_the_source_must_be_ours_and_free(
    database: Path, place: Place, postgres: PostgresProcess, tmp_path: Path
) -> None:
    assert refused(migrate(tmp_path / "none.db", place.url), "there is no database")
    assert refused(migrate(place.url, tmp_path / "b.db"), "has no tables of tenantbase")
    succeeds(database, place.url, "--finish")
    with place.session():
        done = migrate(place.url, tmp_path / "b.db", "--finish")
        assert refused(done, "servers have 1 connections", "stop them first")
    assert not (tmp_path / "b.db").exists()


def test_wrong_places_are_explained(database: Path, tmp_path: Path) -> None:
    both = "expected a file and a postgresql:// URL"
    assert refused(migrate(database, tmp_path / "b.db"), both, status=2)
    secret = "postgresql://u:secret@/x"
    done = migrate(database, secret)
    assert refused(done, "--to: ", status=2) and b"secret" not in done.stderr
    away = f"postgresql://u:secret@127.0.0.1:{free_port()},[::1]:{free_port()}/x"
    done = migrate(database, away)
    assert refused(done, "cannot open database 'x'", "127.0.0.1", "[::1]")
    assert b"secret" not in done.stderr
