"""A group that meets damage: only the members that meet it fail, and the others are committed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

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
from tenantbase.entry import JSON, OCTETS, Entry
from tenantbase.errors import Damaged
from tenantbase.events import EventKind
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.listing import KeyRange
from tests.damage import damage, damage_leaves
from tests.fakes import Granted, RecordingSeqlock

NOW = 1_000_000.0
MARKER = b"damaged!"
ROW_BYTES = 460
GROWTH_BYTES = 200  # a full page of such rows has room for one row to grow, but not for two


@pytest.fixture
async def database(tmp_path: Path) -> Path:
    """A database with the rows k000 to k199, in order, and a large one that is damaged."""
    path = tmp_path / "x.db"
    store = await SqliteStore.open(path, RecordingSeqlock().lock)
    rows = [Granted(Set(f"default/k{n:03}", bytes(ROW_BYTES), OCTETS)) for n in range(200)]
    await store.write(
        [*rows, Granted(Set("default/bad", MARKER * 2_000, OCTETS))], NOW, RecordingSeqlock()
    )
    await store.close()
    damage(path, MARKER)
    return path


@pytest.fixture
async def store(database: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(database, RecordingSeqlock().lock)
    yield opened
    await opened.close()


async def values(store: SqliteStore, *keys: str) -> list[bytes | None]:
    found = await store.read(keys, NOW)
    return [entry.value if isinstance(entry, Entry) else None for entry in found]


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize(
    "culprit",
    [Set("default/bad", b"1", JSON), Increment("default/bad", 1, 0), DeletePrefix("default/ba")],
    ids=lambda command: type(command).__name__,
)
async def test_a_member_that_meets_damage_fails_alone(
    store: SqliteStore, culprit: Command, at: int
) -> None:
    group = [Granted(Set(key, b"1", JSON)) for key in ("default/a", "default/k000", "default/c")]
    group.insert(at, Granted(culprit))
    seqlock = RecordingSeqlock()
    result = await store.write(group, NOW, seqlock)
    failed = result.outcomes.pop(at)
    assert isinstance(failed, Damaged)
    assert "make a backup and restore it" in str(failed)
    assert all(isinstance(outcome, tuple) for outcome in result.outcomes)
    assert await values(store, "default/a", "default/k000", "default/c") == [b"1"] * 3
    assert seqlock.told == ["lock", {"default/a", "default/k000", "default/c"}, "commit", "unlock"]
    events, _ = await store.changes(201, 10)
    assert [event.key for event in events] == ["default/a", "default/k000", "default/c"]


async def test_several_culprits_are_left_out(store: SqliteStore) -> None:
    condition = Condition(exists=True)
    group: list[Command] = [
        Set("default/bad", b"1", JSON),
        Set("default/a", b"1", JSON),
        Increment("default/bad", 1, 0),
        Set("default/bad", b"2", JSON, None, condition),
        Increment("default/a", 1, 0),
    ]
    result = await store.write([Granted(each) for each in group], NOW, RecordingSeqlock())
    assert [type(outcome) for outcome in result.outcomes] == [
        Damaged,
        tuple,
        Damaged,
        Damaged,
        tuple,
    ]
    assert await values(store, "default/a") == [b"2"]


@pytest.mark.parametrize("others", [0, 1, 5])
@pytest.mark.parametrize("pairs", [1, 2])
async def test_members_that_meet_damage_only_together(
    database: Path, others: int, pairs: int
) -> None:
    """Each of them grows a row in its page; the two overflow it, and its neighbour is damaged."""
    fills = [Granted(Set(f"default/new{n}", b"1", JSON)) for n in range(others)]
    group = []
    firsts = [f"k{30 + 80 * pair:03}" for pair in range(pairs)]
    for pair, keys in enumerate(damage_leaves(database, *firsts)):
        grown = bytes(ROW_BYTES + GROWTH_BYTES)
        group += [Granted(Set(f"default/{key}", grown, OCTETS)) for key in keys[-2:]]
        group += fills[pair::pairs]
    store = await SqliteStore.open(database, RecordingSeqlock().lock)
    try:
        result = await store.write(group, NOW, RecordingSeqlock())
        commands = [member.transaction[0] for member in group]
        ended = list(zip(commands, result.outcomes, strict=True))
        made = [command for command, outcome in ended if isinstance(outcome, tuple)]
        assert sum(isinstance(outcome, Damaged) for _, outcome in ended) == pairs
        assert len(made) == len(group) - pairs
        for command in made:
            assert isinstance(command, Set)
            assert await values(store, command.key) == [command.value]
    finally:
        await store.close()


@pytest.mark.parametrize("at", range(3))
async def test_a_damaged_key_can_be_deleted(store: SqliteStore, database: Path, at: int) -> None:
    group = [Granted(Set("default/a", b"1", JSON)), Granted(Set("default/c", b"1", JSON))]
    group.insert(at, Granted(Delete("default/bad", Condition(exists=True))))
    seqlock = RecordingSeqlock()
    result = await store.write(group, NOW, seqlock)
    deleted = result.outcomes.pop(at)
    assert deleted == (Applied(removed=1),)
    assert all(isinstance(outcome, tuple) for outcome in result.outcomes)
    assert seqlock.told == ["lock", {"default/a", "default/bad", "default/c"}, "commit", "unlock"]
    events, _ = await store.changes(201, 10)
    assert sorted((event.kind, event.key) for event in events) == [
        (EventKind.DELETE, "default/bad"),
        (EventKind.SET, "default/a"),
        (EventKind.SET, "default/c"),
    ]
    await store.close()
    reopened = await SqliteStore.open(database, RecordingSeqlock().lock)
    try:
        assert await reopened.read(["default/bad"], NOW) == [None]
        entries, _ = await reopened.scan(KeyRange("default/b"), 10, 1 << 20, NOW)
        assert entries == []
        for _ in range(3):  # the first one meets the damage, which is then remembered
            (swept,) = (
                await reopened.write([Granted(Sweep(100))], NOW, RecordingSeqlock())
            ).outcomes
            assert isinstance(swept, tuple | Damaged)
        assert await reopened.read(["default/bad"], NOW) == [None], "it stays deleted"
        again = await reopened.write([Granted(Delete("default/bad"))], NOW, RecordingSeqlock())
        assert again.outcomes == [(Applied(),)]
        # Its row cannot be removed, so its key cannot get a new row.
        refused = await reopened.write(
            [Granted(Set("default/bad", b"2", JSON)), Granted(Set("default/b", b"2", JSON))],
            NOW,
            RecordingSeqlock(),
        )
        assert isinstance(refused.outcomes[0], Damaged)
        assert await values(reopened, "default/bad", "default/b") == [None, b"2"]
    finally:
        await reopened.close()
