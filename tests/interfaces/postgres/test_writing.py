"""Groups of several nodes, and outcomes in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tenantbase.commands import Condition, Delete, DeletePrefix, PutTenant, Set, Sweep
from tenantbase.entry import JSON
from tenantbase.errors import ConditionFailed, OutcomeUnknown, QuotaExceeded, StoreUnavailable
from tenantbase.figures import COMMIT_WRITES, LOCK_WAIT, SECOND, DoubtEnd, private_cells
from tenantbase.interfaces.postgres import alone, prefixes
from tenantbase.interfaces.postgres.address import DatabaseAddress
from tenantbase.interfaces.postgres.confirmation import Confirm
from tenantbase.interfaces.postgres.store import PostgresStore
from tenantbase.listing import KeyRange
from tests.fakes import Granted
from tests.interfaces.postgres.cluster import (
    INCREMENT,
    KEY,
    again,
    opened,
    outcome,
    put,
    value_of,
)
from tests.interfaces.shared import SMALL, name_hash, open_postgres
from tests.postgres import PostgresProcess
from tests.servers import FaultProxy, poll_async

pytestmark = pytest.mark.integration

NODES = 3
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@pytest.fixture
async def nodes(database: str) -> AsyncIterator[list[PostgresStore]]:
    """Several nodes on one database."""
    async with AsyncExitStack() as stack:
        stores = []
        for _ in range(NODES):
            stores.append(await open_postgres(database))
            stack.push_async_callback(stores[-1].close)
        yield stores


@asynccontextmanager
async def locked(postgres: PostgresProcess, database: str) -> AsyncIterator[asyncio.StreamWriter]:
    """Holds the lock of a database inside the block. Yields the input of a psql in a transaction."""
    holder = await asyncio.create_subprocess_exec(
        *postgres.psql(database.rpartition("/")[2]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert holder.stdin is not None and holder.stdout is not None
    holder.stdin.write(b"BEGIN; SELECT position FROM tenantbase.clock FOR UPDATE;\n")
    await holder.stdout.readline()
    try:
        yield holder.stdin
        holder.stdin.write(b"COMMIT;\n")
    finally:
        holder.stdin.close()
        await holder.wait()


async def test_nodes_count_together(nodes: list[PostgresStore]) -> None:
    async def count(store: PostgresStore) -> None:
        for _ in range(40):
            made = await outcome(store, INCREMENT)
            assert isinstance(made, tuple), made

    await asyncio.gather(*map(count, nodes))
    assert await value_of(nodes[0]) == b"%d" % (40 * NODES)
    index = await nodes[0].ask(0)
    assert index.position == 40 * NODES
    assert [commit.position for commit in index.commits] == list(range(1, index.position + 1))
    assert {tuple(commit.hashes or ()) for commit in index.commits} == {(name_hash(KEY),)}


async def test_only_one_node_makes_a_key(nodes: list[PostgresStore]) -> None:
    absent = Condition(absent=True)
    for round_ in range(20):
        key = f"default/{round_}"
        made = await asyncio.gather(
            *(
                outcome(store, Set(key, b"%d" % at, JSON, None, absent))
                for at, store in enumerate(nodes)
            )
        )
        assert sum(isinstance(each, tuple) for each in made) == 1
        (entry,) = [each[0].entry for each in made if isinstance(each, tuple)]
        assert entry is not None
        for each in made:
            if not isinstance(each, tuple):
                assert isinstance(each, ConditionFailed)
                assert each.version == entry.version
        assert await value_of(nodes[0], key) == entry.value


async def test_nodes_keep_a_limit_together(nodes: list[PostgresStore]) -> None:
    assert isinstance(await outcome(nodes[0], PutTenant("t", max_entries=10)), tuple)

    async def fill(at: int) -> int:
        made = [await outcome(nodes[at], Set(f"t/{at}-{n}", b"1", JSON)) for n in range(8)]
        assert all(isinstance(each, tuple | QuotaExceeded) for each in made), made
        return sum(isinstance(each, tuple) for each in made)

    assert sum(await asyncio.gather(*map(fill, range(NODES)))) == 10
    assert await nodes[0].count(KeyRange("t/"), 100, 0.0) == (10, 10 * 6, None)
    access = await nodes[1].access(None)
    assert access is not None and access.tenants["t"].entries == 10


async def test_a_limit_that_another_node_has_used_up(
    nodes: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is used up after the group was planned, by a key that the group does not name."""
    assert isinstance(await outcome(nodes[0], PutTenant("t", max_entries=1)), tuple)
    committer = nodes[1]._committer
    look_up = committer._look_up
    others: list[object] = []

    async def overtaken(*args: Any) -> Any:
        seen = await look_up(*args)
        if not others:
            others.append(await outcome(nodes[0], Set("t/theirs", b"1", JSON)))
        return seen

    monkeypatch.setattr(committer, "_look_up", overtaken)
    assert isinstance(await outcome(nodes[1], Set("t/ours", b"1", JSON)), QuotaExceeded)
    assert isinstance(others[0], tuple)


async def test_a_prefix_deleted_by_one_node_is_deleted_for_others(
    nodes: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefixes, "ONE_BY_ONE", 1)
    for n in range(4):
        await put(nodes[0], f"default/p/{n}")
    before = (await nodes[1].ask(0)).position
    # Two of the four: whichever node is first, more than one are left for the prefix.
    deleted, *made = await asyncio.gather(
        outcome(nodes[0], DeletePrefix("default/p/")),
        *(outcome(nodes[1], Delete(f"default/p/{n}", Condition(exists=True))) for n in range(2)),
    )
    assert isinstance(deleted, tuple)
    gone = sum(isinstance(each, tuple) for each in made)
    assert deleted[0].removed == 4 - gone, "each is deleted once"
    commits = (await nodes[1].ask(before)).commits
    assert any(commit.hashes is None for commit in commits)
    assert [await value_of(nodes[2], f"default/p/{n}") for n in range(4)] == [None] * 4


async def test_a_group_planned_before_an_entry_expired_is_planned_again(
    postgres: PostgresProcess, database: str
) -> None:
    """Another node may have seen that it has expired, when the lock is taken at last."""
    store = await open_postgres(database)
    now = (await store.ask(0)).now
    assert isinstance(await outcome(store, Set(KEY, b"1", JSON, now + 3_600)), tuple)
    async with locked(postgres, database) as holder:
        setting = asyncio.ensure_future(
            outcome(store, Set(KEY, b"2", JSON, None, Condition(exists=True)))
        )
        await poll_async(lambda: postgres.sql(WAITING) == "1", "a group waits for the lock")
        holder.write(
            b"UPDATE tenantbase.clock SET at = extract(epoch FROM clock_timestamp()) + 7200;\n"
        )
    made = await setting
    assert isinstance(made, ConditionFailed) and made.version is None
    await store.close()


async def test_versions_are_those_that_the_group_got(
    postgres: PostgresProcess, nodes: list[PostgresStore], database: str
) -> None:
    """Groups of several nodes are planned from the same position, and get the ones after it."""
    keys = [f"default/{at}" for at in range(NODES)]
    async with locked(postgres, database):
        making = [
            asyncio.ensure_future(put(store, key)) for store, key in zip(nodes, keys, strict=True)
        ]
        waiting = str(NODES)
        await poll_async(lambda: postgres.sql(WAITING) == waiting, "all wait for the lock")
    made = await asyncio.gather(*making)
    assert sorted(entry.version for entry in made) == list(range(1, NODES + 1))
    stored, _ = await nodes[0].read_stamped(keys)
    assert stored == made


async def test_the_wait_for_the_lock_and_the_size_of_a_group_are_counted(
    postgres: PostgresProcess, database: str
) -> None:
    """Both of a group that is committed by one call, and of one that takes the lock first."""
    figures = private_cells()
    store = await open_postgres(database, figures=figures)
    holder = await asyncio.create_subprocess_exec(
        *postgres.psql(database.rpartition("/")[2]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert holder.stdin is not None and holder.stdout is not None
    long = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND clock_timestamp() - query_start > '0.2 s'"
    )
    for command in (INCREMENT, Sweep(1)):
        before = figures[LOCK_WAIT.sum]
        holder.stdin.write(b"BEGIN; SELECT position FROM tenantbase.clock FOR UPDATE;\n")
        await holder.stdout.readline()
        group = [Granted(command), Granted(Set(KEY, b"1", JSON))]
        committing = asyncio.ensure_future(store.commit(group, name_hash))
        await poll_async(lambda: postgres.sql(long) == "1", "a group waits for the lock")
        holder.stdin.write(b"COMMIT;\n")
        await committing
        assert figures[LOCK_WAIT.sum] - before > 0.1 * SECOND
    holder.stdin.close()
    await holder.wait()
    assert figures[COMMIT_WRITES.sum] == 2 * 2
    await store.close()


async def test_what_is_trimmed_is_told(
    nodes: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "KEPT_COMMITS", 3)
    for n in range(10):
        await put(nodes[0], f"default/{n}")
    assert isinstance(await outcome(nodes[0], Sweep(100)), tuple)
    assert (await nodes[1].ask(0)).trimmed == 0, "they are not old enough"
    monkeypatch.setattr(alone, "KEPT_COMMITS_SECONDS", -1.0)
    assert isinstance(await outcome(nodes[0], Sweep(100)), tuple)
    index = await nodes[1].ask(0)
    positions = [commit.position for commit in index.commits]
    assert positions == list(range(index.trimmed + 1, 11))
    assert 1 <= len(positions) <= 3
    assert (await nodes[1].ask(index.position)).commits == []


async def test_a_sweep_that_has_trimmed_its_share_asks_for_another(
    nodes: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "KEPT_COMMITS", 1)
    monkeypatch.setattr(alone, "KEPT_COMMITS_SECONDS", -1.0)
    for n in range(8):
        await put(nodes[0], f"default/{n}")
    share = 3
    removed: list[int] = []
    while len(removed) < 10 and (not removed or removed[-1] >= share):
        made = await outcome(nodes[0], Sweep(share))
        assert isinstance(made, tuple)
        removed.append(made[0].removed)
    assert len(removed) > 2 and removed[-1] < share
    assert len((await nodes[1].ask(0)).commits) <= share


async def test_a_long_answer_comes_in_pieces(
    postgres: PostgresProcess, database: str, nodes: list[PostgresStore]
) -> None:
    postgres.sql(
        "INSERT INTO tenantbase.commits SELECT gen_random_uuid(), true, n, n, 0, '\\x01000000'"
        " FROM generate_series(1, 2500) AS n; UPDATE tenantbase.clock SET position = 2500",
        database=database.rpartition("/")[2],
    )
    after, sizes = 0, []
    while after < 2500:
        index = await nodes[0].ask(after)
        sizes.append(len(index.commits))
        after = index.commits[-1].position
        assert index.complete == (after == 2500)
    assert sizes == [1000, 1000, 500]


# Outcomes in doubt


async def test_an_answer_that_is_cut_leaves_nothing_in_doubt() -> None:
    """Answers are cut after each number of bytes, so that all of them are met: before, within and after
    the answer to the COMMIT."""
    with PostgresProcess() as server:
        async with FaultProxy(server.host) as proxy:
            async with opened(
                proxy.address, confirm=Confirm.NONE, replicated=False, timeout=20.0
            ) as store:
                await put(store, KEY, b"0")
                expected = 0
                for size in range(0, 480, 40):
                    # The statements are prepared, so the answers have few bytes.
                    assert isinstance(await outcome(store, INCREMENT), tuple)
                    proxy.cut_existing_after(size)
                    made = await outcome(store, INCREMENT)
                    assert isinstance(made, tuple | StoreUnavailable), made
                    expected += 1 + isinstance(made, tuple)
                    if isinstance(made, tuple):
                        assert made[0].entry is not None
                        assert made[0].entry.value == b"%d" % expected
                    await again(store)
                assert await value_of(store) == b"%d" % expected
                assert store.doubts[DoubtEnd.MADE] > 0 and store.doubts[DoubtEnd.UNKNOWN] == 0


async def test_a_group_that_never_arrived_is_told_as_not_made() -> None:
    with PostgresProcess() as server:
        async with FaultProxy(server.host) as proxy:
            async with opened(
                proxy.address, confirm=Confirm.NONE, replicated=False, timeout=3.0
            ) as store:
                await put(store, KEY, b"0")
                server.pause()
                writing = asyncio.ensure_future(outcome(store, INCREMENT))
                await poll_async(lambda: store.sessions_lost > 0, "the session is given up")
                server.resume()
                made = await writing
                await again(store)
                expected = b"1" if isinstance(made, tuple) else b"0"
                assert isinstance(made, tuple | StoreUnavailable)
                assert await value_of(store) == expected


async def test_an_outcome_that_stays_in_doubt_is_told_as_unknown() -> None:
    """A paused server may hold a COMMIT that it carries out later."""
    with PostgresProcess() as server:
        async with opened(
            server, confirm=Confirm.NONE, replicated=False, timeout=2.0, write_timeout=6.0
        ) as store:
            await put(store, KEY, b"0")
            await store.commit([Granted(INCREMENT)], name_hash)
            server.pause()
            made = await outcome(store, INCREMENT)
            assert isinstance(made, OutcomeUnknown | StoreUnavailable), made
            server.resume()
            await again(store)
            assert isinstance(await outcome(store, INCREMENT), tuple), "later groups are taken"


async def test_a_mark_is_not_mistaken_for_a_commit(nodes: list[PostgresStore]) -> None:
    token = uuid4()
    for store in nodes:
        assert await store.settle(token, 30.0) == (False, None)
    assert await nodes[0].settle(token, 30.0) == (False, None)


async def test_lists_that_wait_for_each_other_cost_no_session(
    postgres: PostgresProcess, database: str
) -> None:
    address = DatabaseAddress.parse(database)
    store = await PostgresStore.open(
        address,
        confirm=Confirm.NONE,
        replicated=False,
        timeout=20.0,
        read_timeout=20.0,
        write_timeout=60.0,  # the lock is waited for so long
        sizes=SMALL,
    )
    holder = await asyncpg.connect(postgres.url(address.database, "postgres"))
    await holder.execute("BEGIN; LOCK TABLE tenantbase.entries IN ACCESS EXCLUSIVE MODE")
    first, *others = (asyncio.ensure_future(store.count(KeyRange(), 10, 0.0)) for _ in range(3))
    for waiting in others:
        with pytest.raises(StoreUnavailable, match="busy with other requests"):
            await waiting
    await holder.close()
    assert await first == (0, 0, None)
    assert store.sessions_lost == 0
    await store.close()


async def test_a_question_is_answered_by_the_session_after_the_one_that_is_lost() -> None:
    with PostgresProcess() as server:
        store = await PostgresStore.open(
            DatabaseAddress.parse(server.url()),
            confirm=Confirm.NONE,
            replicated=False,
            timeout=2.0,
            write_timeout=60.0,
            read_timeout=60.0,
            sizes=SMALL,
        )
        entry = await put(store, KEY)
        server.pause()
        asking = asyncio.ensure_future(store.ask(0))
        await poll_async(lambda: store.sessions_lost > 0, "the session is given up")
        await asyncio.sleep(1.0)  # longer than one session may take to answer
        server.resume()
        assert (await asking).position == entry.version
        await store.close()
