"""The contract of stores: all implementations pass the same tests."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import msgspec
import pytest

from tenantbase.access import Access, Tenant, TenantLimits, Token, TokenScope
from tenantbase.commands import (
    MAX_RETURNED_BYTES,
    Applied,
    Command,
    Condition,
    CreateToken,
    Delete,
    DeletePrefix,
    DeleteTenant,
    DisableTokens,
    Increment,
    KeyCommand,
    PutTenant,
    Rename,
    RevokeToken,
    Set,
    Sweep,
    Touch,
)
from tenantbase.entry import JSON, OCTETS, Entry
from tenantbase.errors import (
    ConditionFailed,
    InvalidRequest,
    NoSuchKey,
    NoSuchTenant,
    QuotaExceeded,
    StoreError,
    StoreUnavailable,
    TenantbaseError,
    TenantRequired,
    TooLarge,
    WrongType,
)
from tenantbase.events import ChangeEvent, EventKind
from tenantbase.interfaces.sqlite import sweep as sql_sweep
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.interfaces.store import GroupResult
from tenantbase.interfaces.store import LocalStore as Store
from tenantbase.listing import EntryMeta, Folded, Item, KeyRange, Place, place_of
from tenantbase.plain_entries import Columns, PlainEntries
from tenantbase.scope import DEFAULT, ScopedKey, plain_key, tenant_of
from tests.fake_cluster import ContractStore, FakeCluster
from tests.fakes import FakeStore, Granted, RecordingSeqlock, Tables, Withdrawn
from tests.interfaces.rendering import Rendering

NOW = 1_000.0
ABSENT = Condition(absent=True)
EXISTS = Condition(exists=True)
Opener = Callable[..., Awaitable[Store]]


@pytest.fixture(params=["sqlite", "fake", "fake-shared"])
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens the same store repeatedly, and closes the open ones when the test ends."""
    opened: list[Store] = []
    tables, cluster = Tables(), FakeCluster()

    async def open_store(*, change_log_size: int = 65_536) -> Store:
        if opened:
            await opened[-1].close()
        if request.param == "sqlite":
            lock = RecordingSeqlock().lock
            opened.append(
                await SqliteStore.open(tmp_path / "x.db", lock, change_log_size=change_log_size)
            )
        elif request.param == "fake":
            opened.append(FakeStore(tables, change_log_size=change_log_size))
        else:
            opened.append(ContractStore(cluster, change_log_size=change_log_size))
        return opened[-1]

    yield open_store
    if opened:
        await opened[-1].close()


@pytest.fixture
async def store(reopen: Opener) -> Store:
    return await reopen()


async def write(store: Store, *changes: Command, now: float = NOW) -> tuple[Applied, ...]:
    """Write one transaction as its own group."""
    (outcome,) = await write_group(store, Granted(*changes), now=now)
    assert isinstance(outcome, tuple), outcome
    return outcome


async def write_group(
    store: Store, *group: Granted, now: float = NOW
) -> list[tuple[Applied, ...] | TenantbaseError | None]:
    written = await store.write(group, now, RecordingSeqlock())
    return written.outcomes


async def put(store: Store, key: str, value: bytes = b"1", *, now: float = NOW) -> Entry:
    (applied,) = await write(store, Set(key, value, JSON), now=now)
    assert applied.entry is not None
    return applied.entry


async def get(store: Store, key: str, *, now: float = NOW) -> Entry | None:
    (entry,) = await store.read([key], now)
    assert not isinstance(entry, StoreError)
    return entry


async def keys_of(store: Store, prefix: str = "", *, now: float = NOW) -> list[str]:
    entries, more = await store.scan_meta(KeyRange(prefix), 100_000, now)
    assert not more
    return [entry.key for entry in entries]


async def refusal(store: Store, *changes: Command) -> TenantbaseError:
    (outcome,) = await write_group(store, Granted(*changes))
    assert isinstance(outcome, TenantbaseError), outcome
    return outcome


# Setting and reading


async def test_what_is_set_is_read(store: Store) -> None:
    value = bytes(range(256))
    (applied,) = await write(store, Set("default/k", value, "text/x-odd; charset=x", 2_000.5))
    entry = applied.entry
    assert entry is not None and applied.created
    assert (entry.key, entry.value, entry.expires_at) == ("default/k", value, 2_000.5)
    assert entry.content_type == "text/x-odd; charset=x"
    assert len(entry.id) == 36
    assert await get(store, "default/k") == entry


async def test_reads_keep_their_order(store: Store) -> None:
    one, two = await put(store, "default/1"), await put(store, "default/2", b"")
    assert await store.read(["default/2", "default/no", "default/1", "default/2"], NOW) == [
        two,
        None,
        one,
        two,
    ]
    assert await store.read([], NOW) == []


async def test_a_replaced_entry_keeps_its_id(store: Store) -> None:
    first = await put(store, "default/k", b"1")
    (applied,) = await write(store, Set("default/k", b"x", OCTETS))
    assert applied.entry is not None and not applied.created
    assert applied.entry.id == first.id
    assert applied.entry.version == first.version + 1
    assert await get(store, "default/k") == applied.entry


async def test_a_set_removes_an_expiry_it_does_not_repeat(store: Store) -> None:
    await write(store, Set("default/k", b"1", JSON, NOW + 5))
    assert (await put(store, "default/k")).expires_at is None
    assert await get(store, "default/k", now=NOW + 10) is not None


@pytest.mark.parametrize(
    "change",
    [
        Set("default/k", b"2", JSON),
        Set("default/k", b"2", JSON, NOW + 5),
        Set("default/k", b"2", OCTETS),
        Set("default/k", b"2", OCTETS, NOW + 9),
    ],
)
@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("expires_at", [None, NOW + 5])
async def test_what_changes_with_a_value_is_stored(
    store: Store, change: Set, deleted: bool, expires_at: float | None
) -> None:
    (first,) = await write(store, Set("default/k", b"1", JSON, expires_at))
    group = [Granted(Delete("default/k"))] * deleted + [Granted(change)]
    last = (await write_group(store, *group))[-1]
    assert isinstance(last, tuple) and first.entry is not None
    (applied,) = last
    assert await store.read(["default/k"], NOW) == [applied.entry]
    assert applied.entry is not None and (applied.entry.id == first.entry.id) is not deleted
    events, complete = await store.changes(applied.entry.version - 1, 10)
    assert complete and events == [
        ChangeEvent(
            applied.entry.version,
            EventKind.SET,
            ScopedKey("default/k"),
            1,
            change.content_type,
            change.expires_at,
        )
    ]


async def test_a_deleted_key_can_be_created_again(store: Store) -> None:
    first = await put(store, "default/k")
    assert await write(store, Delete("default/k")) == (Applied(removed=1),)
    assert await get(store, "default/k") is None
    assert await write(store, Delete("default/k")) == (Applied(),)
    second = await put(store, "default/k")
    assert second.id != first.id
    assert second.version == first.version + 2, "deleting took one, deleting nothing none"


async def test_a_deletion_returns_what_it_removed(store: Store) -> None:
    first = await put(store, "default/k", b" 1\n")
    (applied,) = await write(store, Set("default/x", b"\0x", OCTETS, NOW + 5))
    second = applied.entry
    removed = await write(
        store,
        Delete("default/k", Condition(versions=frozenset({first.version})), returned=True),
        Delete("default/absent", returned=True),
        Delete("default/x", returned=True),
        Delete("default/k", returned=True),
    )
    assert removed == (
        Applied(removed=1, before=first),
        Applied(),
        Applied(removed=1, before=second),
        Applied(),
    )
    assert await store.read(["default/k", "default/x"], NOW) == [None, None]
    await write(store, Set("default/x", b"old", OCTETS, NOW + 5))
    assert await write(store, Delete("default/x", returned=True), now=NOW + 6) == (Applied(),)


async def test_a_deletion_returns_what_its_group_has_written(store: Store) -> None:
    await put(store, "default/k", b"1")
    outcomes = await write_group(
        store,
        Granted(Set("default/k", b"2", JSON)),
        Granted(Delete("default/k", returned=True)),
        Granted(Increment("default/k", 1, 0)),
    )
    stored, removed, again = [one for each in outcomes for one in cast("tuple[Applied]", each)]
    assert removed.removed and removed.before == stored.entry
    assert again.created


async def test_values_that_are_too_large_together_are_not_returned(store: Store) -> None:
    half = b"x" * (MAX_RETURNED_BYTES // 2)
    for key in ("a", "b"):
        await write(store, Set(f"default/{key}", half, OCTETS))
    await put(store, "default/c", b"1")
    every = [Delete(f"default/{key}", returned=True) for key in "abc"]
    (outcome,) = await write_group(store, Granted(*every))
    assert isinstance(outcome, TooLarge) and outcome.field == "return_values"
    assert None not in await store.read(["default/a", "default/b", "default/c"], NOW)
    both = await write(store, *every[:2])
    assert [applied.before is not None and applied.before.value for applied in both] == [half] * 2


async def test_no_version_is_used_twice(reopen: Opener) -> None:
    store = await reopen()
    await put(store, "default/k")
    await write(store, Delete("default/k"))
    store = await reopen()
    assert await store.last_version() == 2
    assert (await put(store, "default/k")).version == 3
    await write(store, Delete("default/k"))
    while (await write(store, Sweep(10)))[0].removed:
        pass
    store = await reopen(change_log_size=0)
    while (await write(store, Sweep(10)))[0].removed:
        pass
    store = await reopen()
    assert (await put(store, "default/k")).version == 5


async def test_the_secret_stays(reopen: Opener) -> None:
    secret = (await reopen()).secret
    assert len(secret) == 32
    assert (await reopen()).secret == secret


@pytest.mark.parametrize(
    "key",
    ["%", "_", "a'b\"c;--", "/", " ", "\t\n", "é", "e\u0301", "\ud7ff\ue000", "\U0010ffff" * 256],
)
async def test_any_key(store: Store, key: str) -> None:
    key = DEFAULT.key(key)
    entry = await put(store, key)
    await put(store, "default/other")
    assert await get(store, key) == entry
    assert key in await keys_of(store)
    await write(store, Delete(key))
    assert await keys_of(store) == ["default/other"]


# Conditions


@pytest.mark.parametrize(
    ("condition", "of_absent", "of_present"),
    [
        (ABSENT, True, False),
        (EXISTS, False, True),
        (Condition(versions=frozenset({1})), False, True),
        (Condition(versions=frozenset({7, 1})), False, True),
        (Condition(versions=frozenset({2})), False, False),
        (Condition(versions=frozenset()), False, False),
        (Condition(not_versions=frozenset({1})), True, False),
        (Condition(not_versions=frozenset({2})), True, True),
        (Condition(exists=True, versions=frozenset({2})), False, False),
    ],
)
@pytest.mark.parametrize("present", [False, True])
@pytest.mark.parametrize("kind", ["set", "delete", "increment"])
async def test_conditions(
    store: Store, condition: Condition, of_absent: bool, of_present: bool, present: bool, kind: str
) -> None:
    key = DEFAULT.key("k")
    before = await put(store, key, b"5") if present else None
    change: Command
    if kind == "set":
        change = Set(key, b"6", JSON, None, condition)
    elif kind == "delete":
        change = Delete(key, condition)
    else:
        change = Increment(key, 1, 5, None, condition)
    if of_present if present else of_absent:
        await write(store, change)
        after = await get(store, key)
        assert after is None if kind == "delete" else after is not None and after.value == b"6"
    else:
        error = await refusal(store, change)
        assert isinstance(error, ConditionFailed)
        assert (error.key, error.version) == ("k", 1 if present else None)
        assert await get(store, key) == before
        assert await store.last_version() == int(present)


async def test_a_failing_member_does_not_touch_its_neighbours(store: Store) -> None:
    outcomes = await write_group(
        store,
        Granted(Set("default/a", b"1", JSON)),
        Granted(Set("default/a", b"2", JSON, None, ABSENT)),
        Granted(
            Set("default/b", b"1", JSON),
            Increment("default/a", 1, 0),
            Set("default/c", b"1", JSON, None, EXISTS),
        ),
        Granted(Set("default/t", b'"text"', JSON)),
        Granted(Set("default/d", b"1", JSON), Increment("default/t", 1, 0)),
        Granted(Set("default/a", b"3", JSON, None, Condition(versions=frozenset({1})))),
        Granted(Delete("default/t", Condition(versions=frozenset({2})))),
    )
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [tuple, ConditionFailed, ConditionFailed, tuple, WrongType, tuple, tuple]
    assert await keys_of(store) == ["default/a"]
    entry = await get(store, "default/a")
    assert entry is not None and (entry.value, entry.version) == (b"3", 3)
    assert await store.last_version() == 4
    events, _ = await store.changes(0, 10)
    assert [(event.version, event.kind, event.key) for event in events] == [
        (1, "set", "default/a"),
        (2, "set", "default/t"),
        (3, "set", "default/a"),
        (4, "delete", "default/t"),
    ]


async def test_a_transaction_sees_the_group_before_it(store: Store) -> None:
    outcomes = await write_group(
        store,
        Granted(Increment("default/n", 1, 0)),
        Granted(Increment("default/n", 10, 0, None, EXISTS)),
        Granted(Delete("default/n", EXISTS)),
        Granted(Increment("default/n", 100, 0, None, ABSENT)),
        Granted(Increment("default/n", 1, 0)),
    )
    results = [outcome[0] for outcome in outcomes if isinstance(outcome, tuple)]
    assert [a.entry and a.entry.value for a in results] == [b"1", b"11", None, b"100", b"101"]
    assert [applied.created for applied in results] == [True, False, False, True, False]
    first, second, _, remade, last = [applied.entry and applied.entry.id for applied in results]
    assert first == second != remade == last
    assert await get(store, "default/n") == results[-1].entry


async def test_changes_of_a_transaction_follow_each_other(store: Store) -> None:
    applied = await write(
        store,
        Set("default/k", b"1", JSON),
        Increment("default/k", 1, 0),
        Delete("default/k"),
        Delete("default/k"),
        Set("default/k", b"4", JSON),
    )
    assert [a.created for a in applied] == [True, False, False, False, True]
    assert [a.removed for a in applied] == [0, 0, 1, 0, 0]
    assert await get(store, "default/k") == applied[4].entry
    assert await store.last_version() == 4


async def test_conditions_apply_to_the_state_before_the_transaction(store: Store) -> None:
    at = Condition(versions=frozenset({(await put(store, "default/k")).version}))
    await write(
        store, Set("default/k", b"2", JSON, None, at), Set("default/k", b"3", JSON, None, at)
    )
    entry = await get(store, "default/k")
    assert entry is not None and entry.value == b"3"
    await write(
        store,
        Set("default/n", b"2", JSON, None, ABSENT),
        Set("default/n", b"3", JSON, None, ABSENT),
    )


async def test_what_fails_late_in_a_transaction_undoes_it_all(store: Store) -> None:
    await put(store, "default/text", b'"a"')
    before = await put(store, "default/k", b"1")
    error = await refusal(
        store,
        Delete("default/k"),
        Set("default/new", b"1", JSON),
        Increment("default/k", 1, 0),
        Increment("default/text", 1, 0),
    )
    assert isinstance(error, WrongType)
    assert await get(store, "default/k") == before
    assert await keys_of(store) == ["default/k", "default/text"]
    assert await store.last_version() == before.version


# Expiry


async def test_what_has_expired_is_absent(store: Store) -> None:
    (applied,) = await write(store, Set("default/k", b"41", JSON, NOW + 1))
    await put(store, "default/l")
    entry = applied.entry
    assert entry is not None
    assert await get(store, "default/k", now=NOW + 0.999) == entry
    later = NOW + 1
    assert await get(store, "default/k", now=later) is None
    assert await keys_of(store, now=later) == ["default/l"]
    assert [e.key for e in (await store.scan(KeyRange(), 10, 100, later))[0]] == ["default/l"]
    (outcome,) = await write_group(store, Granted(Delete("default/k", EXISTS)), now=later)
    assert isinstance(outcome, ConditionFailed) and outcome.version is None
    assert await write(store, Delete("default/k"), now=later) == (Applied(),)
    (applied,) = await write(store, Increment("default/k", 1, 0, None, ABSENT), now=later)
    assert applied.entry is not None and applied.created
    assert (applied.entry.value, applied.entry.expires_at) == (b"1", None)
    assert applied.entry.id != entry.id
    assert await get(store, "default/k", now=later) == applied.entry


async def test_an_entry_stored_after_its_expiry_is_absent(store: Store) -> None:
    outcomes = await write_group(
        store,
        Granted(Set("default/k", b"5", JSON, NOW - 1)),
        Granted(Increment("default/k", 1, 0, None, ABSENT)),
    )
    assert isinstance(outcomes[1], tuple)
    assert outcomes[1][0].created
    entry = await get(store, "default/k")
    assert entry is not None and entry.value == b"1"


async def test_sweeping_removes_expired_entries(store: Store) -> None:
    await write(
        store,
        *(Set(f"default/k{n}", b"1", JSON, NOW + n) for n in range(1, 6)),
        Set("default/l", b"1", JSON),
    )
    later = NOW + 4
    seqlock = RecordingSeqlock()
    (outcome,) = (await store.write([Granted(Sweep(3))], later, seqlock)).outcomes
    assert outcome == (Applied(removed=3, expired=3),)
    assert seqlock.told == ["lock", {"default/k1", "default/k2", "default/k3"}, "commit", "unlock"]
    assert await write(store, Sweep(3), now=later) == (Applied(removed=1, expired=1),)
    assert await write(store, Sweep(3), now=later) == (Applied(removed=0),)
    assert await keys_of(store, now=later) == ["default/k5", "default/l"]
    # It is removed, not hidden: setting the clock back does not revive it.
    assert await keys_of(store, now=NOW) == ["default/k5", "default/l"]
    events, _ = await store.changes(6, 10)
    assert [(event.kind, event.key) for event in events] == [
        ("expire", "default/k1"),
        ("expire", "default/k2"),
        ("expire", "default/k3"),
        ("expire", "default/k4"),
    ]


# Counters


@pytest.mark.parametrize(
    ("value", "by", "result"),
    [
        (b"0", 1, b"1"),
        (b"-1", 1, b"0"),
        (b"-0", -1, b"-1"),
        (b" 41\r\n", 1, b"42"),
        (b"9223372036854775807", 1, b"9223372036854775808"),
        (b"-9223372036854775808", -1, b"-9223372036854775809"),
        (b"1" + b"0" * 998, 10**999, b"11" + b"0" * 998),
        (b"9" * 1000, 0, b"9" * 1000),
        (b"-" + b"9" * 1000, 0, b"-" + b"9" * 1000),
    ],
)
async def test_increment(store: Store, value: bytes, by: int, result: bytes) -> None:
    before = await put(store, "default/k", value)
    (applied,) = await write(store, Increment("default/k", by, 77))
    assert applied.entry is not None
    assert (applied.entry.value, applied.entry.id, applied.created) == (result, before.id, False)
    assert await get(store, "default/k") == applied.entry


@pytest.mark.parametrize(
    ("value", "content_type"),
    [
        (b'"1"', JSON),
        (b"1.0", JSON),
        (b"1e3", JSON),
        (b"true", JSON),
        (b"null", JSON),
        (b"[1]", JSON),
        (b"01", JSON),
        (b"+1", JSON),
        (b"", JSON),
        (b"1 2", JSON),
        ("١".encode(), JSON),
        (b"1", OCTETS),
        (b"1", "text/plain"),
        (b"1" * 1001, JSON),
    ],
)
async def test_only_integers_are_incremented(store: Store, value: bytes, content_type: str) -> None:
    (applied,) = await write(store, Set("default/k", value, content_type))
    assert isinstance(await refusal(store, Increment("default/k", 1, 0)), WrongType)
    assert await get(store, "default/k") == applied.entry


async def test_a_counter_has_its_limit(store: Store) -> None:
    await put(store, "default/k", b"9" * 1000)
    error = await refusal(store, Increment("default/k", 1, 0))
    assert isinstance(error, InvalidRequest) and error.field == "by"
    assert isinstance(await refusal(store, Increment("default/new", 10**5000, 0)), InvalidRequest)
    await write(store, Increment("default/k", -1, 0))


async def test_a_counter_keeps_what_is_not_asked_for(store: Store) -> None:
    (first,) = await write(store, Increment("default/k", 5, 10, NOW + 5))
    assert first.entry is not None and first.created
    assert (first.entry.value, first.entry.content_type) == (b"15", JSON)
    (second,) = await write(store, Increment("default/k", 5, 10))
    assert second.entry is not None and second.entry.expires_at == NOW + 5
    (third,) = await write(store, Increment("default/k", 5, 10, NOW + 9))
    assert third.entry is not None and third.entry.expires_at == NOW + 9
    await write(store, Set("default/j", b"1", "application/vnd.x+json"))
    (fourth,) = await write(store, Increment("default/j", 1, 0))
    assert fourth.entry is not None and fourth.entry.content_type == "application/vnd.x+json"


# Prefixes

_ODD = [
    "a", "a%", "a%b", "a_", "a_b", "ab", "aab", "A", "b", "a\u00ff", "a\u0100", "a/", "a/b",
    "\ud7ff", "\ud7ffx", "\ue000", "\ue000x", "\ufffd", "\uffff", "\U00010000", "x\ud7ff",
    "x\ud7ffy", "x\ue000", "\U0010ffff", "\U0010ffffa", "\U0010ffff\U0010ffff",
    "a\U0010ffff", "a\U0010ffffz", "a\U0010ffff\U0010ffff", "\U0010ffff" * 256, "\x01", "\x7f",
]  # fmt: skip
ODD_KEYS = [DEFAULT.key(key) for key in _ODD]
ODD_PREFIXES = ["", *_ODD, "%", "_", "a\ud7ff", "nothing"]


@pytest.mark.parametrize("prefix", ODD_PREFIXES)
async def test_a_prefix_is_literal(store: Store, prefix: str) -> None:
    prefix = DEFAULT.prefix(prefix)
    await write(store, *(Set(key, b"1", JSON) for key in ODD_KEYS))
    covered = sorted((k for k in ODD_KEYS if k.startswith(prefix)), key=lambda key: key.encode())
    rest = sorted((k for k in ODD_KEYS if not k.startswith(prefix)), key=lambda key: key.encode())
    assert await keys_of(store, prefix) == covered
    assert await write(store, DeletePrefix(prefix)) == (Applied(removed=len(covered)),)
    assert await keys_of(store) == rest


@pytest.mark.parametrize("content_type", [JSON, OCTETS])
async def test_scanning_in_pieces(store: Store, content_type: str) -> None:
    await write(store, *(Set(key, b"123", content_type) for key in ODD_KEYS))
    for limit, max_bytes in [(1, 1 << 20), (7, 1 << 20), (100, 1), (100, 6), (100, 7), (100, 100)]:
        found: list[str] = []
        wanted, more = KeyRange(), True
        while more:
            piece, more = await store.scan(wanted, limit, max_bytes, NOW)
            assert len(piece) <= limit
            assert len(piece) <= (max_bytes + 2) // 3
            assert piece or not more
            found += [entry.key for entry in piece]
            wanted = wanted.after(Place(found[-1]))
        assert found == sorted(ODD_KEYS, key=lambda key: key.encode())


@pytest.mark.parametrize("limit", [1, 50, 1_000])
@pytest.mark.parametrize("max_bytes", [100, 41_000, 1 << 20])
@pytest.mark.parametrize("content_type", [JSON, OCTETS])
async def test_scanning_values_of_all_sizes(
    store: Store, limit: int, max_bytes: int, content_type: str
) -> None:
    values = [b"%d" % number for number in range(120)]
    values[40] = values[45] = b"1" * 40_000
    values[70] = b"2" * 90_000
    keys = [ScopedKey(f"default/{number:03d}") for number in range(120)]
    await write(store, *(Set(*each, content_type) for each in zip(keys, values, strict=True)))
    found: list[Entry | Folded] = []
    wanted, more = KeyRange(), True
    while more:
        piece, more = await store.scan(wanted, limit, max_bytes, NOW)
        sizes = [len(entry.value) for entry in piece if isinstance(entry, Entry)]
        assert sum(sizes[:-1]) < max_bytes
        assert not more or len(piece) == limit or sum(sizes) >= max_bytes
        found += piece
        if piece:
            wanted = wanted.after(Place(piece[-1].key))
    assert found == await store.read(keys, NOW)


@pytest.mark.parametrize(
    ("limit", "max_bytes"),
    [(50, 1 << 20), (200, 1 << 20), (1_000, 1 << 20), (256, 900), (256, 2_000), (256, 2_003)],
)
@pytest.mark.parametrize(
    "odd", ["type", "expiry", "expired", "large", "deleted", "hidden", "key", "value"]
)
async def test_scanning_many_plain_entries_with_an_odd_one(
    store: Store, monkeypatch: pytest.MonkeyPatch, limit: int, max_bytes: int, odd: str
) -> None:
    monkeypatch.setattr(sql_sweep, "ONE_BY_ONE", 0)
    keys = [ScopedKey(f"default/{number:03d}") for number in range(300)]
    changes = [Set(key, b'"%b"' % key.encode(), JSON) for key in keys]
    match odd:
        case "type":
            changes[170] = Set(keys[170], b"1", OCTETS)
        case "expiry" | "expired":
            changes[170] = Set(keys[170], b"1", JSON, NOW + 5)
        case "large":
            changes[170] = Set(keys[170], b'"%b"' % (b"x" * 5_000), JSON)
        case "key":
            keys[170] = ScopedKey("default/169\x01default/1691")
            changes[170] = Set(keys[170], b"1", JSON)
        case "value":  # no JSON, but a damaged row may have it
            changes[170] = Set(keys[170], b'"\x01"', JSON)
    await write(store, *changes)
    if odd == "deleted":
        await write(store, Delete(keys[170]))
    if odd == "hidden":
        await write(store, DeletePrefix(keys[170]))
        await write(store, Set("default/zzz", b"1", JSON))
        keys.append(ScopedKey("default/zzz"))
    now = NOW + 5 if odd == "expired" else NOW
    expected = [entry for entry in await store.read(keys, now) if entry is not None]
    assert len(expected) == 300 - (odd in ("deleted", "expired"))
    found: list[Entry | Folded] = []
    wanted, more = KeyRange("default/"), True
    while more:
        piece, more = await store.scan(
            wanted, limit, max_bytes, now, Rendering(_values_of, "values")
        )
        if isinstance(piece, PlainEntries):
            assert piece.rendered == _values_of(piece.columns)
        sizes = [len(entry.value) for entry in piece if isinstance(entry, Entry)]
        assert sum(sizes[:-1]) < max_bytes
        assert not more or len(piece) == limit or sum(sizes) >= max_bytes
        found += piece
        wanted = wanted.after(place_of(found[-1]))
    assert found == expected


def _values_of(entries: Columns) -> bytes:
    return b",".join(entries.values)


async def test_the_end_of_a_scan_is_known(store: Store) -> None:
    await write(
        store,
        Set("default/a1", b"12345", JSON),
        Set("default/a2", b"12345", JSON),
        Set("default/b", b"1", JSON),
    )
    under_a = KeyRange("default/a")
    a1, a2, b = await store.read(["default/a1", "default/a2", "default/b"], NOW)
    assert await store.scan(under_a, 1, 100, NOW) == ([a1], True)
    assert await store.scan(under_a, 2, 100, NOW) == ([a1, a2], False)
    assert await store.scan(under_a.after(Place("default/a2")), 5, 100, NOW) == ([], False)
    between = Place("default/a1\U0010ffff")
    assert await store.scan(under_a.after(between), 5, 100, NOW) == ([a2], False)
    under_b = KeyRange("default/b").after(Place("default/a"))
    assert await store.scan(under_b, 5, 100, NOW) == ([b], False)
    described, more = await store.scan_meta(KeyRange(), 2, NOW)
    assert isinstance(a1, Entry) and isinstance(a2, Entry) and more
    assert described == [
        EntryMeta(each.key, 5, JSON, each.id, each.version, None) for each in (a1, a2)
    ]


FOLDED_KEYS = ["a", "b/", "b/1", "b/2/x", "b/\U0010ffff", "b0", "c/d/e", "c/d/f", "d", "é/x"]


async def pages(store: Store, wanted: KeyRange, limit: int) -> list[Item]:
    """The items of a range, a page at a time."""
    found: list[Item] = []
    more = True
    while more:
        page, more = await store.scan(wanted, limit, 1 << 20, NOW)
        assert len(page) <= limit
        found += page
        wanted = wanted.after(place_of(page[-1])) if page else wanted
    return found


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    ("prefix", "delimiter", "shown"),
    [
        ("", "/", ["a", "b/*", "b0", "c/*", "d", "é/*"]),
        ("b", "/", ["b/*", "b0"]),
        ("b/", "/", ["b/", "b/1", "b/2/*", "b/\U0010ffff"]),
        ("c", "/d", ["c/d*"]),
        ("c/d/", "/", ["c/d/e", "c/d/f"]),
        ("", "\U0010ffff", [*FOLDED_KEYS[:4], "b/\U0010ffff*", *FOLDED_KEYS[5:]]),
        ("nothing", "/", []),
    ],
)
async def test_keys_are_folded_in_order_on_every_page(
    store: Store, prefix: str, delimiter: str, shown: list[str], descending: bool
) -> None:
    await write(store, *(Set(DEFAULT.key(key), b"1", JSON) for key in FOLDED_KEYS))
    wanted = KeyRange(DEFAULT.prefix(prefix), descending=descending, delimiter=delimiter)
    for limit in (1, 2, 3, 100):
        found = [
            plain_key(item.key) + "*" * isinstance(item, Folded)
            for item in await pages(store, wanted, limit)
        ]
        assert found == sorted(shown, key=lambda text: text.rstrip("*"), reverse=descending)


async def test_the_first_key_of_a_range_is_in_it_and_its_end_is_not(store: Store) -> None:
    await write(store, *(Set(f"default/{key}", b"1", JSON) for key in "abcd"))
    for start, end, keys in [
        ("b", "d", "bc"),
        ("b", "", "bcd"),
        ("", "b", "a"),
        ("aa", "bb", "b"),
        ("c", "b", ""),
    ]:
        for descending in (False, True):
            wanted = KeyRange(
                "default/",
                f"default/{start}" if start else "",
                f"default/{end}" if end else "",
                descending,
            )
            found = [plain_key(item.key) for item in await pages(store, wanted, 2)]
            assert "".join(found) == keys[:: -1 if descending else 1]


async def test_counting_goes_on_where_it_stopped(store: Store) -> None:
    await write(store, *(Set(f"default/{key}", b"12345", JSON) for key in "aébc"))
    everything = KeyRange("default/")
    assert await store.count(everything, 3, NOW) == (3, 3 * (len("default/") + 6), "default/c")
    rest = everything.after(Place("default/c"))
    assert await store.count(rest, 3, NOW) == (1, len("default/") + 2 + 5, None)
    assert await store.count(KeyRange("default/x"), 3, NOW) == (0, 0, None)


async def test_a_touched_entry_changes_its_expiry_alone(store: Store) -> None:
    before = await put(store, "default/k", b"[1]")
    (touched,) = await write(store, Touch("default/k", NOW + 5))
    after = msgspec.structs.replace(before, version=2, expires_at=NOW + 5)
    assert touched == Applied(msgspec.structs.replace(after, value=b""))
    assert await get(store, "default/k") == after
    (event,), _ = await store.changes(1, 10)
    assert event == ChangeEvent(2, EventKind.SET, "default/k", 3, JSON, NOW + 5)
    assert isinstance(
        await refusal(store, Touch("default/k", None, Condition(versions=frozenset({1})))),
        ConditionFailed,
    )
    assert isinstance(await refusal(store, Touch("default/other", None)), NoSuchKey)
    assert isinstance(await refusal(store, Touch("nobody/k", None)), NoSuchTenant)
    (outcome,) = await write_group(store, Granted(Touch("default/k", None)), now=NOW + 5)
    assert isinstance(outcome, NoSuchKey), "it has expired"


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("there", [False, True])
async def test_a_renamed_entry_keeps_everything_but_its_id(
    store: Store, copy: bool, there: bool
) -> None:
    (set_first,) = await write(store, Set("default/a", b"[1]", JSON, NOW + 5))
    source = set_first.entry
    assert source is not None
    target = await put(store, "default/b") if there else None
    rename = Rename("default/a", "default/b", copy)
    if target is not None:
        refused = await refusal(store, rename)
        assert isinstance(refused, ConditionFailed)
        assert (refused.key, refused.version) == ("b", target.version)
    (renamed,) = await write(store, msgspec.structs.replace(rename, replace=True))
    assert renamed.entry is not None and renamed.created is not there
    entry = await get(store, "default/b")
    assert entry is not None
    assert (entry.value, entry.content_type, entry.expires_at) == (b"[1]", JSON, NOW + 5)
    assert entry.id == target.id if target is not None else entry.id != source.id
    assert renamed.entry == msgspec.structs.replace(entry, value=b"")
    assert await get(store, "default/a") == (source if copy else None)
    events, _ = await store.changes(source.version + there, 10)
    moved = [] if copy else [(EventKind.DELETE, "default/a")]
    assert [(e.kind, e.key) for e in events] == [*moved, (EventKind.SET, "default/b")]
    assert events[-1].version == entry.version


async def test_only_an_entry_can_be_renamed(store: Store) -> None:
    await put(store, "default/a")
    stale = Condition(versions=frozenset({7}))
    for rename, error in [
        (Rename("default/b", "default/c"), NoSuchKey),
        (Rename("default/a", "default/c", condition=stale), ConditionFailed),
        (Rename("nobody/a", "nobody/b"), NoSuchTenant),
    ]:
        assert isinstance(await refusal(store, rename), error)
    assert await keys_of(store) == ["default/a"]


async def test_a_kept_expiry_is_that_of_a_living_entry(store: Store) -> None:
    kept = Set("default/k", b"2", JSON, keep_expiry=True)
    await write(store, Set("default/k", b"1", JSON, NOW + 5))
    (first,) = await write(store, kept)
    assert first.entry is not None and first.entry.expires_at == NOW + 5
    (second,) = await write(store, kept, now=NOW + 5)
    assert second.entry is not None and second.created and second.entry.expires_at is None


async def test_a_prefix_is_deleted_key_by_key(store: Store) -> None:
    await write(
        store,
        Set("default/a/1", b"1", JSON),
        Set("default/a/2", b"1", JSON, NOW + 1),
        Set("default/b", b"1", JSON),
    )
    seqlock = RecordingSeqlock()
    written = await store.write([Granted(DeletePrefix("default/a/"))], NOW + 1, seqlock)
    assert written.outcomes == [(Applied(removed=1),)], "the other one has expired"
    assert seqlock.told == ["lock", {"default/a/1"}, "commit", "unlock"]
    events, _ = await store.changes(3, 10)
    assert events == [ChangeEvent(4, EventKind.DELETE, "default/a/1")]
    assert await write(store, DeletePrefix("default/a/"), now=NOW + 1) == (Applied(),)
    assert await store.last_version() == 4


async def test_a_large_prefix_is_deleted_at_once(store: Store) -> None:
    await write(
        store,
        *(Set(f"default/a/{n}", b"1", JSON) for n in range(1_500)),
        Set("default/b", b"1", JSON),
    )
    before = await get(store, "default/a/7")
    seqlock = RecordingSeqlock()
    written = await store.write(
        [
            Granted(Set("default/a/new", b"1", JSON)),
            Granted(DeletePrefix("default/a/")),
            Granted(Set("default/a/7", b"2", JSON, None, ABSENT)),
            Granted(Set("default/a/8", b"2", JSON, None, EXISTS)),
            Granted(Increment("default/a/9", 1, 0)),
        ],
        NOW,
        seqlock,
    )
    assert seqlock.told == ["lock", None, "commit", "unlock"]
    assert written.outcomes[1] == (Applied(removed=1_501),)
    assert isinstance(written.outcomes[3], ConditionFailed)
    assert await keys_of(store) == ["default/a/7", "default/a/9", "default/b"]
    assert await get(store, "default/a/8") is None
    after = await get(store, "default/a/7")
    assert before is not None and after is not None
    assert (after.value, after.id != before.id) == (b"2", True)
    counter = await get(store, "default/a/9")
    assert counter is not None and counter.value == b"1"
    events, _ = await store.changes(1_502, 10)
    assert [(event.kind, event.key) for event in events] == [
        ("reset", "default/a/"),
        ("set", "default/a/7"),
        ("set", "default/a/9"),
    ]
    # Entries set after the deletion stay, however often sweeps run.
    for _ in range(20):
        await write(store, Sweep(100))
    assert await keys_of(store) == ["default/a/7", "default/a/9", "default/b"]
    assert await get(store, "default/a/7") == after
    assert await write(store, Delete("default/a/7")) == (Applied(removed=1),)
    assert await write(store, DeletePrefix("default/a/")) == (Applied(removed=1),)
    assert await keys_of(store) == ["default/b"]


async def test_a_prefix_is_deleted_in_a_transaction_of_its_own(store: Store) -> None:
    for alone in (DeletePrefix("default/k"), Sweep(10)):
        assert isinstance(await refusal(store, Set("default/k", b"1", JSON), alone), InvalidRequest)
        assert isinstance(await refusal(store, alone, alone), InvalidRequest)
    assert await store.last_version() == 0


# Bulk


async def test_many_keys_at_once(store: Store) -> None:
    keys = [f"default/k{n}" for n in range(1_100)]
    applied = await write(store, *(Set(key, key.encode(), JSON) for key in keys))
    assert [a.entry and a.entry.version for a in applied] == list(range(1, 1_101))
    shuffled = [*keys, "default/absent"]
    random.Random(1).shuffle(shuffled)
    entries = await store.read(shuffled, NOW)
    assert [getattr(entry, "key", None) for entry in entries] == [
        None if key == "default/absent" else key for key in shuffled
    ]
    removed = await write(store, *(Delete(key) for key in [*keys[:600], "default/absent"]))
    assert sum(a.removed for a in removed) == 600
    assert await keys_of(store) == sorted(keys[600:])


# The change log


async def test_the_change_log(reopen: Opener) -> None:
    store = await reopen()
    assert await store.changes(0, 10) == ([], True)
    await write(
        store,
        Set("default/a", b"1", JSON),
        Set("default/b", b"1", JSON),
        Delete("default/a"),
        Delete("default/none"),
    )
    events = [
        ChangeEvent(1, EventKind.SET, "default/a", 1, JSON),
        ChangeEvent(2, EventKind.SET, "default/b", 1, JSON),
        ChangeEvent(3, EventKind.DELETE, "default/a"),
    ]
    store = await reopen()
    assert await store.changes(0, 10) == (events, True)
    assert await store.changes(1, 1) == (events[1:2], True)
    assert await store.changes(3, 10) == ([], True)
    for impossible in (-1, 4, 1 << 70):
        assert await store.changes(impossible, 10) == ([], False)


async def test_the_change_log_is_bounded(reopen: Opener) -> None:
    store = await reopen(change_log_size=3)
    for n in range(50):
        await put(store, f"default/k{n}")
    assert len((await store.changes(0, 100))[0]) == 50
    seqlock = RecordingSeqlock()
    written = await store.write([Granted(Sweep(4))], NOW, seqlock)
    (outcome,) = written.outcomes
    assert isinstance(outcome, tuple)
    removed = outcome[0].removed
    assert 4 <= removed <= 20  # lines may be removed faster than rows
    assert (seqlock.told, written.ticket) == (["lock", "unlock"], None)
    total = removed
    while lines := (await write(store, Sweep(4)))[0].removed:
        assert lines <= removed
        total += lines
    assert total == 47
    assert await store.changes(46, 100) == ([], False)
    events, complete = await store.changes(47, 100)
    assert complete
    assert [event.version for event in events] == [48, 49, 50]
    assert len(await keys_of(store)) == 50


# Tenants and tokens


NO_LIMITS = TenantLimits()
EXPIRY = 2_000.0


def some_token(
    identifier: str,
    scope: TokenScope = TokenScope.READ,
    tenant: str | None = "default",
    prefix: str | None = None,
) -> Token:
    return Token(
        id=identifier,
        name=f"token {identifier}",
        scope=scope,
        tenant=tenant,
        prefix=prefix,
        created_at=NOW + 0.25,
        expires_at=None if scope is TokenScope.ADMIN else EXPIRY,
    )


async def access(store: Store, known: int | None = None) -> Access:
    found = await store.access(known)
    assert found is not None
    return found


async def test_a_new_database_is_open(store: Store) -> None:
    found = await access(store)
    assert not found.closed and not found.tokens
    assert found.tenants == {"default": Tenant("default", 0, 0, NO_LIMITS)}
    assert await store.access(found.version) is None
    assert await store.access(found.version + 1) == found


async def test_tenants_are_kept(reopen: Opener) -> None:
    store = await reopen()
    versions = {(await access(store)).version}
    for command, created in (
        (PutTenant("b", max_entries=5), True),
        (PutTenant("a"), True),
        (PutTenant("b", max_bytes=0, max_requests_per_second=7), False),
        (PutTenant("b", max_entries=None), False),
        (PutTenant("default", max_entries=1 << 53), False),
    ):
        assert await write(store, command) == (Applied(created=created),)
        versions.add((await access(store)).version)
    assert len(versions) == 6, "each has another version"
    store = await reopen()
    found = await access(store)
    assert list(found.tenants) == ["a", "b", "default"]
    assert found.tenants["a"].limits == NO_LIMITS
    assert found.tenants["b"].limits == TenantLimits(max_bytes=0, max_requests_per_second=7)
    assert found.tenants["default"].limits == TenantLimits(max_entries=1 << 53)
    assert not found.closed
    assert await store.last_version() == 0, "entries have not changed"


async def test_what_changes_nothing_has_no_new_version(store: Store) -> None:
    await write(store, PutTenant("a", max_entries=5))
    known = (await access(store)).version
    for command in (
        PutTenant("a"),
        PutTenant("a", max_entries=5, max_bytes=None),
        DeleteTenant("b"),
        RevokeToken("none"),
        DisableTokens(),
    ):
        seqlock = RecordingSeqlock()
        written = await store.write([Granted(command)], NOW, seqlock)
        assert written.outcomes == [(Applied(),)]
        assert (seqlock.told, written.ticket) == (["lock", "unlock"], None)
    await put(store, "default/k")
    assert await store.access(known) is None


async def test_tokens_are_kept(reopen: Opener) -> None:
    store = await reopen()
    await write(store, PutTenant("t"))
    tokens = {
        b"3" * 32: some_token("3", tenant="t", prefix="p/"),
        b"1" * 32: some_token("1", TokenScope.ADMIN, None),
        b"2" * 32: some_token("2", TokenScope.METRICS, None),
        b"4" * 32: some_token("4", TokenScope.WRITE, prefix=""),
    }
    for digest, token in tokens.items():
        known = (await access(store)).version
        seqlock = RecordingSeqlock()
        written = await store.write([Granted(CreateToken(token, digest))], NOW, seqlock)
        assert written.outcomes == [(Applied(created=True),)]
        assert seqlock.told == ["lock", "unlock"], "no key changes"
        assert (await access(store, known)).closed
    store = await reopen()
    found = await access(store)
    assert list(found.tokens.items()) == list(tokens.items()), "in order of creation"
    assert found.closed


async def test_tokens_are_removed_a_week_after_they_expired(store: Store) -> None:
    await write(store, CreateToken(some_token("1", TokenScope.ADMIN, None), b"1" * 32))
    await write(store, CreateToken(some_token("2"), b"2" * 32))
    known = (await access(store)).version
    week = 7 * 86_400
    for later in (NOW, EXPIRY, EXPIRY + week - 1):
        assert await write(store, Sweep(10), now=later) == (Applied(removed=0),)
        assert await store.access(known) is None, "it is still listed"
    await write(store, Sweep(10), now=EXPIRY + week)
    found = await access(store, known)
    assert [each.name for each in found.tokens.values()] == [some_token("1").name]
    assert found.closed and found.version != known
    await write(store, Sweep(10), now=EXPIRY + 100 * week)
    assert await store.access(found.version) is None, "one without an end stays"


async def test_revoked_tokens_leave_the_database_closed(store: Store) -> None:
    for each in "12":
        await write(store, CreateToken(some_token(each), each.encode() * 32))
    known = (await access(store)).version
    for each in "21":
        assert await write(store, RevokeToken(each)) == (Applied(removed=1),)
        found = await access(store, known)
        known = found.version
        assert found.closed
    assert not found.tokens
    assert await write(store, DisableTokens()) == (Applied(),)
    assert not (await access(store, known)).closed


async def test_disabling_tokens_removes_all(store: Store) -> None:
    for each in "12":
        await write(store, CreateToken(some_token(each), each.encode() * 32))
    known = (await access(store)).version
    assert await write(store, DisableTokens()) == (Applied(removed=2),)
    found = await access(store, known)
    assert not found.closed and not found.tokens


async def test_a_token_that_cannot_be_made(store: Store) -> None:
    await write(store, CreateToken(some_token("1"), b"1" * 32))
    known = (await access(store)).version
    missing = await refusal(store, CreateToken(some_token("2", tenant="none"), b"2" * 32))
    assert isinstance(missing, NoSuchTenant) and missing.name == "none"
    for again in (
        CreateToken(some_token("1"), b"2" * 32),
        CreateToken(some_token("2"), b"1" * 32),
    ):
        assert isinstance(await refusal(store, again), InvalidRequest)
    assert await store.access(known) is None


async def test_a_deleted_tenant_is_gone_at_once(store: Store) -> None:
    for name in ("t", "t1", "u"):
        await write(store, PutTenant(name, max_bytes=100))
        await write(store, CreateToken(some_token(name, tenant=name), name.encode() * 16))
        await put(store, f"{name}/k")
    await put(store, "t/second")
    await write(store, CreateToken(some_token("a", TokenScope.ADMIN, None), b"a" * 32))
    known = (await access(store)).version
    seqlock = RecordingSeqlock()
    written = await store.write([Granted(DeleteTenant("t"))], NOW, seqlock)
    assert written.outcomes == [(Applied(removed=1),)]
    assert seqlock.told == ["lock", None, "commit", "unlock"]
    found = await access(store, known)
    assert list(found.tenants) == ["default", "t1", "u"]
    assert [token.id for token in found.tokens.values()] == ["t1", "u", "a"]
    assert await keys_of(store) == ["t1/k", "u/k"]
    events, _ = await store.changes(4, 10)
    assert events == [ChangeEvent(5, EventKind.RESET, "t/")]
    await write(store, PutTenant("t"))
    assert (await access(store)).tenants["t"] == Tenant("t", 0, 0, NO_LIMITS)
    assert await keys_of(store, "t/") == []
    await put(store, "t/k")
    assert await keys_of(store, "t/") == ["t/k"]


async def test_the_tenant_default_stays(store: Store) -> None:
    await put(store, "default/k")
    assert isinstance(await refusal(store, DeleteTenant("default")), TenantRequired)
    assert await keys_of(store) == ["default/k"]


@pytest.mark.parametrize(
    "command",
    [
        PutTenant("t"),
        DeleteTenant("t"),
        CreateToken(some_token("1"), b"1" * 32),
        RevokeToken("1"),
        DisableTokens(),
    ],
    ids=lambda command: type(command).__name__,
)
async def test_access_changes_in_a_transaction_of_its_own(store: Store, command: Command) -> None:
    known = (await access(store)).version
    assert isinstance(await refusal(store, command, command), InvalidRequest)
    assert isinstance(await refusal(store, Set("default/k", b"1", JSON), command), InvalidRequest)
    assert await store.access(known) is None
    assert await store.last_version() == 0


async def test_neighbours_of_a_refused_command_are_made(store: Store) -> None:
    outcomes = await write_group(
        store,
        Granted(Set("default/a", b"1", JSON)),
        Granted(DeleteTenant("default")),
        Granted(PutTenant("t")),
        Granted(Set("t/b", b"1", JSON)),
    )
    assert isinstance(outcomes[1], TenantRequired)
    assert all(isinstance(outcomes[at], tuple) for at in (0, 2, 3))
    assert await keys_of(store) == ["default/a", "t/b"]


# Usage and limits


async def usage(store: Store, tenant: str = "t") -> tuple[int, int]:
    found = (await access(store)).tenants[tenant]
    return found.entries, found.bytes


async def test_keys_and_values_are_counted(store: Store) -> None:
    await write(store, PutTenant("t"))
    for commands, expected in (
        ((Set("t/é", b"123", OCTETS),), (1, 5)),
        ((Set("t/é", b"", OCTETS),), (1, 2)),
        ((Set("t/k", b"12", OCTETS), Set("t/k", b"1", OCTETS)), (2, 4)),
        ((Increment("t/n", 99, 0),), (3, 7)),
        ((Increment("t/n", 1, 0),), (3, 8)),
        ((Delete("t/k"), Delete("t/k"), Delete("t/absent")), (2, 6)),
        ((Set("t/k", b"12", OCTETS, NOW + 1),), (3, 9)),
        ((DeletePrefix("t/n"),), (2, 5)),
        ((DeletePrefix("t/"),), (0, 0)),
    ):
        await write(store, *commands)
        assert await usage(store) == expected, commands
    assert await usage(store, "default") == (0, 0)


async def test_what_has_expired_counts_until_it_is_removed(store: Store) -> None:
    await write(store, PutTenant("t"))
    await write(store, *(Set(f"t/{n}", b"1", JSON, NOW + 1) for n in range(4)))
    later = NOW + 1
    assert await write(store, Delete("t/0"), now=later) == (Applied(),)
    assert await write(store, DeletePrefix("t/"), now=later) == (Applied(),)
    assert await usage(store) == (4, 8)
    await write(store, Set("t/0", b"12", JSON), now=later)
    assert await usage(store) == (4, 9)
    await write(store, Sweep(10), now=later)
    assert await usage(store) == (1, 3)


@pytest.mark.parametrize("everything", [True, False])
async def test_a_large_prefix_is_counted_at_once(store: Store, everything: bool) -> None:
    await write(store, PutTenant("t"))
    await write(store, *(Set(f"t/a/{n:04}", b"1", JSON) for n in range(1_500)))
    expiring = [Set(f"t/a/x{n}", b"1", JSON, NOW + 1) for n in range(3)]
    await write(store, *expiring, Set("t/b", b"1", JSON), Set("default/k", b"1", JSON))
    later = NOW + 1
    applied = await write(store, DeletePrefix("t/" if everything else "t/a/"), now=later)
    assert applied == (Applied(removed=1_501 if everything else 1_500),)
    assert await usage(store) == ((0, 0) if everything else (1, 2))
    await write(store, Set("t/a/0001", b"12", JSON), now=later)
    kept = await usage(store)
    assert kept == ((1, 8) if everything else (2, 10))
    while (await write(store, Sweep(400), now=later))[0].removed:
        pass
    assert await usage(store) == kept
    assert await usage(store, "default") == (1, 2)


async def test_a_limit_is_exact(store: Store) -> None:
    await write_group(
        store, Granted(PutTenant("t", max_entries=2)), Granted(PutTenant("u", max_bytes=6))
    )
    outcomes = await write_group(
        store,
        Granted(Set("t/a", b"1", JSON), Set("u/a", b"123", JSON)),
        Granted(Set("t/b", b"1", JSON), Set("t/c", b"1", JSON)),
        Granted(Set("t/b", b"1", JSON), Set("u/b", b"12", JSON)),
        Granted(Set("t/b", b"1", JSON), Set("u/b", b"1", JSON)),
        Granted(Set("t/c", b"1", JSON)),
        Granted(Set("t/c", b"1", JSON), Delete("t/a")),
        Granted(Set("u/c", b"", JSON)),
        Granted(Set("u/b", b"12", JSON)),
        Granted(Set("default/k", bytes(100), OCTETS)),
        Granted(Increment("u/c", 1, 0)),
        Granted(Set("u/a", b"", JSON), Increment("u/c", 1, 0)),
    )
    refused = [at for at, each in enumerate(outcomes) if isinstance(each, QuotaExceeded)]
    assert refused == [1, 2, 4, 6, 7, 9]
    assert all(isinstance(outcomes[at], tuple) for at in (0, 3, 5, 8, 10))
    assert await usage(store, "t") == (2, 4)
    assert await usage(store, "u") == (3, 5)
    assert await keys_of(store) == ["default/k", "t/b", "t/c", "u/a", "u/b", "u/c"]
    events, _ = await store.changes(0, 100)
    assert [event.version for event in events] == list(range(1, 10)), "refused ones leave no gaps"


async def test_a_limit_counts_what_its_group_has_written_before(store: Store) -> None:
    await write(store, PutTenant("t", max_entries=2))
    outcomes = await write_group(
        store,
        Granted(Set("t/a", b"1", JSON)),
        Granted(PutTenant("t", max_entries=1)),
        Granted(Set("t/b", b"1", JSON)),
        Granted(PutTenant("t", max_entries=2)),
        Granted(Set("t/b", b"1", JSON)),
    )
    assert [type(each) for each in outcomes] == [tuple, tuple, QuotaExceeded, tuple, tuple]
    assert await usage(store) == (2, 4)


async def test_what_does_not_grow_passes_above_a_limit(store: Store) -> None:
    await write(store, PutTenant("t"))
    await write(store, *(Set(f"t/{n}", b"1234", JSON) for n in range(5)))
    await write(store, PutTenant("t", max_entries=2, max_bytes=10))
    for commands in (
        (Set("t/0", b"4321", JSON),),
        (Set("t/0", b"1", JSON),),
        (Delete("t/1"),),
        (Set("t/new", b"123", JSON), Delete("t/2"), Delete("t/3")),
    ):
        await write(store, *commands)
    assert await usage(store) == (3, 2 + 6 + 5)
    assert isinstance(await refusal(store, Set("t/0", b"12", JSON)), QuotaExceeded)
    assert isinstance(await refusal(store, Set("t/5", b"", JSON)), QuotaExceeded)
    assert await write(store, DeletePrefix("t/")) == (Applied(removed=3),)


async def test_what_has_expired_takes_no_room(store: Store) -> None:
    await write(store, PutTenant("t", max_entries=2, max_bytes=8))
    await write(store, Set("t/a", b"1", JSON, NOW + 1), Set("t/b", b"1", JSON, NOW + 1))
    later = NOW + 1
    outcomes = await write_group(
        store,
        Granted(Set("t/c", b"1", JSON)),
        Granted(Set("t/a", b"1", JSON)),  # in place of an expired one
        Granted(Set("t/b", b"1", JSON)),
        Granted(Set("t/a", bytes(5), OCTETS)),
        Granted(Set("t/d", b"1", JSON, NOW)),  # expires before it is stored
        Granted(Set("t/a", bytes(6), OCTETS)),
        now=later,
    )
    refused = [at for at, each in enumerate(outcomes) if isinstance(each, QuotaExceeded)]
    assert refused == [2, 5]
    assert await keys_of(store, "t/", now=later) == ["t/a", "t/c"]


@pytest.mark.parametrize(
    "limits", [PutTenant("t", max_entries=2), PutTenant("t", max_bytes=4)], ids=["entries", "bytes"]
)
async def test_what_has_expired_leaves_room_for_a_copy(store: Store, limits: PutTenant) -> None:
    await write(store, limits)
    await write(store, Set("t/a", b"1", JSON), Set("t/b", b"1", JSON, NOW + 1))
    copy = Rename("t/a", "t/c", copy=True)
    assert isinstance(await refusal(store, copy), QuotaExceeded)
    await write(store, copy, now=NOW + 1)
    outcomes = await write_group(
        store,
        Granted(Rename("t/a", "t/d", copy=True)),
        Granted(Rename("t/a", "t/b", copy=True)),  # in place of the expired one
        Granted(Rename("t/a", "t/b")),  # does not grow
        now=NOW + 1,
    )
    assert [isinstance(each, QuotaExceeded) for each in outcomes] == [True, True, False]
    assert await keys_of(store, "t/", now=NOW + 1) == ["t/b", "t/c"]


async def test_a_copy_in_place_of_an_entry_grows_by_its_value(store: Store) -> None:
    await write(store, PutTenant("t", max_entries=2, max_bytes=8))
    await write(store, Set("t/a", b"12", JSON), Set("t/bbb", b"1", JSON))
    copy = Rename("t/a", "t/bbb", copy=True, replace=True)
    await write(store, copy)
    assert await usage(store) == (2, 3 + 5)
    await write(store, Set("t/bbb", b"1", JSON))
    await write(store, Set("t/a", b"123", JSON))
    assert isinstance(await refusal(store, copy), QuotaExceeded)


# Withdrawing, the seqlock, closing


async def test_a_withdrawn_transaction_is_not_committed(store: Store) -> None:
    seqlock = RecordingSeqlock()
    group = [
        Withdrawn(Set("default/a", b"1", JSON)),
        Granted(Set("default/b", b"1", JSON, None, ABSENT)),
    ]
    written = await store.write([*group, Withdrawn(Delete("default/b"))], NOW, seqlock)
    assert written.outcomes[0] is None and written.outcomes[2] is None
    assert seqlock.told == ["lock", {"default/b"}, "commit", "unlock"]
    assert await keys_of(store) == ["default/b"]
    assert await store.last_version() == 1


@pytest.mark.parametrize(
    "group",
    [
        [],
        [Withdrawn(Set("default/k", b"1", JSON))],
        [Granted()],
        [Granted(Delete("default/absent"))],
        [Granted(Set("default/k", b"1", JSON, None, EXISTS))],
        [Granted(Set("default/k", b"1", JSON), Delete("default/k", EXISTS))],
        [Granted(DeletePrefix("default/absent"))],
        [Granted(Sweep(10))],
    ],
    ids=[
        "empty",
        "withdrawn",
        "no command",
        "delete of an absent key",
        "unmet condition",
        "unmet condition of a later command",
        "prefix without keys",
        "sweep without expired keys",
    ],
)
async def test_a_group_without_changes_begins_no_write(store: Store, group: list[Granted]) -> None:
    seqlock = RecordingSeqlock()
    written: GroupResult[object] = await store.write(group, NOW, seqlock)
    assert written.ticket is None
    assert len(written.outcomes) == len(group)
    assert seqlock.told == ["lock", "unlock"]
    assert await store.last_version() == 0


async def test_the_seqlock_gets_the_keys_that_really_change(store: Store) -> None:
    await put(store, "default/a")
    seqlock = RecordingSeqlock()
    written = await store.write(
        [
            Granted(Delete("default/a"), Set("default/b", b"1", JSON), Delete("default/absent")),
            Granted(Set("default/c", b"1", JSON, None, EXISTS)),
            Granted(Increment("default/d", 1, 0)),
        ],
        NOW,
        seqlock,
    )
    assert seqlock.told == ["lock", {"default/a", "default/b", "default/d"}, "commit", "unlock"]
    assert written.ticket is not None


async def test_the_store_can_serve_until_it_is_closed(store: Store) -> None:
    await store.check()
    await store.close()
    await store.close()
    for call in (
        store.check(),
        store.read(["default/k"], NOW),
        store.scan(KeyRange(), 1, 1, NOW),
        store.scan_meta(KeyRange(), 1, NOW),
        store.count(KeyRange(), 1, NOW),
        store.changes(0, 1),
        store.last_version(),
        store.access(None),
    ):
        with pytest.raises(StoreUnavailable):
            await call
    assert isinstance(await refusal(store, Set("default/k", b"1", JSON)), StoreUnavailable)


# Stores against each other


TENANTS = ["default", "t", "u", "t-1"]


def some_key(rng: random.Random) -> str:
    rest = rng.choice(["", "/", "%", "/x", "é", "\U0010ffff"])
    return f"{rng.choice(TENANTS)}/{rng.choice('abc')}{rest}"


def some_change(rng: random.Random, now: float, version: int) -> Command:
    key = some_key(rng)
    seen = frozenset(rng.randrange(version + 1) for _ in range(5))
    condition = rng.choice(
        [None, None, None, ABSENT, EXISTS, Condition(versions=seen), Condition(not_versions=seen)]
    )
    # No two entries expire at the same moment, because their order of removal is unspecified.
    expires_at = now + rng.uniform(-0.5, 3.0) if rng.random() < 0.3 else None
    match rng.randrange(15):
        case 0 | 1 | 2 | 3:
            value = rng.choice([b"1", b"-7", b'"x"', b"[]", b'"larger"'])
            content_type = rng.choice([JSON, JSON, OCTETS])
            if rng.random() < 0.2:
                return Set(key, value, content_type, None, condition, keep_expiry=True)
            return Set(key, value, content_type, expires_at, condition)
        case 4 | 5:
            return Delete(key, condition, returned=rng.random() < 0.5)
        case 6 | 7:
            return Increment(key, rng.randrange(-3, 4), 10, expires_at, condition)
        case 8:
            prefix = rng.choice(["", "", "a", "b/", "c", "c/x"])
            return DeletePrefix(f"{rng.choice(TENANTS)}/{prefix}")
        case 9:
            return Sweep(10_000)
        case 10:
            return DeleteTenant(rng.choice(TENANTS))
        case 11:
            return Touch(key, expires_at, condition)
        case 12 | 13:
            to = f"{tenant_of(key)}/{plain_key(some_key(rng))}"
            copy, replace = rng.random() < 0.5, rng.random() < 0.7
            return Touch(key, None) if to == key else Rename(key, to, copy, replace, condition)
    limits = rng.choice([None, 3, 5]), rng.choice([None, 10, 30])
    return PutTenant(rng.choice(TENANTS), max_entries=limits[0], max_bytes=limits[1])


def some_claim(rng: random.Random, now: float, version: int) -> Granted:
    changes = [some_change(rng, now, version) for _ in range(rng.choice([1, 1, 1, 2, 5]))]
    alone = [change for change in changes if not isinstance(change, KeyCommand)]
    return (Withdrawn if rng.random() < 0.05 else Granted)(*(alone[:1] or changes))


def some_range(rng: random.Random) -> KeyRange:
    return KeyRange(
        rng.choice(["", "default/", "default/a", "t/", "u/c"]),
        rng.choice(["", "", "default/a/", "default/b", "t/a\0", "u/"]),
        rng.choice(["", "", "default/b/x", "t/b", "u/c/x"]),
        rng.random() < 0.5,
        rng.choice(["", "/", "/", "%", "x"]),
    )


async def seen(
    store: Store, group: list[Granted], now: float, prefix: str, wanted: KeyRange
) -> str:
    """All that is observable of a group, and of the store afterwards. Ids become numbers."""
    seqlock = RecordingSeqlock()
    outcomes = (await store.write(group, now, seqlock)).outcomes
    shown = [type(o).__name__ if isinstance(o, Exception) else repr(o) for o in outcomes]
    for index, pending in enumerate(group):
        if isinstance(pending.transaction[0], Sweep):
            shown[index] = ""  # only one keeps rows under deleted prefixes
    text = repr(
        (
            shown,
            [sorted(told) if isinstance(told, set) else told for told in seqlock.told],
            await asyncio.gather(
                store.access(None),
                scanned(store, KeyRange(), 100, 1 << 20, now),
                store.scan_meta(KeyRange(prefix).after(Place("default/a/")), 3, now),
                store.scan_meta(wanted, 3, now),
                scanned(store, wanted, 4, 3, now),
                store.count(KeyRange(prefix), 3, now),
                store.read(["default/a", "t/b/", "u/c/x"], now),
                store.changes(max(0, await store.last_version() - 20), 100),
            ),
        )
    )
    names: dict[str, str] = {}
    return re.sub(
        r"[0-9a-f-]{36}", lambda found: names.setdefault(found[0], f"id {len(names)}"), text
    )


async def scanned(
    store: Store, wanted: KeyRange, limit: int, max_bytes: int, now: float
) -> tuple[list[Entry | Folded], bool]:
    items, more = await store.scan(wanted, limit, max_bytes, now)
    return list(items), more


@pytest.mark.parametrize("seed", range(12))
async def test_two_stores_never_differ(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random groups in both: the same outcomes, entries, usage and log, at every step."""
    monkeypatch.setattr(sql_sweep, "ONE_BY_ONE", 2)
    rng = random.Random(seed)
    real = await SqliteStore.open(tmp_path / "x.db", RecordingSeqlock().lock, change_log_size=40)
    fake = FakeStore(Tables(), change_log_size=40, one_by_one=2)
    now = NOW
    try:
        for _ in range(150):
            now += rng.choice([0.0, 0.25, 1.0])
            version = await fake.last_version()
            group = [some_claim(rng, now, version) for _ in range(rng.choice([1, 1, 3, 8]))]
            prefix, wanted = rng.choice(["", "default/a", "t/", "u/c"]), some_range(rng)
            expected = await seen(fake, group, now, prefix, wanted)
            assert await seen(real, group, now, prefix, wanted) == expected
    finally:
        await real.close()
