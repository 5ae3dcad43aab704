"""What is particular to SQLite: the file, opening it, its locks, its failures, its speed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tenantbase.entry import JSON
from tenantbase.errors import (
    CannotOpen,
    OutcomeUnknown,
    StoreFull,
    StoreUnavailable,
    TenantbaseError,
)
from tenantbase.fence import WriteLock
from tenantbase.interfaces import sql_commit, sql_queries, sql_rows, sql_schema, sql_sweep
from tenantbase.interfaces.sql_interface import SqlStore
from tenantbase.interfaces.store import Applied, Change, DeletePrefix, Increment, Set, Sweep
from tests.fakes import Granted, RecordingFence

NOW = 1_000.0
ROOT = Path(__file__).parent.parent


class Files:
    """A database in a directory of its own, with its write lock, and what is beside it."""

    def __init__(self, directory: Path, name: str = "x.db") -> None:
        self.path = directory / name
        self.wal = directory / f"{name}-wal"
        self.lock = WriteLock(directory / "lock")

    async def open(self, **settings: float) -> SqlStore:
        return await SqlStore.open(self.path, self.lock.held, **settings)  # type: ignore[arg-type]

    def foreign(self) -> contextlib.closing[sqlite3.Connection]:
        """A connection as some other program would have it."""
        return contextlib.closing(sqlite3.connect(self.path, isolation_level=None, timeout=0.0))

    def names(self) -> set[str]:
        return {path.name for path in self.path.parent.iterdir()} - {"lock"}


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    files = Files(tmp_path)
    yield files
    files.lock.close()


@pytest.fixture
async def store(files: Files) -> AsyncIterator[SqlStore]:
    store = await files.open(busy_timeout=0.05)
    yield store
    await store.close()


async def write(
    store: SqlStore, *changes: Change, fence: RecordingFence | None = None
) -> tuple[Applied, ...] | TenantbaseError:
    written = await store.write([Granted(*changes)], NOW, fence or RecordingFence())
    (outcome,) = written.outcomes
    assert outcome is not None
    return outcome


async def put(store: SqlStore, key: str, value: bytes = b"1") -> None:
    assert isinstance(await write(store, Set(key, value, JSON)), tuple)


async def values(store: SqlStore, *keys: str) -> list[bytes | None]:
    return [entry and entry.value for entry in await store.read(keys, NOW)]


async def refusal(store: SqlStore, *changes: Change) -> TenantbaseError:
    outcome = await write(store, *changes)
    assert isinstance(outcome, TenantbaseError)
    return outcome


def intact(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return bool(connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)])


# The file


async def test_the_settings_are_in_force(store: SqlStore) -> None:
    def settings(connection: sqlite3.Connection, *names: str) -> list[object]:
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    names = ("journal_mode", "synchronous", "fullfsync", "checkpoint_fullfsync")
    writer = await store._writer.run(settings, *names, "wal_autocheckpoint")
    assert writer == ["wal", 2, 1, 1, 0]
    for reader in store._readers:
        assert await reader.run(settings, "journal_mode", "query_only") == ["wal", 1]


async def test_readers_cannot_write(store: SqlStore) -> None:
    def insist(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA query_only = 0")
        connection.execute("DELETE FROM entries")

    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await store._readers[0].run(insist)


async def test_only_the_owner_may_read_the_files(files: Files) -> None:
    before = os.umask(0)
    try:
        store = await files.open()
        await put(store, "k")
    finally:
        os.umask(before)
    assert files.names() == {"x.db", "x.db-wal", "x.db-shm"}
    for name in files.names():
        assert (files.path.parent / name).stat().st_mode & 0o777 == 0o600, name
    await store.close()


async def test_the_mode_of_an_existing_file_is_its_owners_business(files: Files) -> None:
    await (await files.open()).close()
    files.path.chmod(0o640)
    store = await files.open()
    assert files.path.stat().st_mode & 0o777 == 0o640
    await store.close()


async def test_only_the_database_is_left(files: Files) -> None:
    store = await files.open()
    await put(store, "k")
    await store.close()
    assert files.names() == {"x.db"}
    assert intact(files.path)


@pytest.mark.parametrize(
    "name", ["a b.db", "a?mode=memory.db", "a#b.db", "a%41.db", "é.db", "a;b'c\"d.db", ":memory:"]
)
async def test_any_file_name(tmp_path: Path, name: str) -> None:
    files = Files(tmp_path, name)
    store = await files.open()
    await put(store, "k")
    assert await values(store, "k") == [b"1"]
    assert name in files.names()
    await store.close()
    assert files.names() == {name}
    files.lock.close()


async def test_a_relative_path_stays_what_it_was(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = await SqlStore.open("x.db", files.lock.held)
    monkeypatch.chdir("/")
    await put(store, "k")
    await store.check()
    await store.close()


# Opening


async def cannot_open(files: Files) -> str:
    """The one line that says why; nothing is left open."""
    threads = threading.active_count()
    with pytest.raises(CannotOpen) as raised:
        await files.open()
    line = str(raised.value)
    assert "\n" not in line and str(files.path) in line
    assert not re.search("SELECT|PRAGMA|BEGIN|sqlite3", line)
    assert threading.active_count() <= threads + 1  # asyncio.to_thread keeps one
    with files.lock.held():
        pass
    return line


async def test_a_newer_schema_is_refused(files: Files) -> None:
    await (await files.open()).close()
    with files.foreign() as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "made by a newer tenantbase (schema 99, this one knows 1)" in await cannot_open(files)


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE theirs (x)"],
        ["PRAGMA application_id = 7"],
        ["PRAGMA user_version = 1"],
        ["PRAGMA journal_mode = WAL", "CREATE TABLE entries (x)", "INSERT INTO entries VALUES (1)"],
    ],
)
async def test_somebody_elses_database_is_not_touched(files: Files, statements: list[str]) -> None:
    with files.foreign() as connection:
        for statement in statements:
            connection.execute(statement)
    before = files.path.read_bytes()
    assert "of another program" in await cannot_open(files)
    assert files.path.read_bytes() == before
    assert files.names() == {"x.db"}


async def test_an_empty_file_becomes_a_database(files: Files) -> None:
    files.path.touch(0o600)
    store = await files.open()
    await put(store, "k")
    await store.close()


async def test_what_is_no_database_is_refused(files: Files) -> None:
    files.path.write_bytes(b"My shopping list.\n" * 1_000)
    assert "not a database" in await cannot_open(files)
    assert files.path.read_bytes() == b"My shopping list.\n" * 1_000


async def test_a_damaged_database_is_refused(files: Files) -> None:
    store = await files.open()
    await put(store, "k")
    await store.close()
    damaged = bytearray(files.path.read_bytes())
    damaged[100:4096] = os.urandom(3996)
    files.path.write_bytes(damaged)
    assert "damaged" in await cannot_open(files)


async def test_a_database_without_its_secret_is_refused(files: Files) -> None:
    await (await files.open()).close()
    with files.foreign() as connection:
        connection.execute("DELETE FROM state")
    assert "damaged" in await cannot_open(files)


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
@pytest.mark.parametrize("new", [True, False])
async def test_a_locked_database_is_refused_after_a_moment(
    files: Files, begin: str, new: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_schema, "_OPEN_WAIT", 0.1)
    if not new:
        await (await files.open()).close()
    with files.foreign() as connection:
        connection.execute(begin)
        assert "locked by another program" in await cannot_open(files)
    store = await files.open()
    await put(store, "k")
    await store.close()


async def test_what_is_not_a_file_is_refused(files: Files) -> None:
    files.path.mkdir()
    assert "it is not a file" in await cannot_open(files)
    files.path.rmdir()
    os.mkfifo(files.path)
    assert "it is not a file" in await cannot_open(files)
    files.path.unlink()
    files.path.symlink_to("nowhere")
    assert "No such file" in await cannot_open(files)


async def test_a_missing_directory_is_named(files: Files) -> None:
    files.path = files.path.parent / "missing" / "x.db"
    assert "there is no such directory" in await cannot_open(files)


OPEN_WITHOUT_RIGHTS = """
    import asyncio, contextlib, os, sys
    from tenantbase.errors import CannotOpen
    from tenantbase.interfaces.sql_interface import SqlStore
    # Imported, so that nobody needs to read anything from here on; root may write everywhere.
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    async def main():
        try:
            await SqlStore.open(sys.argv[1], contextlib.nullcontext)
        except CannotOpen as error:
            print(error)
    asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("mode", "directory_mode", "reason"),
    [
        (0o444, 0o555, "read-only"),
        (0o444, 0o777, "read-only"),
        (0o666, 0o555, "cannot be opened"),
        (0o000, 0o777, "cannot be opened"),
        (None, 0o555, "cannot make"),
    ],
)
async def test_missing_rights_are_named(
    mode: int | None, directory_mode: int, reason: str, open_directory: Path
) -> None:
    files = Files(open_directory)
    if mode is not None:
        await (await files.open()).close()
        files.path.chmod(mode)
    files.lock.path.unlink()
    files.lock.close()
    open_directory.chmod(directory_mode)
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(OPEN_WITHOUT_RIGHTS), files.path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    open_directory.chmod(0o700)
    assert run.stderr == ""
    assert reason in run.stdout and len(run.stdout.splitlines()) == 1


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that others than its owner can reach; tmp_path is in a private one."""
    import shutil
    import tempfile

    directory = Path(tempfile.mkdtemp())
    yield directory
    shutil.rmtree(directory)
