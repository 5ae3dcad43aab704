"""The SQLite store's own behaviour: the file, opening, locks, failures, queries."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from functools import partial
from pathlib import Path

import pytest

from tenantbase.coherence.tag_seqlock import WriteLock
from tenantbase.commands import (
    Applied,
    Command,
    Condition,
    Delete,
    DeletePrefix,
    Increment,
    Set,
    Sweep,
)
from tenantbase.entry import JSON
from tenantbase.errors import (
    CannotOpen,
    Damaged,
    DiskFailed,
    OutcomeUnknown,
    StoreError,
    StoreFull,
    StoreUnavailable,
    TenantbaseError,
)
from tenantbase.interfaces.sqlite import checkpoints as sql_checkpoints
from tenantbase.interfaces.sqlite import in_place as sql_in_place
from tenantbase.interfaces.sqlite import opening as sql_opening
from tenantbase.interfaces.sqlite import prefix_counts as sql_counts
from tenantbase.interfaces.sqlite import queries as sql_queries
from tenantbase.interfaces.sqlite import rows as sql_rows
from tenantbase.interfaces.sqlite import schema as sql_schema
from tenantbase.interfaces.sqlite import sweep as sql_sweep
from tenantbase.interfaces.sqlite import usage as sql_usage
from tenantbase.interfaces.sqlite.reserve import LOG_BYTES
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.listing import KeyRange
from tests.fakes import Granted, RecordingSeqlock
from tests.servers import poll

NOW = 1_000.0
DISK_ERRORS = "disk errors: the database cannot be written: the disk reports an error"
ROOT = Path(__file__).parent.parent


class Files:
    """A database in its own directory, with its write lock and the files beside it."""

    def __init__(self, directory: Path, name: str = "x.db") -> None:
        self.path = directory / name
        self.wal = directory / f"{name}-wal"
        self.lock = WriteLock(directory / "lock")
        self._stores: list[SqliteStore] = []

    async def open(self, **settings: float) -> SqliteStore:
        store = await SqliteStore.open(self.path, self.lock.held, **settings)  # type: ignore[arg-type]
        self._stores.append(store)
        return store

    async def close(self) -> None:
        """Close what a failed test has left open, because threads would remain."""
        for store in self._stores:
            await store.close()
        self.lock.close()

    def foreign(self) -> contextlib.closing[sqlite3.Connection]:
        """A connection as another program would open it."""
        return contextlib.closing(sqlite3.connect(self.path, isolation_level=None, timeout=0.0))

    def names(self) -> set[str]:
        return {path.name for path in self.path.parent.iterdir()} - {"lock"}


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[Files]:
    files = Files(tmp_path)
    yield files
    await files.close()


@pytest.fixture
async def store(files: Files) -> SqliteStore:
    return await files.open(busy_timeout=0.05)


async def write(
    store: SqliteStore, *changes: Command, seqlock: RecordingSeqlock | None = None
) -> tuple[Applied, ...] | TenantbaseError:
    written = await store.write([Granted(*changes)], NOW, seqlock or RecordingSeqlock())
    (outcome,) = written.outcomes
    assert outcome is not None
    return outcome


async def put(store: SqliteStore, key: str, value: bytes = b"1") -> None:
    assert isinstance(await write(store, Set(key, value, JSON)), tuple)


async def values(store: SqliteStore, *keys: str) -> list[bytes | None]:
    values: list[bytes | None] = []
    for entry in await store.read(keys, NOW):
        assert not isinstance(entry, StoreError)
        values.append(None if entry is None else entry.value)
    return values


async def refusal(store: SqliteStore, *changes: Command) -> TenantbaseError:
    outcome = await write(store, *changes)
    assert isinstance(outcome, TenantbaseError)
    return outcome


def intact(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return bool(connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)])


# The file


async def test_the_settings_are_in_force(store: SqliteStore) -> None:
    def settings(connection: sqlite3.Connection, *names: str) -> list[object]:
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    names = ("journal_mode", "synchronous", "fullfsync", "checkpoint_fullfsync")
    writer = await store._writer.run(settings, *names, "wal_autocheckpoint")
    assert writer == ["wal", 2, 1, 1, 0]
    for reader in store._readers.connections:
        assert await reader.run(settings, "journal_mode", "query_only") == ["wal", 1]


async def test_readers_cannot_write(store: SqliteStore) -> None:
    def insist(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA query_only = 0")
        connection.execute("DELETE FROM entries")

    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await store._readers.connections[0].run(insist)


async def test_only_the_owner_may_read_the_files(files: Files) -> None:
    before = os.umask(0)
    try:
        store = await files.open()
        await put(store, "default/k")
    finally:
        os.umask(before)
    assert files.names() == {"x.db", "x.db-wal", "x.db-shm", "x.db-reserve"}
    for name in files.names():
        assert (files.path.parent / name).stat().st_mode & 0o777 == 0o600, name
    await store.close()


async def test_the_mode_of_an_existing_file_is_kept(files: Files) -> None:
    await (await files.open()).close()
    files.path.chmod(0o640)
    store = await files.open()
    assert files.path.stat().st_mode & 0o777 == 0o640
    await store.close()


async def test_only_the_database_is_left(files: Files) -> None:
    store = await files.open()
    await put(store, "default/k")
    await store.close()
    assert files.names() == {"x.db"}
    assert intact(files.path)


@pytest.mark.parametrize(
    "name",
    ["a b.db", "a?mode=memory.db", "a#b.db", "a%41.db", "é.db", "a;b'c\"d.db", ":memory:"],
)
async def test_any_file_name(tmp_path: Path, name: str) -> None:
    files = Files(tmp_path, name)
    store = await files.open()
    await put(store, "default/k")
    assert await values(store, "default/k") == [b"1"]
    assert name in files.names()
    await store.close()
    assert files.names() == {name}
    await files.close()


async def test_a_relative_path_stays_what_it_was(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = await SqliteStore.open("x.db", files.lock.held)
    monkeypatch.chdir("/")
    await put(store, "default/k")
    await store.check()
    await store.close()


# Opening


async def cannot_open(files: Files) -> str:
    """The error's single line; nothing is left open."""
    threads = threading.active_count()
    with pytest.raises(CannotOpen) as raised:
        await files.open()
    line = str(raised.value)
    assert "\n" not in line and str(files.path) in line
    assert not re.search("SELECT|PRAGMA|BEGIN|sqlite3", line)
    # asyncio.to_thread keeps one. Other threads may take a moment to end.
    poll(lambda: threading.active_count() <= threads + 1, "no thread is left")
    with files.lock.held():
        pass
    return line


async def test_a_newer_schema_is_refused(files: Files) -> None:
    await (await files.open()).close()
    with files.foreign() as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "made by a newer tenantbase (schema 99, this one knows 4)" in await cannot_open(files)


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE theirs (x)"],
        ["PRAGMA application_id = 7"],
        ["PRAGMA user_version = 1"],
        ["PRAGMA journal_mode = WAL", "CREATE TABLE entries (x)", "INSERT INTO entries VALUES (1)"],
    ],
)
async def test_a_foreign_database_is_not_touched(files: Files, statements: list[str]) -> None:
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
    await put(store, "default/k")
    await store.close()


async def test_a_file_that_is_not_a_database_is_refused(files: Files) -> None:
    files.path.write_bytes(b"My shopping list.\n" * 1_000)
    assert "not a database" in await cannot_open(files)
    assert files.path.read_bytes() == b"My shopping list.\n" * 1_000


async def test_a_damaged_database_is_refused(files: Files) -> None:
    store = await files.open()
    await put(store, "default/k")
    await store.close()
    damaged = bytearray(files.path.read_bytes())
    damaged[100:4096] = os.urandom(3996)
    files.path.write_bytes(damaged)
    assert "damaged" in await cannot_open(files)


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM state", "UPDATE state SET secret = 7", "UPDATE state SET secret = x'00'"],
)
async def test_a_database_without_its_secret_is_refused(files: Files, damage: str) -> None:
    await (await files.open()).close()
    with files.foreign() as connection:
        connection.execute(damage)
    assert "damaged" in await cannot_open(files)


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
@pytest.mark.parametrize("new", [True, False])
async def test_a_locked_database_is_refused_after_a_moment(
    files: Files, begin: str, new: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_opening, "_OPEN_WAIT", 0.1)
    if not new:
        await (await files.open()).close()
    with files.foreign() as connection:
        connection.execute(begin)
        assert "locked by another program" in await cannot_open(files)
    store = await files.open()
    await put(store, "default/k")
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
    import asyncio, concurrent.futures.thread, contextlib, os, sys
    from tenantbase.errors import CannotOpen
    from tenantbase.interfaces.sqlite.store import SqliteStore
    # Root may write everywhere. What is needed was imported: others may not read it.
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    async def main():
        try:
            await SqliteStore.open(sys.argv[1], contextlib.nullcontext)
        except CannotOpen as error:
            print(error)
    asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("mode", "directory_mode", "reason"),
    [
        (0o444, 0o777, "it is read-only"),
        (0o000, 0o777, "access to it is denied"),
        (0o666, 0o555, "its directory is read-only"),
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
    await files.close()
    open_directory.chmod(directory_mode)
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(OPEN_WITHOUT_RIGHTS), files.path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert {path.name for path in open_directory.iterdir()} <= {"x.db"}
    assert run.stderr == ""
    assert reason in run.stdout and len(run.stdout.splitlines()) == 1


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that other users can reach; tmp_path is in a private one."""
    directory = Path(tempfile.mkdtemp())
    yield directory
    directory.chmod(0o700)
    shutil.rmtree(directory)


# The schema


async def test_migrations_are_applied_one_by_one(files: Files) -> None:
    store = await files.open()
    await put(store, "default/k")
    await store.close()
    later = (
        *sql_schema.MIGRATIONS,
        ("CREATE TABLE second (x)", "INSERT INTO second VALUES (2)"),
        ("CREATE TABLE third (x)",),
    )
    with files.foreign() as connection:
        sql_schema.migrate(connection, later)
        assert connection.execute("PRAGMA user_version").fetchone() == (len(later),)
        assert connection.execute("SELECT x FROM second").fetchall() == [(2,)]
        sql_schema.migrate(connection, later)
        assert connection.execute("SELECT count(*) FROM second").fetchall() == [(1,)]
        assert connection.execute("SELECT key FROM entries").fetchall() == [("default/k",)]


async def test_a_migration_that_fails_leaves_the_schema_before_it(files: Files) -> None:
    await (await files.open()).close()
    later = (
        *sql_schema.MIGRATIONS,
        ("CREATE TABLE second (x)",),
        ("CREATE TABLE t (x)", "NONSENSE"),
    )
    with files.foreign() as connection:
        with pytest.raises(sqlite3.OperationalError):
            sql_schema.migrate(connection, later)
        assert not connection.in_transaction
        assert connection.execute("PRAGMA user_version").fetchone() == (len(later) - 1,)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        assert "second" in tables and "t" not in tables


async def test_every_database_has_its_own_secret(tmp_path: Path) -> None:
    secrets = set()
    for name in ("x.db", "y.db"):
        files = Files(tmp_path, name)
        store = await files.open()
        secrets.add(store.secret)
        await store.close()
        await files.close()
    assert len(secrets) == 2


_IN_RANGE = "SEARCH entries USING INDEX {key} (key>? AND key<?)"


@pytest.mark.parametrize(
    ("query", "parameters", "plan"),
    [
        (sql_queries._READ.format("?, ?"), 3, "SEARCH entries USING INDEX {key} (key=?)"),
        (sql_queries._RANGE.format("*", "ASC"), 4, _IN_RANGE),
        (sql_queries._RANGE.format("*", "DESC"), 4, _IN_RANGE),
        (sql_queries._COUNT, 4, _IN_RANGE),
        (sql_in_place._FIND, 2, "SEARCH entries USING INDEX {key} (key=?)"),
        (sql_rows._LOOK_UP.format("value", "?, ?"), 3, "SEARCH entries USING INDEX {key} (key=?)"),
        (sql_rows._UPDATE.format("?"), 6, "SEARCH entries USING INTEGER PRIMARY KEY (rowid=?)"),
        (sql_counts._UNDER, 2, _IN_RANGE),
        (sql_counts._AMONG.format("?, ?"), 3, "SEARCH entries USING INDEX {key} (key=?)"),
        (
            sql_counts._EXPIRED,
            4,
            "SEARCH entries USING INDEX entries_expiry (expires_at>? AND expires_at<?)",
        ),
        (sql_counts._CHANGED, 3, "SEARCH changes USING INTEGER PRIMARY KEY (rowid>?)"),
        (sql_sweep._BEYOND, 4, _IN_RANGE),
        (sql_usage._EXPIRED, 3, "SEARCH entries USING INDEX entries_expiry (expires_at<?)"),
        (
            sql_sweep._EXPIRED,
            2,
            "SEARCH entries USING COVERING INDEX entries_expiry (expires_at<?)",
        ),
        (sql_sweep._ROWS, 3, "SEARCH entries USING COVERING INDEX {key} (key>? AND key<?)"),
        (sql_sweep._IN_PREFIX, 4, "SEARCH entries USING INDEX {key} (key>? AND key<?)"),
    ],
)
async def test_no_query_scans_a_table(files: Files, query: str, parameters: int, plan: str) -> None:
    await (await files.open()).close()
    with files.foreign() as connection:
        rows = connection.execute(f"EXPLAIN QUERY PLAN {query}", [1] * parameters).fetchall()
    steps = [row[3] for row in rows]
    assert plan.format(key="sqlite_autoindex_entries_1") in steps
    assert not [step for step in steps if step.startswith(("SCAN entries", "USE TEMP B-TREE"))]


# Writing


class StagedFence(RecordingSeqlock):
    """Holds each write just before its COMMIT until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.raised, self.goes_on = threading.Event(), threading.Event()

    def begin_write(self, keys: Collection[str] | None) -> object:
        self.raised.set()
        assert self.goes_on.wait(30)
        return super().begin_write(keys)


async def test_a_cancelled_write_is_committed(store: SqliteStore) -> None:
    seqlock = StagedFence()
    writing = asyncio.create_task(
        store.write([Granted(Set("default/k", b"1", JSON))], NOW, seqlock)
    )
    await asyncio.to_thread(seqlock.raised.wait, 30)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    seqlock.goes_on.set()
    await put(store, "default/next")
    assert seqlock.told == ["lock", {"default/k"}, "commit", "unlock"]
    assert await values(store, "default/k", "default/next") == [b"1", b"1"]


async def test_closing_waits_for_a_write(files: Files) -> None:
    store = await files.open()
    seqlock = StagedFence()
    writing = asyncio.create_task(
        store.write([Granted(Set("default/k", b"1", JSON))], NOW, seqlock)
    )
    await asyncio.to_thread(seqlock.raised.wait, 30)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    seqlock.goes_on.set()
    await closing
    assert isinstance((await writing).outcomes[0], tuple)
    store = await files.open()
    assert await values(store, "default/k") == [b"1"]
    await store.close()


async def test_a_cancelled_close_closes(files: Files) -> None:
    """After Ctrl-C, the event loop ends with the task that closes the store."""
    store = await files.open()
    await put(store, "default/k")
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert files.names() == {"x.db"}


async def test_a_cancelled_opening_leaves_nothing_open(files: Files) -> None:
    other = WriteLock(files.lock.path)
    with other.held():
        opening = asyncio.create_task(files.open())
        await asyncio.sleep(0)
        opening.cancel()
        done, _ = await asyncio.wait([opening], timeout=0.05)
        assert not done, "its thread waits for the lock, and is waited for"
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert files.names() == {"x.db"}
    other.close()


async def test_cancelled_reads_do_not_disturb_others(store: SqliteStore) -> None:
    await put(store, "default/k")
    for _ in range(50):
        reads = [asyncio.create_task(values(store, "default/k")) for _ in range(6)]
        await asyncio.sleep(0)
        for read in reads[::2]:
            read.cancel()
        results = await asyncio.gather(*reads, return_exceptions=True)
        assert [result for result in results if isinstance(result, list)] == [[b"1"]] * 3


async def test_writes_at_the_same_time_queue(store: SqliteStore) -> None:
    outcomes = await asyncio.gather(
        *(write(store, Increment("default/n", 1, 0)) for _ in range(100))
    )
    assert all(isinstance(outcome, tuple) for outcome in outcomes)
    assert await values(store, "default/n") == [b"100"]


async def test_an_unexpected_error_ends_the_transaction(store: SqliteStore) -> None:
    with pytest.raises(UnicodeEncodeError):
        await write(store, Set("default/a", b"1", JSON), Set("default/lone \ud800", b"1", JSON))
    await put(store, "default/b")
    assert await values(store, "default/a", "default/b") == [None, b"1"]


async def test_two_stores_on_one_file(files: Files) -> None:
    other_files = Files(files.path.parent)
    one, two = await files.open(), await other_files.open()
    stores = {one: files.lock, two: other_files.lock}

    async def count(store: SqliteStore, lock: WriteLock) -> list[int]:
        seqlock = RecordingSeqlock()
        seqlock.lock = lock.held  # type: ignore[method-assign]
        seqlock.begin_write = lambda keys: object()  # type: ignore[method-assign]
        versions = []
        for _ in range(100):
            written = await store.write([Granted(Increment("default/n", 1, 0))] * 3, NOW, seqlock)
            for outcome in written.outcomes:
                assert isinstance(outcome, tuple) and outcome[0].entry is not None
                versions.append(outcome[0].entry.version)
        return versions

    versions = await asyncio.gather(*(count(store, lock) for store, lock in stores.items()))
    assert sorted(versions[0] + versions[1]) == list(range(1, 601))
    assert await values(one, "default/n") == await values(two, "default/n") == [b"600"]
    await one.close()
    assert await values(two, "default/n") == [b"600"]
    await two.close()
    await other_files.close()
    assert files.names() == {"x.db"}
    assert intact(files.path)


KILLED_IN_MID_TRANSACTION = """
    import asyncio, os, pathlib, signal, sys
    from tenantbase.entry import JSON
    from tenantbase.coherence.tag_seqlock import WriteLock
    from tenantbase.interfaces.sqlite.store import SqliteStore
    from tenantbase.commands import Set
    from tests.fakes import Granted, RecordingSeqlock
    path = pathlib.Path(sys.argv[1])
    seqlock = RecordingSeqlock()
    seqlock.lock = WriteLock(path.with_name("lock")).held
    seqlock.begin_write = lambda keys: object()
    async def main():
        store = await SqliteStore.open(path, seqlock.lock)
        for n in range(100):
            await store.write([Granted(Set(f"default/k{n}", b"1", JSON))], 1.0, seqlock)
        seqlock.begin_write = lambda keys: os.kill(os.getpid(), signal.SIGKILL)
        await store.write([Granted(*(Set(f"default/k{n}", b"2", JSON) for n in range(5000)))], 1.0, seqlock)
    asyncio.run(main())
"""


async def test_a_writer_killed_in_mid_transaction(files: Files) -> None:
    beside = await files.open()
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED_IN_MID_TRANSACTION), files.path], cwd=ROOT
    )
    assert run.returncode == -signal.SIGKILL
    assert [value for value in await values(beside, *(f"default/k{n}" for n in range(100)))] == [
        b"1"
    ] * 100
    assert await beside.last_version() == 100
    await put(beside, "default/k0", b"3")
    await beside.close()
    assert intact(files.path)
    store = await files.open()
    assert await values(store, "default/k0", "default/k1", "default/k100") == [b"3", b"1", None]
    await store.close()


# Checkpoints


def log_frames(files: Files) -> int:
    return files.wal.stat().st_size // 4_120


async def write_pages(store: SqliteStore, count: int) -> None:
    """Rewrite a value of this many pages often enough to fill the log three times."""
    for _ in range(3 * sql_checkpoints._MOST_PAGES // count):
        await put(store, "default/large", os.urandom(4_096 * count))


async def commits_until_copied(files: Files, store: SqliteStore, entries: int) -> int:
    """How many commits of so many entries are made until the log is copied into the database."""
    await put(store, "default/first", b"in the log alone")
    commits = 1
    while b"in the log alone" not in files.path.read_bytes():
        await write(store, *(Set(f"default/{n}", b"1", JSON) for n in range(entries)))
        while store._tasks:
            await asyncio.wait(store._tasks)
        commits += 1
    return commits


async def test_the_log_is_copied_before_there_is_much_to_copy(
    files: Files, store: SqliteStore
) -> None:
    assert await commits_until_copied(files, store, 20) == sql_checkpoints._COMMITS


async def test_small_commits_share_a_checkpoint(files: Files, store: SqliteStore) -> None:
    """An entry changes two rows, its own and one of the change log, and a commit may one more."""
    assert 83 <= await commits_until_copied(files, store, 1) <= 125


async def test_a_large_commit_is_copied_at_once(files: Files, store: SqliteStore) -> None:
    assert await commits_until_copied(files, store, 1_000) == 2


async def test_the_log_starts_over(
    files: Files, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_checkpoints, "_MOST_PAGES", 400)
    done = False

    async def read() -> None:
        while not done:
            await store.read(["default/large"], NOW)

    # Uninterrupted reads must not keep the log from starting over.
    reads = [asyncio.create_task(read()) for _ in range(5)]
    for _ in range(5):
        await write_pages(store, 40)
    done = True
    await asyncio.gather(*reads)
    assert log_frames(files) < 2_000, "6,000 pages were written"


async def test_a_foreign_reader_only_delays_checkpoints(
    files: Files, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_checkpoints, "_MOST_PAGES", 400)
    await put(store, "default/k")
    with files.foreign() as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM entries").fetchone() == (1,)
        await write_pages(store, 40)
        assert reader.execute("SELECT count(*) FROM entries").fetchone() == (1,)
        reader.execute("COMMIT")
    size = log_frames(files)
    for _ in range(3):
        await write_pages(store, 40)
    assert log_frames(files) < size + 1_000


@pytest.mark.parametrize("grown", [False, True])
async def test_checkpoints_wait_for_a_slow_reader_less_and_less_often(
    files: Files, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, grown: bool
) -> None:
    waits = list[float]()

    def counted(
        connection: sqlite3.Connection, seconds: float
    ) -> contextlib.AbstractContextManager[None]:
        waits.append(seconds)
        return sql_opening.busy_timeout(connection, seconds)

    async def write_rows(count: int) -> int:
        """A commit writes two rows, and three pages of the log. Returns: how often one waited."""
        before = len(waits)
        for _ in range(count // 2):
            await put(store, "default/k")
        return len(waits) - before

    monkeypatch.setattr(sql_checkpoints, "busy_timeout", counted)
    monkeypatch.setattr(sql_checkpoints, "_MOST_PAGES", 100)
    monkeypatch.setattr(sql_checkpoints, "_LEAST_PAGES", 1)
    if grown:
        monkeypatch.setattr(sql_checkpoints, "_KEPT_LOG_BYTES", 1)
    await put(store, "default/k")
    with files.foreign() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entries").fetchone()
        assert 2 <= await write_rows(1_000) <= 5, "after 50 rows at least, 100, 200, 400"
    frames = log_frames(files)
    await write_rows(2_000)
    if grown:
        assert await write_rows(640) == 10, "no reader is slow any more: after 64 rows each"
    else:
        assert log_frames(files) < frames + 100, "it begins again by itself: 3,000 were written"


async def test_a_checkpoint_does_not_change_the_busy_timeout_of_writes(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def patience(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA busy_timeout").fetchone()[0])

    monkeypatch.setattr(sql_checkpoints, "_MOST_PAGES", 1)  # so that it waits for readers
    store = await files.open(busy_timeout=3.0)
    await put(store, "default/k")
    assert await store._writer.run(store._committer.checkpoint)
    assert await store._writer.run(patience) == 3_000
    with files.foreign() as reader:  # the checkpoint waits in vain for this reader
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entries").fetchone()
        await put(store, "default/k")
        await store._writer.run(store._committer.checkpoint)
    assert await store._writer.run(patience) == 3_000


async def test_a_reader_never_checkpoints(files: Files) -> None:
    store = await files.open()
    await put(store, "default/k")
    os.link(files.wal, files.wal.with_name("saved"))
    database = files.path.read_bytes()
    # As after a crash: the log is there, and no process has it open.
    copy = Files(files.path.parent, "copy.db")
    copy.path.write_bytes(database)
    copy.wal.write_bytes(files.wal.read_bytes())
    reader = sql_opening.open_reader(str(copy.path), 1.0)
    assert sql_queries.read(reader, ["default/k"], NOW)[0] is not None
    reader.close()
    assert copy.path.read_bytes() == database
    assert copy.wal.read_bytes() == files.wal.read_bytes()
    await copy.close()
    await store.close()


# Failures


@contextlib.contextmanager
def replaced(path: Path, by: str, *, writable: bool = True) -> Iterator[None]:
    """Inside the block, this process's open descriptors of a path refer to another file.

    ``/dev/null`` takes writes and refuses to be synced, ``/dev/full`` refuses writes: these are the
    system's real errors, not imagined ones. This drops a file's locks, and SQLite does not notice;
    so use it only on the log, which has none.
    """
    target = path.stat()
    found = []
    for fd in range(3, 200):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(fd), target):
                found.append(fd)
    assert found
    kept = [os.dup(fd) for fd in found]
    other = os.open(by, os.O_RDWR)
    try:
        for fd in found:
            os.dup2(other, fd, inheritable=False)
        yield
    finally:
        for fd, original in zip(found, kept, strict=True):
            os.dup2(original, fd, inheritable=False)
            os.close(original)
        os.close(other)


@contextlib.contextmanager
def no_lock() -> Iterator[None]:
    raise OSError(errno.ENOLCK, "No locks available")
    yield


def limit_pages(connection: sqlite3.Connection, pages: int) -> None:
    connection.execute(f"PRAGMA max_page_count = {pages}")


async def test_a_full_disk_passes(store: SqliteStore, files: Files) -> None:
    await put(store, "default/k")
    seqlock = RecordingSeqlock()
    lock, store._committer._lock = store._committer._lock, no_lock  # the log cannot be checkpointed
    with replaced(files.wal, "/dev/full"):
        outcome = await write(store, Set("default/k", b"2", JSON), seqlock=seqlock)
        assert isinstance(outcome, StoreFull)
        assert "disk is full" in str(outcome)
    store._committer._lock = lock
    assert seqlock.told == [
        "lock",
        {"default/k"},
        "roll_back",
        "unlock",
    ], "nothing was done, for certain"
    await store.check()
    assert await values(store, "default/k") == [b"1"]
    await put(store, "default/k", b"3")
    assert await values(store, "default/k") == [b"3"]


async def test_a_database_that_may_not_grow_is_full(store: SqliteStore) -> None:
    await put(store, "default/k", b"x" * 10_000)
    await store._writer.run(limit_pages, 1)
    seqlock = RecordingSeqlock()
    written = await store.write(
        [Granted(Set("default/l", b"x" * 100_000, JSON)), Granted(Set("default/k", b"2", JSON))],
        NOW,
        seqlock,
    )
    assert [type(outcome) for outcome in written.outcomes] == [StoreFull, StoreFull]
    assert seqlock.told == ["lock", "unlock"]
    assert await values(store, "default/k", "default/l") == [b"x" * 10_000, None]
    await put(store, "default/k", b"fits")
    await store._writer.run(limit_pages, 1 << 30)
    await put(store, "default/l", b"x" * 100_000)


async def test_on_a_full_disk_the_log_starts_over(store: SqliteStore, files: Files) -> None:
    for _ in range(20):
        await put(store, "default/k", os.urandom(40_000))
    await store._writer.run(limit_pages, 1)
    assert isinstance(await refusal(store, Set("default/l", os.urandom(40_000), JSON)), StoreFull)
    size = files.wal.stat().st_size
    for _ in range(10):
        await put(store, "default/k", os.urandom(40_000))
    assert files.wal.stat().st_size <= max(size, LOG_BYTES)


LIMITED = """
    import asyncio, contextlib, resource, sys
    from tenantbase.entry import JSON
    from tenantbase.interfaces.sqlite.store import SqliteStore
    from tenantbase.commands import Set
    from tests.fakes import Granted, RecordingSeqlock
    async def put(store, value):
        (outcome,) = (await store.write([Granted(Set("default/k", value, JSON))], 1.0, seqlock)).outcomes
        return type(outcome).__name__
    seqlock = RecordingSeqlock()
    async def main():
        store = await SqliteStore.open(sys.argv[1], seqlock.lock)
        print(await put(store, b"1"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
        print(await put(store, b"x" * 200_000), seqlock.told[-2:])
        await store.check()
        print(await put(store, b"3"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        print(await put(store, b"x" * 200_000))
        await store.close()
    asyncio.run(main())
"""


async def test_a_limit_on_file_size_does_not_end_writing(files: Files) -> None:
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED), files.path],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert run.stderr.splitlines() == [DISK_ERRORS]
    assert run.stdout.splitlines() == [
        "tuple",
        "DiskFailed ['roll_back', 'unlock']",
        "tuple",
        "tuple",
    ]
    assert intact(files.path)


def forbid_rollback(connection: sqlite3.Connection) -> None:
    """Make SQLite itself refuse to roll back."""

    def authorize(action: int, first: str | None, *rest: str | None) -> int:
        refused = action == sqlite3.SQLITE_TRANSACTION and first == "ROLLBACK"
        return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK

    connection.set_authorizer(authorize)


async def test_a_rollback_that_fails_is_not_forgotten(store: SqliteStore) -> None:
    await put(store, "default/k")
    await store._writer.run(forbid_rollback)
    # Its condition does not hold, so nothing is done, and the transaction must be ended.
    await refusal(store, Delete("default/k", Condition(absent=True)))
    outcome = await refusal(store, Set("default/k", b"2", JSON))
    assert isinstance(outcome, StoreUnavailable)
    assert "cannot be ended" in str(outcome)
    with pytest.raises(StoreUnavailable, match="cannot be ended"):
        await store.check()
    assert await values(store, "default/k") == [b"1"]
    await store._writer.run(lambda connection: connection.set_authorizer(None))


async def test_a_failed_sync_leaves_the_outcome_open(files: Files) -> None:
    store = await files.open()
    await put(store, "default/k")
    database = files.path.read_bytes()
    seqlock = RecordingSeqlock()
    with replaced(files.wal, "/dev/null"):
        written = await store.write(
            [Granted(Set("default/k", b"2", JSON)), Granted(Increment("default/n", 1, 0))],
            NOW,
            seqlock,
        )
    assert [type(outcome) for outcome in written.outcomes] == [OutcomeUnknown] * 2
    assert written.outcomes[0] is not written.outcomes[1]
    assert written.ticket is None
    assert seqlock.told == [
        "lock",
        {"default/k", "default/n"},
        "unlock",
    ], "the seqlock stays raised"
    # The disk works again, but nothing is retried.
    error = await refusal(store, Set("default/k", b"3", JSON))
    assert type(error) is StoreUnavailable and "no more writes" in str(error)
    with pytest.raises(StoreUnavailable, match="no more writes"):
        await store.check()
    assert await values(store, "default/k", "default/n") == [b"1", None]
    log = files.wal.read_bytes()
    await store.close()
    assert files.path.read_bytes() == database, "closing has made no checkpoint"
    assert files.wal.read_bytes() == log
    store = await files.open()
    assert (await values(store, "default/k"))[0] in (b"1", b"2")
    await put(store, "default/k", b"4")
    await store.close()
    assert files.names() == {"x.db"}
    assert intact(files.path)


async def test_another_process_continues_after_a_failed_sync(files: Files) -> None:
    store, other = await files.open(), await files.open()
    await put(store, "default/k")
    with replaced(files.wal, "/dev/null"):
        assert isinstance(await refusal(store, Set("default/k", b"2", JSON)), OutcomeUnknown)
    await put(other, "default/k", b"3")
    assert await values(store, "default/k") == [b"3"], "reads of the one that gave up go on"
    await store.close()
    await put(other, "default/k", b"4")
    await other.close()
    assert intact(files.path)
    store = await files.open()
    assert await values(store, "default/k") == [b"4"]
    await store.close()


class FailingConnection(sqlite3.Connection):
    """Fails at one statement with a result code, before or after executing it."""

    statement = ""
    code = 0
    afterwards = False

    def execute(self, sql: str, *args: object) -> sqlite3.Cursor:
        if not (self.statement and self.statement in sql):
            return super().execute(sql, *args)  # type: ignore[arg-type]
        if self.afterwards:
            super().execute(sql)
        error = sqlite3.OperationalError("the driver's text, which no client sees")
        error.sqlite_errorcode = self.code
        raise error


@pytest.fixture
async def failing(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[SqliteStore, Callable[..., None]]]:
    """A store, and a switch that makes one of its statements fail."""
    connect = partial(sqlite3.connect, factory=FailingConnection)
    monkeypatch.setattr("tenantbase.interfaces.sqlite.opening.sqlite3.connect", connect)
    store = await files.open()
    await put(store, "default/k")

    def fail(statement: str, code: int, afterwards: bool = False) -> None:
        monkeypatch.setattr(FailingConnection, "statement", statement)
        monkeypatch.setattr(FailingConnection, "code", code)
        monkeypatch.setattr(FailingConnection, "afterwards", afterwards)

    yield store, fail
    fail("", 0)
    await store.close()


async def test_a_commit_without_changed_keys_leaves_a_sign_when_it_fails(
    failing: tuple[SqliteStore, Callable[..., None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, fail = failing
    monkeypatch.setattr(sql_sweep, "ONE_BY_ONE", 1)
    await put(store, "default/l")
    await write(store, DeletePrefix("default/"))  # leaves rows that are invisible
    seqlock = RecordingSeqlock()
    fail("COMMIT", sqlite3.SQLITE_IOERR_FSYNC)
    assert type(await write(store, Sweep(100), seqlock=seqlock)) is OutcomeUnknown
    assert seqlock.told == ["lock", None, "unlock"]


@pytest.mark.parametrize(
    ("statement", "code", "expected", "goes_on"),
    [
        ("BEGIN", sqlite3.SQLITE_BUSY, StoreUnavailable, True),
        ("BEGIN", sqlite3.SQLITE_IOERR_READ, DiskFailed, True),
        ("FROM entries", sqlite3.SQLITE_CORRUPT, Damaged, True),
        ("FROM entries", sqlite3.SQLITE_FULL, StoreFull, True),
        ("FROM entries", sqlite3.SQLITE_IOERR_FSYNC, DiskFailed, False),
        ("COMMIT", sqlite3.SQLITE_BUSY, StoreUnavailable, True),
        ("COMMIT", sqlite3.SQLITE_FULL, StoreFull, True),
        ("COMMIT", sqlite3.SQLITE_IOERR_WRITE, DiskFailed, True),
        ("COMMIT", sqlite3.SQLITE_IOERR_FSYNC, OutcomeUnknown, False),
        ("COMMIT", sqlite3.SQLITE_IOERR_SHMSIZE, OutcomeUnknown, False),
        ("COMMIT", sqlite3.SQLITE_IOERR, OutcomeUnknown, False),
        ("COMMIT", sqlite3.SQLITE_ERROR, OutcomeUnknown, False),
        ("COMMIT", sqlite3.SQLITE_INTERRUPT, OutcomeUnknown, False),
    ],
)
async def test_what_an_error_means(
    failing: tuple[SqliteStore, Callable[..., None]],
    statement: str,
    code: int,
    expected: type[TenantbaseError],
    goes_on: bool,
) -> None:
    store, fail = failing
    seqlock = RecordingSeqlock()
    fail(statement, code)
    outcome = await write(store, Set("default/k", b"2", JSON), seqlock=seqlock)
    fail("", 0)
    assert type(outcome) is expected
    assert "driver" not in str(outcome)
    assert ({"default/k"} in seqlock.told) == (statement == "COMMIT")
    assert ("roll_back" in seqlock.told) == (
        statement == "COMMIT" and expected is not OutcomeUnknown
    )
    assert await values(store, "default/k") == [b"1"]
    if goes_on:
        await store.check()
        await put(store, "default/k", b"3")
        assert await values(store, "default/k") == [b"3"]
    else:
        assert type(await refusal(store, Set("default/k", b"3", JSON))) is StoreUnavailable
        with pytest.raises(StoreUnavailable):
            await store.check()


async def test_which_failed_commits_have_an_unknown_outcome(
    failing: tuple[SqliteStore, Callable[..., None]],
) -> None:
    store, fail = failing
    fail("COMMIT", sqlite3.SQLITE_IOERR_FSYNC, True)
    assert isinstance(await refusal(store, Set("default/k", b"2", JSON)), OutcomeUnknown)
    fail("", 0)
    assert await values(store, "default/k") == [b"2"]


@pytest.mark.parametrize(
    ("code", "goes_on"),
    [
        (sqlite3.SQLITE_BUSY, True),
        (sqlite3.SQLITE_FULL, True),
        (sqlite3.SQLITE_IOERR_WRITE, True),
        (sqlite3.SQLITE_IOERR_FSYNC, False),
    ],
)
async def test_a_checkpoint_that_fails(
    failing: tuple[SqliteStore, Callable[..., None]],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    goes_on: bool,
) -> None:
    monkeypatch.setattr(sql_checkpoints, "_MOST_PAGES", 1)
    store, fail = failing
    fail("wal_checkpoint", code)
    await put(store, "default/k", b"2")
    while store._tasks:
        await asyncio.wait(store._tasks)
    fail("", 0)
    assert await values(store, "default/k") == [b"2"], "it was durable in the log already"
    if goes_on:
        await put(store, "default/k", b"3")
        await store.check()
    else:
        assert type(await refusal(store, Set("default/k", b"3", JSON))) is StoreUnavailable
        with pytest.raises(StoreUnavailable):
            await store.check()


async def test_a_foreign_lock_passes(store: SqliteStore, files: Files) -> None:
    with files.foreign() as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        error = await refusal(store, Set("default/k", b"1", JSON))
        assert type(error) is StoreUnavailable and "locked by another program" in str(error)
        assert await values(store, "default/k") == [None]
        foreign.execute("ROLLBACK")
    await put(store, "default/k")


@pytest.mark.parametrize("by", ["another file", "nothing"])
async def test_a_replaced_file_is_left_alone(files: Files, tmp_path: Path, by: str) -> None:
    store = await files.open()
    await put(store, "default/k")
    other = Files(tmp_path, "other.db")
    await (await other.open()).close()
    await other.close()
    if by == "nothing":
        other.path.unlink()
        files.path.unlink()
    else:
        os.replace(other.path, files.path)
        before = files.path.read_bytes()
    error = await refusal(store, Set("default/k", b"2", JSON))
    assert type(error) is StoreUnavailable and "replaced or removed" in str(error)
    with pytest.raises(StoreUnavailable, match="replaced or removed"):
        await store.check()
    assert await values(store, "default/k") == [b"1"], "reads show the file that was opened"
    await store.close()
    if by == "nothing":
        assert "x.db" not in files.names()
    else:
        assert files.path.read_bytes() == before


async def test_without_the_lock_a_write_is_refused(files: Files) -> None:
    store = await files.open()
    seqlock = RecordingSeqlock()
    seqlock.lock = no_lock  # type: ignore[method-assign]
    assert (
        type(await write(store, Set("default/k", b"1", JSON), seqlock=seqlock)) is StoreUnavailable
    )
    await put(store, "default/k")
    store._committer._lock = no_lock
    log = files.wal.read_bytes()
    await store.close()
    assert files.wal.read_bytes() == log, "no checkpoint without the lock"


async def test_a_damaged_row_is_an_error_of_the_database(store: SqliteStore, files: Files) -> None:
    for n in range(400):
        await put(store, f"default/k{n}", b"x" * 500)
    await store.close()
    damaged = bytearray(files.path.read_bytes())
    for page in range(7, len(damaged) // 4_096):  # the roots of the tables come first
        damaged[page * 4_096 : page * 4_096 + 200] = b"\xff" * 200
    files.path.write_bytes(damaged)
    store = await files.open()
    for found in await store.read([f"default/k{n}" for n in range(400)], NOW):
        assert isinstance(found, Damaged)
    error = await refusal(store, Set("default/k7", b"1", JSON))
    assert type(error) is Damaged and "damaged" in str(error)
    await store.close()


# Sweeping


async def test_rows_of_a_deleted_prefix_are_removed_a_few_at_a_time(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_sweep, "ONE_BY_ONE", 10)

    def rows(connection: sqlite3.Connection) -> tuple[int, int]:
        (entries,) = connection.execute("SELECT count(*) FROM entries").fetchone()
        (prefixes,) = connection.execute("SELECT count(*) FROM deleted_prefixes").fetchone()
        return entries, prefixes

    for _ in range(2):
        await write(store, *(Set(f"default/a/{n:03}", b"1", JSON) for n in range(100)))
        assert await write(store, DeletePrefix("default/a/")) == (Applied(removed=100),)
        assert await write(store, DeletePrefix("default/a/")) == (Applied(removed=0),)
    assert await store._writer.run(rows) == (100, 1), "the second covers the first"
    await write(store, *(Set(f"default/a/{n:03}", b"1", JSON) for n in range(0, 100, 2)))
    for left in (85, 70, 55):
        seqlock = RecordingSeqlock()
        assert await write(store, Sweep(30), seqlock=seqlock) == (Applied(removed=30),)
        assert seqlock.told == ["lock", "unlock"], "no reader saw them any more"
        assert await store._writer.run(rows) == (left, 1)
    assert await write(store, Sweep(30)) == (Applied(removed=10),)
    assert await store._writer.run(rows) == (50, 0)
    assert len((await store.scan_meta(KeyRange("default/a/"), 1_000, NOW))[0]) == 50
