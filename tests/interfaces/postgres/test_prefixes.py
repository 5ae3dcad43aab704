"""Deleting a large prefix: it is counted without the lock, and the count is still exact."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import pytest

from tenantbase.commands import Delete, DeletePrefix, Set, Sweep
from tenantbase.entry import JSON
from tenantbase.errors import StoreUnavailable
from tenantbase.interfaces.postgres import prefixes
from tenantbase.interfaces.postgres.confirmation import Confirm
from tenantbase.interfaces.postgres.connection import Connection
from tenantbase.interfaces.postgres.store import PostgresStore
from tests.fakes import Granted
from tests.interfaces.postgres.cluster import KEY, opened, outcome, put, value_of
from tests.interfaces.shared import name_hash, open_postgres
from tests.postgres import PostgresProcess

pytestmark = pytest.mark.integration

_PREFIX = "default/p/"
_USAGE = """
    SELECT t.entries = count(e.key) AND t.bytes = coalesce(sum(octet_length(e.key)
        - octet_length('default/') + octet_length(e.value)), 0)
    FROM tenantbase.tenants AS t LEFT JOIN tenantbase.entries AS e ON NOT EXISTS (
        SELECT FROM tenantbase.deleted_prefixes AS gone
        WHERE e.created <= gone.version AND e.key >= gone.low AND e.key < gone.high
    ) WHERE t.name = 'default' GROUP BY t.entries, t.bytes
"""


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three keys are many."""
    monkeypatch.setattr(prefixes, "ONE_BY_ONE", 2)


def after_counting(
    monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], Awaitable[object]]
) -> list[int]:
    """Do one of the steps each time between counting and taking the lock. Returns: how often."""
    count = prefixes._count
    times: list[int] = []

    async def counted(connection: Connection, wanted: Sequence[str]) -> Any:
        at = len(times)
        times.append(at)  # first: a step may count, too
        counts = await count(connection, wanted)
        if at < len(steps):
            await steps[at]()
        return counts

    monkeypatch.setattr(prefixes, "_count", counted)
    return times


async def removed(store: PostgresStore) -> int:
    made = await outcome(store, DeletePrefix(_PREFIX))
    assert isinstance(made, tuple), made
    return made[0].removed


def is_exact(postgres: PostgresProcess, database: str) -> bool:
    """Whether the tenant's usage agrees with its rows."""
    return postgres.sql(_USAGE, database=database.rpartition("/")[2]) == "t"


async def test_what_changes_meanwhile_is_counted(
    postgres: PostgresProcess, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = await open_postgres(database), await open_postgres(database)
    soon = time.time() + 2.0
    for number in range(6):
        await put(store, f"{_PREFIX}{number}", b"x" * number)
    await outcome(store, Set(f"{_PREFIX}soon", b"1", JSON, expires_at=soon))
    await put(store, "default/other", b"1")

    async def change() -> None:
        await put(other, f"{_PREFIX}0", b"larger")
        await put(other, f"{_PREFIX}new", b"12345")
        await outcome(other, Delete(f"{_PREFIX}1"))
        await put(other, "default/other", b"22")
        while await value_of(other, f"{_PREFIX}soon") is not None:
            await asyncio.sleep(0.05)

    after_counting(monkeypatch, change)
    assert await removed(store) == 6  # 0, 2, 3, 4, 5 and new
    assert is_exact(postgres, database)
    assert (await store.size()).entries == 1
    assert await value_of(store, f"{_PREFIX}new") is None
    assert await value_of(store, "default/other") == b"22"
    await store.close()
    await other.close()


async def test_it_is_counted_again_if_another_node_deletes_it_too(
    postgres: PostgresProcess, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = await open_postgres(database), await open_postgres(database)
    for number in range(5):
        await put(store, f"{_PREFIX}{number}")

    async def delete_and_fill() -> None:
        assert await removed(other) == 5
        for number in range(4):
            await put(other, f"{_PREFIX}{number}", b"new")

    times = after_counting(monkeypatch, delete_and_fill)
    assert await removed(store) == 4
    assert len(times) == 3  # the other node counted, too
    assert is_exact(postgres, database)
    await store.close()
    await other.close()


async def test_a_group_may_delete_prefixes_within_each_other(
    postgres: PostgresProcess, database: str
) -> None:
    store = await open_postgres(database)

    def fill(prefix: str) -> Granted:
        return Granted(*(Set(f"{prefix}{number}", b"1", JSON) for number in range(5)))

    await store.commit([fill(_PREFIX), fill(f"{_PREFIX}q/")], name_hash)
    inner = DeletePrefix(f"{_PREFIX}q/")
    whole = DeletePrefix(_PREFIX)
    group = [Granted(inner), Granted(whole), fill(_PREFIX), Granted(whole), fill(f"{_PREFIX}q/")]
    outcomes = (await store.commit([*group, Granted(inner)], name_hash)).outcomes
    deleted = [outcomes[at] for at in (0, 1, 3, 5)]
    assert [each[0].removed if isinstance(each, tuple) else each for each in deleted] == [5] * 4
    assert is_exact(postgres, database)
    assert (await store.size()).entries == 0
    await store.close()


async def test_others_write_while_too_many_keys_are_counted(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = database.rpartition("@")[2].partition("/")[0]
    monkeypatch.setattr(
        prefixes,
        "_UNDER",
        prefixes._UNDER.replace("SELECT count(*)", "SELECT pg_sleep(600)::text", 1),
    )
    name = database.rpartition("/")[2]
    async with opened(
        server,
        database=name,
        confirm=Confirm.NONE,
        replicated=False,
        timeout=2.0,
        write_timeout=6.0,
    ) as store:
        other = await open_postgres(database)
        for number in range(5):
            await put(other, f"{_PREFIX}{number}")
        deleting = asyncio.create_task(outcome(store, DeletePrefix(_PREFIX)))
        while not deleting.done():
            await put(other, KEY)
        refused = deleting.result()
        assert isinstance(refused, StoreUnavailable) and "delete it in parts" in str(refused)
        assert store.sessions_lost == 0
        assert await value_of(store, f"{_PREFIX}0") == b"1"
        await put(store, KEY)
        await other.close()


async def test_a_statement_that_was_given_up_leaves_the_lock(database: str) -> None:
    """Its server notices that the client is gone; otherwise it would run to its end."""
    store, other = await open_postgres(database), await open_postgres(database)
    session = await store._sessions.current(asyncio.get_running_loop().time() + 30)
    locking = asyncio.create_task(
        session.writer.fetch(
            "WITH held AS MATERIALIZED (SELECT 1 FROM clock FOR UPDATE)"
            " SELECT pg_sleep(600) FROM held"
        )
    )
    while not locking.done() and not await _is_locked(other):
        await asyncio.sleep(0.05)
    session.abandon("the test gives it up")
    with pytest.raises(StoreUnavailable):
        await locking
    await put(other, KEY)  # waits for the lock
    await store.close()
    await other.close()


async def _is_locked(store: PostgresStore) -> bool:
    session = await store._sessions.current(asyncio.get_running_loop().time() + 30)
    async with session.readers.take() as connection:
        return not await connection.fetch("SELECT 1 FROM clock FOR UPDATE SKIP LOCKED")


async def test_positions_need_more_than_32_bits(postgres: PostgresProcess, database: str) -> None:
    """Each term begins far above the last one."""
    await (await open_postgres(database)).close()
    far = 1 << 40
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE tenantbase.clock SET position = $1", far)
    await connection.close()
    store = await open_postgres(database)
    for number in range(5):
        assert (await put(store, f"{_PREFIX}{number}")).version == far + number + 1
    assert await removed(store) == 5
    assert is_exact(postgres, database)
    assert isinstance(await outcome(store, Sweep(100)), tuple)
    events, complete = await store.changes(far, 10)
    assert complete and len(events) == 6
    assert (await store.ask(far)).position == await store.last_version() == far + 6
    await store.close()
