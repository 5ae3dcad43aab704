"""Usage is always that of the rows, and limits are exact, whichever processes write at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantbase.access import Access, TenantLimits
from tenantbase.commands import (
    Applied,
    Command,
    Delete,
    DeletePrefix,
    DeleteTenant,
    Increment,
    PutTenant,
    Set,
    Sweep,
)
from tenantbase.entry import JSON, OCTETS
from tenantbase.errors import Damaged, NoSuchTenant, QuotaExceeded, TenantbaseError
from tenantbase.interfaces.sqlite import sweep as sql_sweep
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.interfaces.sqlite.usage import Mismatch, recount
from tests.damage import damage
from tests.fakes import Granted, RecordingSeqlock

ROOT: Final = Path(__file__).parents[3]
NOW: Final = 1_000.0
MARKER: Final = b"damaged!"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await open_store(tmp_path)
    yield opened
    await opened.close()


async def open_store(directory: Path) -> SqliteStore:
    return await SqliteStore.open(directory / "x.db", RecordingSeqlock().lock)


async def write(
    store: SqliteStore, *group: Command | tuple[Command, ...], now: float = NOW
) -> list[tuple[Applied, ...] | TenantbaseError | None]:
    """Write transactions as one group."""
    pending = [Granted(*each) if isinstance(each, tuple) else Granted(each) for each in group]
    return (await store.write(pending, now, RecordingSeqlock())).outcomes


async def usage(store: SqliteStore, tenant: str = "default") -> tuple[int, int]:
    found = await store.access(None)
    assert isinstance(found, Access)
    return found.tenants[tenant].entries, found.tenants[tenant].bytes


def miscounted(directory: Path) -> list[Mismatch]:
    with contextlib.closing(sqlite3.connect(directory / "x.db", isolation_level=None)) as database:
        return recount(database)


# What counts


def test_a_recount_finds_what_is_wrong(tmp_path: Path) -> None:
    asyncio.run(
        _prepare(tmp_path, Set("default/é", b"12", JSON), PutTenant("t"), Set("t/k", b"", JSON))
    )
    assert miscounted(tmp_path) == []
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as database:
        database.execute("UPDATE tenants SET entries = 3, bytes = 5 WHERE name = 'default'")
        database.execute("DELETE FROM tenants WHERE name = 't'")
    assert miscounted(tmp_path) == [
        Mismatch("default", (3, 5), (1, 4)),
        Mismatch("t", (0, 0), (1, 1)),
    ]


async def _prepare(directory: Path, *commands: Command) -> None:
    store = await open_store(directory)
    await write(store, *commands)
    await store.close()


async def test_a_damaged_row_that_is_hidden_does_not_count(tmp_path: Path) -> None:
    await _prepare(
        tmp_path, Set("default/bad", MARKER * 2_000, OCTETS), Set("default/k", b"1", JSON)
    )
    damage(tmp_path / "x.db", MARKER)
    store = await open_store(tmp_path)
    try:
        group: list[Command] = [
            Delete("default/bad"),
            Set("default/bad", b"1", JSON),
            Set("default/l", b"1", JSON),
        ]
        outcomes = await write(store, *group)
        assert outcomes[0] == (Applied(removed=1),)
        assert isinstance(outcomes[1], Damaged)
        assert await usage(store) == (2, 4), "attempts that were rolled back do not count"
        await write(store, Sweep(100))
        assert await usage(store) == (2, 4)
    finally:
        await store.close()
    assert miscounted(tmp_path) == []


async def test_a_deleted_tenant_takes_no_writes_until_it_is_made_again(store: SqliteStore) -> None:
    await write(store, PutTenant("t"), Set("t/k", b"1", JSON))
    outcomes = await write(
        store,
        DeleteTenant("t"),
        Set("t/k", b"2", JSON),
        (Set("default/k", b"2", JSON), Delete("t/k")),
        DeletePrefix("t/"),
        Set("default/l", b"2", JSON),
        PutTenant("t"),
        Set("t/new", b"3", JSON),
    )
    assert isinstance(outcomes[1], NoSuchTenant) and isinstance(outcomes[2], NoSuchTenant)
    assert outcomes[3] == (Applied(),)
    assert await usage(store, "t") == (1, 4)
    assert await usage(store) == (1, 2), "the transaction was refused as a whole"


async def test_a_key_that_is_set_and_deleted_again_leaves_no_expired_row(
    store: SqliteStore, tmp_path: Path
) -> None:
    await write(store, Set("default/k", b"123", JSON, NOW + 1))
    await write(store, Set("default/k", b"1", JSON), Delete("default/k"), now=NOW + 1)
    assert await usage(store) == (0, 0)
    assert miscounted(tmp_path) == []


# Against a plain recount

_TENANTS: Final = ["default", "t", "t-1"]
_KEYS: Final = st.builds(
    lambda tenant, key: f"{tenant}/{key}",
    st.sampled_from(_TENANTS),
    st.sampled_from(["a", "a/", "a/1", "a/2", "b", "é", "\U0010ffff"]),
)
_EXPIRIES: Final = st.none() | st.integers(-2, 6)
_NAMED: Final = (
    st.builds(
        lambda key, size, ttl: ("set", key, size, ttl), _KEYS, st.integers(0, 5_000), _EXPIRIES
    )
    | st.builds(lambda key: ("delete", key), _KEYS)
    | st.builds(
        lambda key, by, ttl: ("add", key, by, ttl), _KEYS, st.integers(-999, 999), _EXPIRIES
    )
)
_ALONE: Final = st.sampled_from(
    [
        *(DeletePrefix(f"{tenant}/{prefix}") for tenant in _TENANTS for prefix in ("", "a", "a/")),
        *(Sweep(limit) for limit in (1, 3, 100)),
        *(DeleteTenant(tenant) for tenant in _TENANTS[1:]),
        *(PutTenant(tenant) for tenant in _TENANTS[1:]),
        *(PutTenant(tenant, max_entries=4, max_bytes=6_000) for tenant in _TENANTS),
    ]
)
_TRANSACTIONS: Final = st.lists(_NAMED, min_size=1, max_size=4) | _ALONE
_GROUPS: Final = st.lists(
    st.tuples(st.lists(_TRANSACTIONS, min_size=1, max_size=6), st.integers(0, 2)),
    min_size=1,
    max_size=12,
)


def _command(given: tuple[str, str, int, int | None] | tuple[str, str], now: float) -> Command:
    match given:
        case ("set", key, size, ttl):
            return Set(key, bytes(size), OCTETS, None if ttl is None else now + ttl)
        case ("add", key, by, ttl):
            return Increment(key, by, 7, None if ttl is None else now + ttl)
        case (_, key):
            return Delete(key)
    raise AssertionError(given)


@settings(max_examples=60)
@given(groups=_GROUPS)
def test_usage_is_that_of_the_rows(groups: list[tuple[list[object], int]]) -> None:
    """After every group, whatever it did."""

    async def run(directory: Path) -> None:
        store = await open_store(directory)
        try:
            await write(store, *(PutTenant(tenant) for tenant in _TENANTS[1:]))
            now = NOW
            for group, passed in groups:
                now += passed
                transactions = [
                    (
                        tuple(_command(each, now) for each in given)
                        if isinstance(given, list)
                        else given
                    )
                    for given in group
                ]
                outcomes = await write(store, *transactions, now=now)  # type: ignore[arg-type]
                assert not [each for each in outcomes if each is None]
                assert miscounted(directory) == []
        finally:
            await store.close()

    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sql_sweep, "ONE_BY_ONE", 2)
        asyncio.run(run(Path(directory)))


_WRITER: Final = """
import asyncio, random, sys
from pathlib import Path
from tenantbase.coherence.tag_seqlock import WriteLock
from tenantbase.commands import Delete, DeletePrefix, DeleteTenant, Increment, PutTenant, Set, Sweep
from tenantbase.entry import JSON, OCTETS
from tenantbase.interfaces.sqlite import sweep
from tenantbase.interfaces.sqlite.store import SqliteStore
from tests.fakes import Granted, RecordingSeqlock

sweep.ONE_BY_ONE = 3
path, seed = Path(sys.argv[1]), int(sys.argv[2])
rng = random.Random(seed)

def command(now):
    key = f"{rng.choice(['default', 't', 'u'])}/{rng.choice('ab')}/{rng.randrange(20)}"
    expires_at = now + rng.randrange(1, 9) if rng.random() < 0.4 else None
    match rng.randrange(8):
        case 0:
            return Delete(key)
        case 1:
            return Increment(f"{key}n", rng.randrange(-5, 500), 0, expires_at)
    return Set(key, bytes(rng.randrange(3_000)), OCTETS, expires_at)

def transaction(now):
    tenant = rng.choice(["t", "u"])
    match rng.randrange(12):
        case 0:
            return Granted(DeletePrefix(f"{tenant}/{rng.choice(['', 'a/', 'b/1'])}"))
        case 1:
            return Granted(Sweep(5))
        case 2:
            return Granted(rng.choice([DeleteTenant(tenant), PutTenant(tenant, max_entries=25)]))
    return Granted(*(command(now) for _ in range(rng.choice([1, 1, 2, 9]))))

async def main():
    lock = WriteLock(path.with_name("lock"))
    seqlock = RecordingSeqlock()
    seqlock.lock = lock.held
    seqlock.begin_write = lambda keys: object()
    store = await SqliteStore.open(path, lock.held)
    for turn in range(150):
        group = [transaction(turn) for _ in range(rng.randrange(1, 8))]
        await store.write(group, float(turn), seqlock)
    await store.close()

asyncio.run(main())
"""


def test_usage_is_that_of_the_rows_when_processes_write_at_once(tmp_path: Path) -> None:
    asyncio.run(_prepare(tmp_path, PutTenant("t"), PutTenant("u")))
    processes = [
        subprocess.Popen([sys.executable, "-c", _WRITER, tmp_path / "x.db", str(seed)], cwd=ROOT)
        for seed in range(3)
    ]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert miscounted(tmp_path) == []


# Limits


_RACER: Final = """
import asyncio, sys
from pathlib import Path
from tenantbase.coherence.tag_seqlock import WriteLock
from tenantbase.commands import Set
from tenantbase.entry import OCTETS
from tenantbase.errors import QuotaExceeded
from tenantbase.interfaces.sqlite.store import SqliteStore
from tests.fakes import Granted, RecordingSeqlock

path, name = Path(sys.argv[1]), sys.argv[2]

async def main():
    lock = WriteLock(path.with_name("lock"))
    seqlock = RecordingSeqlock()
    seqlock.lock = lock.held
    seqlock.begin_write = lambda keys: object()
    store = await SqliteStore.open(path, lock.held)
    made = 0
    for start in range(0, 200, 4):
        keys = [f"t/{name}{number:03}" for number in range(start, start + 4)]
        group = [Granted(Set(key, bytes(10), OCTETS)) for key in keys]
        for outcome in (await store.write(group, 1.0, seqlock)).outcomes:
            assert isinstance(outcome, tuple | QuotaExceeded), outcome
            made += isinstance(outcome, tuple)
    print(made)
    await store.close()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("limits", "made"),
    [(TenantLimits(max_entries=250), 250), (TenantLimits(max_bytes=14 * 250 + 13), 250)],
    ids=["entries", "bytes"],
)
def test_processes_racing_to_a_limit_reach_it_exactly(
    tmp_path: Path, limits: TenantLimits, made: int
) -> None:
    put = PutTenant("t", max_entries=limits.max_entries, max_bytes=limits.max_bytes)
    asyncio.run(_prepare(tmp_path, put))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, tmp_path / "x.db", name],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "abc"
    ]
    told = [process.communicate(timeout=120)[0] for process in processes]
    assert sum(map(int, told)) == made
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as database:
        assert database.execute("SELECT count(*) FROM entries").fetchone() == (made,)
    assert miscounted(tmp_path) == []


async def test_the_error_names_the_limit(store: SqliteStore) -> None:
    await write(store, PutTenant("t", max_entries=1, max_bytes=100))
    (outcome,) = await write(store, (Set("t/a", b"1", JSON), Set("t/b", b"1", JSON)))
    assert isinstance(outcome, QuotaExceeded)
    assert (outcome.limit, outcome.allowed) == ("max_entries", 1)
    (outcome,) = await write(store, Set("t/a", bytes(100), OCTETS))
    assert isinstance(outcome, QuotaExceeded)
    assert (outcome.limit, outcome.allowed) == ("max_bytes", 100)
