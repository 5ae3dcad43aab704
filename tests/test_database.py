"""The service over the real store, with and without a real memcached: scopes and validation."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tenantbase.coherence.sealed_item import ItemSealer
from tenantbase.commands import Applied, Condition
from tenantbase.database import Database, Limits
from tenantbase.entry import JSON, OCTETS, Entry
from tenantbase.errors import (
    ConditionFailed,
    InvalidRequest,
    TenantbaseError,
    TooLarge,
    WrongType,
)
from tenantbase.figures import REJECTED_ITEMS
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.interfaces.memcached.client import MemcacheClient
from tenantbase.json_requests import Read, SetValue
from tenantbase.json_text import NotJson
from tenantbase.listing import KeyRange, Place
from tenantbase.lookup import CacheStatus, Lookup
from tenantbase.process.config import Config
from tenantbase.process.wiring import Memcached, open_cache, open_database
from tenantbase.scope import DEFAULT, Scope
from tests.servers import MemcachedProcess, contents

A, B = Scope("a"), Scope("b")
LONGEST = Scope("z" * 64)
TENANTS = [A, Scope("a-b"), Scope("a0"), B, LONGEST]
SECONDS = 30


@pytest.fixture(scope="module")
def memcached() -> Iterator[MemcachedProcess]:
    with MemcachedProcess() as process:
        yield process


@pytest.fixture
def config(tmp_path: Path) -> Config:
    # A generous timeout: a slow machine must not turn hits into misses.
    return Config(database=tmp_path / "x.db", cache_timeout=5.0)


@pytest.fixture(params=["cache", "no-cache"])
async def database(
    request: pytest.FixtureRequest, config: Config, memcached: MemcachedProcess
) -> AsyncIterator[Database]:
    accelerator = None
    if request.param == "cache":
        accelerator = Memcached([MemcacheAddress.parse(memcached.address)], 1 << 20)
    async with opened_with_tenants(config, accelerator) as database:
        yield database


@asynccontextmanager
async def opened_with_tenants(
    config: Config, accelerator: Memcached | None = None
) -> AsyncIterator[Database]:
    async with asyncio.timeout(SECONDS), open_database(config, accelerator) as database:
        for scope in TENANTS:
            await database.put_tenant(scope.tenant)
        yield database


def given(key: str, value: str = "1", **more: Any) -> SetValue:
    return SetValue(key, msgspec.Raw(value.encode()), **more)


async def value(database: Database, scope: Scope, key: str) -> bytes | None:
    """The value of a key; checks that both ways to get it agree."""
    entry = (await database.get(scope, key)).entry
    future: asyncio.Future[Lookup | Exception] = asyncio.get_running_loop().create_future()
    database.get_then(scope, key, future.set_result)
    found = await future
    assert isinstance(found, Lookup) and found.entry == entry
    assert entry is None or entry.key == scope.key(key)
    return None if entry is None else entry.value


async def listed(database: Database, scope: Scope, prefix: str = "", **more: Any) -> list[str]:
    pieces = [piece async for piece, _ in database.scan(scope, KeyRange(prefix), **more)]
    return [entry.key[scope.plain] for piece in pieces for entry in piece]


# Tenants


async def test_tenants_do_not_see_each_others_values(database: Database) -> None:
    first = await database.set(A, given("k", '"a"'))
    second = await database.set(B, given("k", '"b"'))
    assert first.entry is not None and second.entry is not None
    assert (first.entry.key, second.entry.key) == (A.key("k"), B.key("k"))
    assert first.created and second.created and first.entry.id != second.entry.id
    for _ in range(3):  # from the database, and from memcached
        assert await value(database, A, "k") == b'"a"'
        assert await value(database, B, "k") == b'"b"'
        assert await value(database, DEFAULT, "k") is None
        assert await value(database, DEFAULT, "a/k") is None
        assert await value(database, Scope("a-b"), "k") is None
    assert await database.delete(A, "k") == 1
    assert await value(database, A, "k") is None
    assert await value(database, B, "k") == b'"b"'
    assert await database.delete(A, "k") == 0


async def test_bulk_operations_stay_within_their_tenant(database: Database) -> None:
    keys = ["x", "y", "b/x"]
    for scope in (A, B):
        applied = await database.set_many(
            scope, [Read(given(key, f'"{scope.tenant}"')) for key in keys]
        )
        assert [key for key, each in applied if each.created] == keys
    for _ in range(2):
        for scope in (A, B):
            pieces = [piece async for piece in database.get_many(scope, ["y", "z", "x", "y"])]
            found = [pair for piece in pieces for pair in piece]
            assert [key for key, _ in found] == ["y", "z", "x"]
            assert [each.entry is None for _, each in found] == [False, True, False]
            values = {each.entry.value for _, each in found if each.entry}
            assert values == {b'"%b"' % scope.tenant.encode()}
    assert await database.delete_many(A, ["x", "y", "x"]) == 2
    assert await listed(database, A) == ["b/x"]
    assert await listed(database, B) == ["b/x", "x", "y"]
    popped = await database.pop_many(B, ["y", "z", "x", "y"])
    assert [(key, entry.key, entry.value) for key, entry in popped] == [
        (key, B.key(key), b'"b"') for key in ("y", "x")
    ]
    assert await listed(database, B) == ["b/x"]
    assert await value(database, B, "y") is None


async def test_lists_hold_the_keys_of_one_tenant_in_order(database: Database) -> None:
    keys = ["", "a", "a/b", "é", "\U0010ffff"]
    tenants = [Scope(name) for name in ("a", "a-b", "a0", "b")]
    for scope in tenants:
        await database.set_many(scope, [Read(given(f"k{key}")) for key in keys])
    for scope in tenants:
        assert await listed(database, scope) == [f"k{key}" for key in keys]
        assert await listed(database, scope, "ka") == ["ka", "ka/b"]
        assert await listed(database, scope, values=False, limit=2) == ["k", "ka"]
        assert await listed(database, scope, after=Place("ka")) == ["ka/b", "ké", "k\U0010ffff"]
        assert await listed(database, scope, after=Place("k\U0010ffff")) == []
    assert await listed(database, DEFAULT) == []
    pieces = [more async for _, more in database.scan(A, limit=5)]
    assert pieces[-1] is False, "the next tenant's keys are not after this one's"


@pytest.mark.parametrize("many", [3, 1_001])  # the two ways to delete a prefix
async def test_deleting_the_empty_prefix_empties_one_tenant(database: Database, many: int) -> None:
    for scope in (A, B):
        await database.set_many(scope, [Read(given(f"k{n}")) for n in range(many)])
    assert await value(database, A, "k0") == await value(database, B, "k0") == b"1"
    assert await database.delete_prefix(A, "") == many
    assert await listed(database, A) == []
    assert await value(database, A, "k0") is None
    assert len(await listed(database, B)) == many
    assert await value(database, B, "k0") == b"1"
    while await database.sweep():
        pass
    assert len(await listed(database, B)) == many
    assert await database.delete_prefix(DEFAULT, "b/") == 0
    assert await database.delete_prefix(B, "k") == many


async def test_tenants_have_separate_counters(database: Database) -> None:
    for n in range(1, 4):
        applied = await database.increment(A, "n")
        assert applied.entry is not None
        assert applied.entry.value == b"%d" % n
    applied = await database.increment(B, "n", 5, 10)
    assert applied.created and applied.entry is not None and applied.entry.value == b"15"
    assert await value(database, A, "n") == b"3"


async def test_conditions_apply_to_the_tenants_own_entry(database: Database) -> None:
    stored = await database.set(A, given("k"))
    assert stored.entry is not None
    version = stored.entry.version
    with pytest.raises(ConditionFailed, match="on key 'k' does not hold: it is absent"):
        await database.set(B, given("k", if_version=version))
    assert (await database.set(B, given("k", if_absent=True))).created
    with pytest.raises(ConditionFailed) as caught:
        await database.delete(B, "k", if_version=version)
    assert caught.value.key == "k"
    assert await database.delete(A, "k", if_version=version) == 1


async def test_errors_name_the_plain_key(database: Database) -> None:
    await database.set(A, given("a/k", '"no number"'))
    with pytest.raises(WrongType, match="the value of key 'a/k' is not an integer"):
        await database.increment(A, "a/k")
    await database.set(A, given("a/k", "1" * 1_001))
    with pytest.raises(WrongType, match="the integer of key 'a/k' has more"):
        await database.increment(A, "a/k")


async def _events(database: Database, scope: Scope, prefix: str, after: int) -> list[Any]:
    async with database.watch(scope, prefix, after, lambda: None) as changes:
        async for events in changes:
            if events:
                return [(event.kind, event.key) for event in events]
    raise AssertionError("the watch has ended")


async def test_a_watch_has_the_events_of_its_tenant(database: Database) -> None:
    async with database.watch(B, "", None, lambda: None) as live:
        await database.set(A, given("b/k"))
        await database.delete_prefix(A, "")
        await database.set(B, given("k"))
        await database.set(B, given("other"))
        await database.delete(B, "k")
        seen: list[Any] = []
        while len(seen) < 3:
            seen += [(event.kind, event.key) for event in await anext(live)]
    expected = [("set", "k"), ("set", "other"), ("delete", "k")]
    assert seen == expected
    assert await _events(database, B, "", 0) == expected
    assert await _events(database, B, "k", 0) == [("set", "k"), ("delete", "k")]
    assert await _events(database, A, "b", 0) == [("set", "b/k"), ("delete", "b/k")]


async def test_a_reset_names_the_watched_prefix(database: Database) -> None:
    for scope in (A, B):
        await database.set_many(scope, [Read(given(f"x/{n}")) for n in range(1_001)])
    async with (
        database.watch(A, "", None, lambda: None) as everything,
        database.watch(A, "x/1", None, lambda: None) as narrow,
        database.watch(B, "", None, lambda: None) as others,
    ):
        await database.delete_prefix(A, "x/")
        await database.set(B, given("last"))
        assert [(e.kind, e.key) for e in await anext(everything)] == [("reset", "x/")]
        assert [(e.kind, e.key) for e in await anext(narrow)] == [("reset", "x/1")]
        assert [(e.kind, e.key) for e in await anext(others)] == [("set", "last")]
    # An id of another database: everything watched may have changed.
    assert await _events(database, A, "x/", 1 << 60) == [("reset", "x/")]


async def test_another_tenants_item_in_memcached_is_rejected(
    config: Config, memcached: MemcachedProcess
) -> None:
    address = MemcacheAddress.parse(memcached.address)
    async with (
        asyncio.timeout(SECONDS),
        opened_with_tenants(config, Memcached([address], 1 << 20)) as database,
        MemcacheClient(address, timeout=5.0) as client,
    ):
        await database.set(A, given("k", '"secret of a"'))
        await database.set(B, given("k", '"b"'))
        with closing(sqlite3.connect(config.file)) as connection:
            (secret,) = connection.execute("SELECT secret FROM state").fetchone()
        sealer = ItemSealer(secret)
        source, target = sealer.name(A.key("k")), sealer.name(B.key("k"))
        assert source != target
        items = await contents(client, [source])
        assert b"secret of a" in items[source]
        await client.set_many([(target, items[source], 0)])
        before = database.figures[REJECTED_ITEMS]
        found = await database.get(B, "k")
        assert found.entry is not None and found.entry.value == b'"b"'
        assert found.cache_status is CacheStatus.MISS
        assert database.figures[REJECTED_ITEMS] == before + 1


async def test_a_read_only_database_has_tenants_too(config: Config) -> None:
    from tenantbase.database import Reader
    from tenantbase.interfaces.sqlite.read_only import reading

    async with opened_with_tenants(config) as database:
        await database.set(A, given("k", '"a"'))
        await database.set(B, given("k", '"b"'))
    with reading(str(config.database)) as entries:
        reader = Reader(entries)
        for scope in (A, B):
            found = (await reader.get(scope, "k")).entry
            assert found is not None
            assert found.value == b'"%b"' % scope.tenant.encode()
            pieces = [list(piece) async for piece, _ in reader.scan(scope)]
            assert pieces == [[found]]


# Validation


@pytest.fixture
async def small(config: Config) -> AsyncIterator[Database]:
    """Limits that a test can reach."""
    async with asyncio.timeout(SECONDS), open_cache(config) as cache:
        database = Database(cache, Limits(max_value_bytes=8, max_batch_entries=2), heartbeat=3600)
        await database.put_tenant(A.tenant)
        yield database


BAD_KEYS = [("", "a key has at least one"), ("a\0", "U+0000"), ("k" * 1_025, "at most 1,024 bytes")]


@pytest.mark.parametrize(("key", "text"), BAD_KEYS)
async def test_every_operation_checks_the_key(small: Database, key: str, text: str) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("it was begun")

    operations: list[Any] = [
        lambda: small.get(A, key),
        lambda: small.get_then(A, key, refuse),
        lambda: small.set(A, given(key)),
        lambda: small.set_then(A, given(key), refuse),
        lambda: small.draft(A, key, JSON),
        lambda: small.delete(A, key),
        lambda: small.delete_then(A, key, refuse),
        lambda: small.increment(A, key),
        lambda: small.import_batch(A).add([given(key)]),
    ]
    for operation in operations:
        with pytest.raises(InvalidRequest, match=text.replace("+", r"\+")) as caught:
            await operation()
        assert caught.value.field == "key"
    for many, field in (
        (lambda: small.get_many(A, ["k", key]), "keys[1]"),
        (lambda: small.delete_many(A, ["k", key]), "keys[1]"),
        (lambda: small.set_many(A, [Read(given("k")), Read(given(key))]), "values[1].key"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            many()
        assert caught.value.field == field
    assert await listed(small, A) == []


async def test_the_longest_key_is_as_long_in_every_tenant(database: Database) -> None:
    key = "é" * 512
    for scope in (DEFAULT, LONGEST):
        await database.set(scope, given(key))
        assert await value(database, scope, key) == b"1"
        assert await value(database, scope, key) == b"1"
        assert await listed(database, scope) == [key]
        assert await database.delete_prefix(scope, key) == 1


LATE: dict[str, Any] = {"ttl": 1.0, "expires_at": 1.0}
BAD_SETS: list[tuple[SetValue, type[InvalidRequest], str]] = [
    (given("k", '"123456789"'), TooLarge, "value"),
    (given("k", '"MTIzNDU2Nzg5"', encoding="base64"), TooLarge, "value"),
    (given("k", '"?"', encoding="base64"), InvalidRequest, "value"),
    (given("k", '"ew=="', encoding="base64", content_type=JSON), NotJson, "value"),
    (given("k", "1", content_type="text/plain"), InvalidRequest, "encoding"),
    (given("k", "1", content_type="text"), InvalidRequest, "content_type"),
    (given("k", **LATE), InvalidRequest, "expires_at"),
    (given("k", ttl=0.0), InvalidRequest, "ttl"),
    (given("k", expires_at=1.0), InvalidRequest, "expires_at"),
]


@pytest.mark.parametrize(("entry", "kind", "field"), BAD_SETS)
async def test_what_cannot_be_stored(
    small: Database, entry: SetValue, kind: type[InvalidRequest], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        small.set(A, entry)
    assert (type(caught.value), caught.value.field) == (kind, field)
    with pytest.raises(InvalidRequest) as caught:
        small.set_many(A, [Read(given("first")), Read(entry)])
    assert (type(caught.value), caught.value.field) == (kind, f"values[1].{field}")
    assert await listed(small, A) == []


async def test_a_value_as_bytes_is_checked_like_one_in_json(small: Database) -> None:
    for more, field in (
        ({"content_type": "text"}, "Content-Type"),
        ({"content_type": OCTETS, **LATE}, "expires_at"),
        ({"content_type": OCTETS, "ttl": -1.0}, "ttl"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            small.draft(A, "k", content_type_field="Content-Type", **more)
        assert caught.value.field == field
    with pytest.raises(TooLarge, match="a value has at most 8 bytes") as caught:
        small.put(A, small.draft(A, "k", OCTETS), b"123456789")
    assert caught.value.field == "value"
    with pytest.raises(InvalidRequest) as caught:
        small.put(A, small.draft(A, "k", "a/b+json"), b"{")
    assert caught.value.field == "value"
    applied = await small.put(A, small.draft(A, "k", "a/b+json", if_absent=True), b" {}")
    assert applied.entry is not None
    assert applied.entry.value == b" {}"
    with pytest.raises(ConditionFailed):
        await small.put(A, small.draft(A, "k", OCTETS, if_absent=True), b"")
    both = small.draft(A, "k", OCTETS, condition=Condition(exists=True), if_version=1 << 40)
    with pytest.raises(ConditionFailed):
        await small.put(A, both, b"")


async def test_sizes_of_batches(small: Database) -> None:
    keys = ["a", "b", "c"]
    for call, field in (
        (lambda: small.get_many(A, keys), "keys"),
        (lambda: small.delete_many(A, keys), "keys"),
        (lambda: small.set_many(A, [Read(given(key)) for key in keys]), "values"),
    ):
        with pytest.raises(TooLarge, match="a request may have at most 2 entries") as caught:
            call()
        assert caught.value.field == field
    with pytest.raises(InvalidRequest, match="key 'k' is given twice") as twice:
        small.set_many(A, [Read(given("k")), Read(given("k"))])
    assert twice.value.field == "values[1].key"
    assert await small.set_many(A, []) == []
    assert await small.delete_many(A, []) == 0
    assert [piece async for piece in small.get_many(A, [])] == []


async def test_prefixes_and_pages(small: Database) -> None:
    for call, field in (
        (lambda: small.delete_prefix(A, "\0"), "prefix"),
        (lambda: small.delete_prefix(A, "", Condition(exists=True)), "prefix"),
        (lambda: small.scan(A, KeyRange("\ud83d")), "prefix"),
        (lambda: small.scan(A, limit=0), "limit"),
        (lambda: small.scan(A, limit=10_001), "limit"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            call()
        assert caught.value.field == field
    with pytest.raises(InvalidRequest):
        async with small.watch(A, "\0", None, lambda: None):
            pass


async def test_writes_that_call_back(database: Database) -> None:
    loop = asyncio.get_running_loop()

    async def outcome(begin: Any) -> Applied | BaseException:
        future: asyncio.Future[Applied | BaseException] = loop.create_future()
        begin(future.set_result)
        assert not future.done(), "never before it returns"
        return await future

    stored = await outcome(lambda receive: database.set_then(A, given("k"), receive))
    assert isinstance(stored, Applied) and stored.created
    assert isinstance(stored.entry, Entry) and stored.entry.key == A.key("k")
    refused = await outcome(
        lambda receive: database.set_then(A, given("k", if_absent=True), receive)
    )
    assert isinstance(refused, ConditionFailed) and refused.key == "k"
    gone = await outcome(lambda receive: database.delete_then(A, "k", receive))
    assert isinstance(gone, Applied) and gone.removed == 1
    assert await value(database, A, "k") is None


async def test_an_import_skips_expired_entries_and_refuses_conditions(database: Database) -> None:
    batch = database.import_batch(A)
    for refused in (given("k", if_absent=True), given("k", if_version=1)):
        with pytest.raises(InvalidRequest, match="an import has no conditions"):
            batch.add([given("j"), refused])
    batch.add([given("expired", expires_at=1.0)])
    assert not batch
    batch.add([given("k", "1")])
    batch.add([given("k", "2")])  # lines of a file may repeat a key; the last one counts
    assert len(batch) == 2
    await batch.write()
    assert await value(database, A, "k") == b"2"
    assert await listed(database, A) == ["k"]


async def test_a_database_that_is_closed_says_so(config: Config) -> None:
    async with open_database(config) as database:
        pass
    with pytest.raises(TenantbaseError, match="closed"):
        await database.set(A, given("k"))
