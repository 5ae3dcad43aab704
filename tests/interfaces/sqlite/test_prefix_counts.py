"""Large prefixes are counted before they are deleted, and what changes meanwhile is counted again."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tenantbase.coherence.policy import Cache
from tenantbase.coherence.tag_seqlock import WriteLock
from tenantbase.commands import Applied, Command, Delete, DeletePrefix, Set, Sweep
from tenantbase.entry import JSON
from tenantbase.errors import CannotOpen, StoreUnavailable
from tenantbase.interfaces.sqlite import prefix_counts, sweep
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.interfaces.sqlite.usage import recount
from tenantbase.listing import KeyRange
from tests.fakes import Granted, RecordingSeqlock
from tests.servers import poll_async
from tests.service import opened

_PREFIX = "default/p/"
NOW = 1_000.0


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three keys are many."""
    monkeypatch.setattr(sweep, "ONE_BY_ONE", 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(path, WriteLock(path.with_name("lock")).held, change_log_size=8)
    yield opened
    await opened.close()


async def write(store: SqliteStore, *commands: Command, now: float = NOW) -> int:
    """Carry out the commands in one transaction. Returns: how many entries they removed."""
    seqlock = RecordingSeqlock()
    written = await store.write([Granted(*commands)], now, seqlock)
    (outcome,) = written.outcomes
    assert isinstance(outcome, tuple), outcome
    return sum(applied.removed for applied in outcome)


async def put(
    store: SqliteStore, key: str, value: bytes = b"1", until: float | None = None
) -> None:
    await write(store, Set(key, value, JSON, until))


def is_exact(path: Path) -> bool:
    """Whether the tenants' usage agrees with their rows."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return not recount(connection)


@contextmanager
def counted_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """In the block, everything that is counted with the lock held."""
    whole = prefix_counts.count_under
    again: list[str] = []

    def recorded(connection: sqlite3.Connection, prefix: str, now: float) -> prefix_counts.Sums:
        again.append(prefix)
        return whole(connection, prefix, now)

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "count_under", recorded)
        yield again


class Held:
    """Counts that do not end before they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        count = prefix_counts.count_under

        def held(connection: sqlite3.Connection, prefix: str, now: float) -> prefix_counts.Sums:
            self.begun.set()
            self.go.wait()
            return count(connection, prefix, now)

        monkeypatch.setattr(prefix_counts, "count_under", held)


async def test_what_changes_meanwhile_is_counted(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await put(store, f"{_PREFIX}{number}", b"1" * (number + 1))
    await put(store, f"{_PREFIX}soon", until=NOW + 1)
    await put(store, f"{_PREFIX}gone", until=NOW - 1)
    await put(store, "default/other")
    with counted_again(monkeypatch) as again:
        async with store.counting(_PREFIX, NOW):
            await put(store, f"{_PREFIX}0", b'"larger"')
            await put(store, f"{_PREFIX}new", b"12345")
            await write(store, Delete(f"{_PREFIX}1"))
            await put(store, "default/other", b"22")
            removed = await write(store, DeletePrefix(_PREFIX), now=NOW + 2)
    assert removed == 5, "0, 2, 3, 4 and new"
    assert not again
    assert is_exact(path)
    left, _ = await store.scan_meta(KeyRange(""), 10, NOW + 2)
    assert [each.key for each in left] == ["default/other"]


async def test_a_key_that_changes_often_counts_once(store: SqliteStore, path: Path) -> None:
    for number in range(5):
        await put(store, f"{_PREFIX}{number}")
    async with store.counting(_PREFIX, NOW):
        for number in range(300):  # more than are looked up at once
            await put(store, f"{_PREFIX}new", str(number).encode())
        assert await write(store, DeletePrefix(_PREFIX)) == 6
    assert is_exact(path)


async def test_a_group_counts_what_it_has_changed_itself(store: SqliteStore, path: Path) -> None:
    for number in range(5):
        await put(store, f"{_PREFIX}{number}")
    async with store.counting(_PREFIX, NOW):
        group = [Granted(Set(f"{_PREFIX}new", b"1", JSON)), Granted(DeletePrefix(_PREFIX))]
        _, deleted = (await store.write(group, NOW, RecordingSeqlock())).outcomes
    assert deleted == (Applied(removed=6),)
    assert is_exact(path)


async def delete_within(store: SqliteStore) -> None:
    await write(store, DeletePrefix(f"{_PREFIX}1"))


async def delete_around(store: SqliteStore) -> None:
    await write(store, DeletePrefix("default/"))
    for number in range(3):
        await put(store, f"{_PREFIX}again{number}")


async def change_much(store: SqliteStore) -> None:
    """More than the change log holds, and its oldest lines are removed."""
    for number in range(20):
        await put(store, "default/other", str(number).encode())
    while await write(store, Sweep(100)):
        pass


@pytest.mark.parametrize(
    ("meanwhile", "left"), [(delete_within, 20), (delete_around, 3), (change_much, 30)]
)
async def test_it_is_counted_again_if_the_change_log_does_not_say_all(
    store: SqliteStore,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: Callable[[SqliteStore], Awaitable[None]],
    left: int,
) -> None:
    for number in range(30):
        await put(store, f"{_PREFIX}{number:02}")
    with counted_again(monkeypatch) as again:
        async with store.counting(_PREFIX, NOW):
            await meanwhile(store)
            assert await write(store, DeletePrefix(_PREFIX)) == left
    assert again[-1:] == [_PREFIX]
    assert is_exact(path)


async def test_other_writes_do_not_wait(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await put(store, f"{_PREFIX}{number}")
    held = Held(monkeypatch)

    async def delete() -> int:
        async with store.counting(_PREFIX, NOW):
            return await write(store, DeletePrefix(_PREFIX))

    deleting = asyncio.create_task(delete())
    await poll_async(held.begun.is_set, "it is being counted")
    await put(store, f"{_PREFIX}5")
    assert len((await store.scan(KeyRange(_PREFIX), 10, 1 << 20, NOW))[0]) == 6
    assert not deleting.done()
    held.go.set()
    assert await deleting == 6
    assert is_exact(path)


async def test_two_deletions_of_one_prefix(store: SqliteStore, path: Path) -> None:
    for number in range(5):
        await put(store, f"{_PREFIX}{number}")

    async def delete() -> int:
        async with store.counting(_PREFIX, NOW):
            return await write(store, DeletePrefix(_PREFIX))

    assert sorted(await asyncio.gather(delete(), delete())) == [0, 5]
    assert is_exact(path)


@pytest.mark.parametrize("prefix", [f"{_PREFIX}3", "default/"])
async def test_what_is_small_or_known_is_not_counted(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    for number in range(5):
        await put(store, f"{_PREFIX}{number}")
    Held(monkeypatch)  # for ever
    async with store.counting(prefix, NOW):
        assert await write(store, DeletePrefix(prefix)) == (1 if prefix != "default/" else 5)


async def test_a_count_that_fails_leaves_it_to_the_deletion(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(connection: sqlite3.Connection, prefix: str, now: float) -> prefix_counts.Sums:
        raise sqlite3.DatabaseError("damaged")

    for number in range(5):
        await put(store, f"{_PREFIX}{number}")
    monkeypatch.setattr(prefix_counts, "count_under", failing)
    async with store.counting(_PREFIX, NOW):
        assert await write(store, DeletePrefix(_PREFIX)) == 5
    assert is_exact(path)


async def test_a_count_that_cannot_begin_leaves_it_to_the_deletion(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing() -> sqlite3.Connection:
        raise CannotOpen("too many open files")

    for number in range(5):
        await put(store, f"{_PREFIX}{number}")
    monkeypatch.setattr(store._counter, "_connect", failing)
    async with store.counting(_PREFIX, NOW):
        assert await write(store, DeletePrefix(_PREFIX)) == 5
    assert is_exact(path)


async def test_the_connection_is_closed_in_the_end(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await put(store, f"{_PREFIX}{number}")
    before = threading.active_count()
    async with store.counting(_PREFIX, NOW):
        assert threading.active_count() == before + 1
    held = Held(monkeypatch)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), store.counting(_PREFIX, NOW):
                pytest.fail("it was counted")
    held.go.set()
    await poll_async(lambda: threading.active_count() == before, "its thread ends")
    assert not store._counter.counts


async def test_a_store_that_is_closed_while_it_counts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await SqliteStore.open(path, WriteLock(path.with_name("lock")).held)
    for number in range(5):
        await put(store, f"{_PREFIX}{number}")
    held = Held(monkeypatch)

    async def count() -> None:
        async with store.counting(_PREFIX, NOW):
            pass

    counting = asyncio.create_task(count())
    await poll_async(held.begun.is_set, "it is being counted")
    closing_store = asyncio.create_task(store.close())
    assert not (await asyncio.wait([closing_store], timeout=0.5))[0]
    held.go.set()
    await asyncio.gather(counting, closing_store)
    assert not path.with_name("x.db-wal").exists(), "the last connection removes it"


async def test_counting_takes_a_part_of_the_time_for_a_write(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(path, write_timeout=0.5) as cache:
        assert isinstance(cache, Cache)
        for number in range(5):
            await cache.write(Set(f"{_PREFIX}{number}", b"1", JSON))
        held = Held(monkeypatch)
        with pytest.raises(StoreUnavailable, match="counted within 0.3 s: delete it in parts"):
            await cache.delete_prefix(_PREFIX)
        held.go.set()
        assert (await cache.get(f"{_PREFIX}0")).entry is not None


async def test_whatever_happens_meanwhile(store: SqliteStore, path: Path) -> None:
    """Random changes between the count and the deletion: the number is that of the entries."""
    chance = random.Random(7)
    now = NOW
    for _ in range(60):
        for _ in range(chance.randrange(12)):
            await write(store, random_command(chance, now), now=now)
        async with store.counting(_PREFIX, now):
            for _ in range(chance.randrange(8)):
                await write(store, random_command(chance, now), now=now)
                now += chance.choice([0.0, 0.0, 1.0])
            entries, _, _ = await store.count(KeyRange(_PREFIX), 1_000, now)
            assert await write(store, DeletePrefix(_PREFIX), now=now) == entries
        assert is_exact(path)


def random_command(chance: random.Random, now: float) -> Command:
    key = f"default/{chance.choice(['p/', 'p/1/', 'q/'])}{chance.randrange(8)}"
    kind = chance.randrange(10)
    if kind < 6:
        until = chance.choice([None, now + 1, now + 2])
        return Set(key, b"1" * chance.randrange(1, 9), JSON, until)
    if kind < 8:
        return Delete(key)
    return DeletePrefix(chance.choice(["default/p/1/", "default/q/"])) if kind < 9 else Sweep(100)
