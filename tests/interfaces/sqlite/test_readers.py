"""Reads that hang in SQLite: other reads continue, or are refused in time."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tenantbase.coherence.tag_seqlock import WriteLock
from tenantbase.commands import Set
from tenantbase.entry import JSON
from tenantbase.errors import StoreUnavailable
from tenantbase.interfaces.sqlite import readers as sql_readers
from tenantbase.interfaces.sqlite.connection import Connection
from tenantbase.interfaces.sqlite.queries import snapshot
from tenantbase.interfaces.sqlite.readers import MOST_READERS
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.listing import KeyRange
from tenantbase.shared_timer import SharedTimer
from tests.fakes import Granted, RecordingSeqlock
from tests.servers import poll_async

NOW = 1_000.0
PATIENCE = 30.0
READ_SECONDS = 1.0  # enough for a read that does not hang, even on a busy machine


class Hang:
    """An SQL function that does not return until it is released."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.under_way = threading.Semaphore(0)

    def __call__(self, connection: sqlite3.Connection) -> object:
        connection.create_function("hang", 0, self._hang)
        return connection.execute("SELECT hang()").fetchone()

    def _hang(self) -> int:
        self.under_way.release()
        self.gate.wait()
        return 1


@pytest.fixture
async def hang() -> AsyncIterator[Hang]:
    hang = Hang()
    yield hang
    hang.gate.set()


@pytest.fixture
async def store(
    tmp_path: Path, hang: Hang, request: pytest.FixtureRequest
) -> AsyncIterator[SqliteStore]:
    seconds: float = getattr(request, "param", READ_SECONDS)
    async with AsyncExitStack() as stack:
        lock = WriteLock(tmp_path / "lock")
        stack.callback(lock.close)
        store = await SqliteStore.open(tmp_path / "x.db", lock.held, read_timeout=seconds)
        stack.push_async_callback(store.close)
        stack.callback(hang.gate.set)
        written = await store.write(
            [Granted(Set("default/k", b"1", JSON))], NOW, RecordingSeqlock()
        )
        assert isinstance(written.outcomes[0], tuple)
        yield store


async def list_all(store: SqliteStore) -> object:
    return await store.scan(KeyRange("default/"), 10, 1 << 20, NOW)


def hung(store: SqliteStore, hang: Hang, count: int) -> list[asyncio.Task[object]]:
    return [asyncio.create_task(store._read(hang)) for _ in range(count)]


async def refused(tasks: list[asyncio.Task[object]]) -> None:
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, StoreUnavailable), result


async def test_reads_continue_while_some_hang(
    store: SqliteStore, hang: Hang, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = hung(store, hang, 2)  # as many as there are readers
    await poll_async(lambda: len(store._readers.connections) > 2, "they were replaced")
    assert (await store.read(["default/k"], NOW))[0] is not None
    await refused(tasks)
    assert store.troubles == ["reads hang"]
    for _ in range(20):
        assert (await store.read(["default/k"], NOW))[
            0
        ] is not None, "none waits behind those that hang"
    hang.gate.set()
    await poll_async(lambda: not store.troubles, "they are back")
    await poll_async(lambda: len(store._readers.connections) == 2, "no more than before")
    begun, over = [record.getMessage() for record in caplog.records]
    assert begun == "reads hang: SQLite does not return from a read"
    assert over.startswith("reads hang: over; it was met ")


@pytest.mark.parametrize("store", [60.0], indirect=True)
async def test_reads_bypass_a_slow_one_before_it_counts_as_hanging(
    store: SqliteStore, hang: Hang
) -> None:
    readers = store._readers
    tasks = hung(store, hang, MOST_READERS - 1)
    await poll_async(lambda: len(readers.connections) == MOST_READERS, "all are replaced")
    assert (await store.read(["default/k"], NOW))[0] is not None
    hang.gate.set()
    await asyncio.gather(*tasks)
    assert (await store.read(["default/k"], NOW))[0] is not None


async def test_reads_wait_for_slow_ones(store: SqliteStore, hang: Hang) -> None:
    """Calls are refused at once only if every connection hangs, not if all are slow."""
    tasks = hung(store, hang, MOST_READERS)
    readers = store._readers._readers
    for reader in readers:  # as if the last connection had just been put to use
        reader.aside = True
    read = asyncio.create_task(store.read(["default/k"], NOW))
    await asyncio.sleep(0.05)
    assert not read.done()
    hang.gate.set()
    assert (await read)[0] is not None
    await asyncio.gather(*tasks)


async def test_when_all_hang_reads_are_refused_at_once_until_one_is_back(
    store: SqliteStore, hang: Hang
) -> None:
    tasks: list[asyncio.Task[object]] = []

    def all_hang() -> bool:
        readers = store._readers._readers
        if store._readers._idle:
            tasks.extend(hung(store, hang, 1))
        return len(readers) == MOST_READERS and all(reader.hangs for reader in readers)

    await poll_async(all_hang, "all hang")
    read = asyncio.create_task(store.read(["default/k"], NOW))
    for _ in range(10):
        await asyncio.sleep(0)
    assert read.done(), "not after the deadline"
    with pytest.raises(StoreUnavailable, match="in time"):
        await read
    await refused(tasks)
    hang.gate.set()
    await poll_async(lambda: not store.troubles, "they are back")
    assert (await store.read(["default/k"], NOW))[0] is not None


async def silence(connection: Connection, hang: Hang) -> None:
    """From now on, a connection hangs in each statement."""
    await connection.run(lambda opened: opened.set_trace_callback(lambda _: hang.gate.wait()))


async def test_a_check_does_not_wait_for_the_connection_that_hangs(
    store: SqliteStore, hang: Hang
) -> None:
    readers = store._readers
    readers._timeouts = SharedTimer(PATIENCE, readers._expired)  # later than the check's own
    await silence(readers._idle[-1].connection, hang)  # the one that is used next
    await store.check()
    assert store.troubles == ["reads hang"]
    await store.check()
    hang.gate.set()
    await poll_async(lambda: not store.troubles, "it is back")


async def test_a_check_fails_while_every_connection_hangs(store: SqliteStore, hang: Hang) -> None:
    readers = store._readers
    connect = readers._connect

    def connect_silenced() -> sqlite3.Connection:
        opened = connect()
        opened.set_trace_callback(lambda _: hang.gate.wait())
        return opened

    readers._connect = connect_silenced
    for connection in readers.connections:
        await silence(connection, hang)
    with pytest.raises(StoreUnavailable, match="in time"):
        await store.check()
    hang.gate.set()
    await poll_async(lambda: not store.troubles, "they are back")
    await store.check()


async def test_closing_does_not_wait_for_hanging_reads(
    store: SqliteStore, hang: Hang, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_readers, "_LAST_WAIT_SECONDS", 0.1)
    tasks = hung(store, hang, 1)
    async with asyncio.timeout(PATIENCE):
        await store.close()
    assert not hang.gate.is_set()
    await refused(tasks)


@pytest.mark.parametrize("store", [60.0], indirect=True)
async def test_closing_waits_for_connections_that_are_being_closed(
    store: SqliteStore, hang: Hang
) -> None:
    """Their threads would have no event loop to answer to."""
    tasks = hung(store, hang, MOST_READERS - 1)
    await poll_async(lambda: len(store._readers.connections) == MOST_READERS, "all are replaced")
    opened = set(store._readers.connections)
    gates = {connection: threading.Event() for connection in opened}
    for connection, gate in gates.items():  # what each thread does after the read that hangs
        connection.post(lambda _, gate=gate: gate.wait())  # type: ignore[misc]
    hang.gate.set()
    await asyncio.gather(*tasks)
    await poll_async(lambda: len(store._readers.connections) == 2, "no more than before")
    for connection in store._readers.connections:
        gates[connection].set()
    superfluous = opened.difference(store._readers.connections)
    for connection in superfluous:
        asyncio.get_running_loop().call_later(0.1, gates[connection].set)
    await store.close()
    assert superfluous and not any(each._thread.is_alive() for each in superfluous)


async def test_an_error_inside_a_snapshot_ends_it(store: SqliteStore) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        with snapshot(connection):
            connection.execute("SELECT * FROM entries").fetchall()
            raise ValueError("a mistake of ours")

    for connection in store._readers.connections:
        with pytest.raises(ValueError):
            await connection.run(fail)
    await store.write([Granted(Set("default/k", b"2", JSON))], NOW, RecordingSeqlock())
    for _ in range(4):
        (entry,) = await store.read(["default/k"], NOW)
        assert getattr(entry, "value", None) == b"2", "not the state of the snapshot"


@pytest.mark.parametrize("store", [60.0], indirect=True)
async def test_a_lane_does_not_wait_behind_another(store: SqliteStore, hang: Hang) -> None:
    """Each thread that becomes free takes from the lanes in turn."""
    hanging = hung(store, hang, 2)  # as many as there are readers
    for _ in hanging:
        await asyncio.to_thread(hang.under_way.acquire)
    order: list[str] = []

    async def call(lane: str) -> None:
        await store._readers.call(lambda _: order.append(lane), lane)

    calls = [asyncio.create_task(call(lane)) for lane in ["flood"] * 50 + ["quiet"] * 3]
    await asyncio.sleep(0)
    hang.gate.set()
    await asyncio.gather(*calls, *hanging)
    assert order.count("quiet") == 3
    assert "quiet" not in order[10:], order


async def test_reads_of_keys_and_lists_do_not_wait_for_each_other(
    store: SqliteStore, hang: Hang
) -> None:
    listed = await list_all(store)
    listers = [asyncio.create_task(store._list("", hang)) for _ in range(5)]
    await asyncio.to_thread(hang.under_way.acquire)
    assert (await store.read(["default/k"], NOW))[0] is not None
    await refused(listers)
    assert store.troubles == ["reads hang"]
    other = Hang()
    await refused(hung(store, other, 2))
    assert store._readers.hang
    other.gate.set()
    await poll_async(lambda: not store._readers.hang, "the readers of keys are back")
    assert store.troubles == ["reads hang"], "the reader of lists is not"
    hang.gate.set()
    await poll_async(lambda: not store.troubles, "all are back")
    assert await list_all(store) == listed


async def test_lists_give_way_to_other_threads(store: SqliteStore) -> None:
    def priority(_: sqlite3.Connection) -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    usual = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert await store._read(priority) == usual
    assert await store._list("", priority) == min(usual + 10, 19)
    assert await store._writer.run(priority) == usual
