"""Reads that never end within SQLite, and reads that arrive too late."""

from __future__ import annotations

import asyncio
import sqlite3

from tenantbase.interfaces.sqlite.store import SqliteStore
from tests.interfaces.sqlite import test_readers as readers
from tests.interfaces.sqlite.test_readers import NOW, Hang, hung, refused
from tests.servers import poll_async

hang, store = readers.hang, readers.store  # fixtures

_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"


def endless(connection: sqlite3.Connection) -> object:
    return connection.execute(_ENDLESS).fetchone()


async def test_a_query_without_end_is_interrupted_and_its_reader_comes_back(
    store: SqliteStore,
) -> None:
    before = set(store._readers.connections)
    await refused([asyncio.create_task(store._read(endless)) for _ in before])
    await poll_async(lambda: not store.troubles, "they are back")
    await poll_async(lambda: not store._readers._busy(), "they are at rest")
    assert len(store._readers.connections) == len(before)
    assert (await store.read(["default/k"], NOW))[0] is not None


async def test_a_read_that_came_too_late_is_not_made(store: SqliteStore, hang: Hang) -> None:
    made: list[int] = []

    def note(connection: sqlite3.Connection) -> object:
        made.append(1)
        return None

    # More than there are readers, so that the last ones wait behind hanging ones.
    tasks = hung(store, hang, 20)
    tasks += [asyncio.create_task(store._read(note)) for _ in range(5)]
    await refused(tasks)
    hang.gate.set()
    await poll_async(lambda: not store.troubles, "they are back")
    await poll_async(lambda: not store._readers._calls, "the queue is empty")
    assert (await store.read(["default/k"], NOW))[0] is not None
    assert not made
