"""The service's checks: every operation with every kind of scope, on keys inside and outside it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from tenantbase.access import TenantLimits, TokenScope
from tenantbase.database import Database
from tenantbase.entry import OCTETS, Entry
from tenantbase.errors import (
    Forbidden,
    InvalidRequest,
    NoSuchKey,
    NoSuchTenant,
    TenantbaseError,
    TenantRequired,
)
from tenantbase.json_requests import Read, SetValue
from tenantbase.listing import KeyRange, Place
from tenantbase.process.config import Config
from tenantbase.process.wiring import open_database
from tenantbase.scope import DEFAULT, Scope
from tenantbase.web.list_document import ListDocument

SECONDS = 30
ALL = {"p/a": b"1", "p/b": b"2", "q": b"3"}


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with (
        asyncio.timeout(SECONDS),
        open_database(Config(database=tmp_path / "x.db")) as opened,
    ):
        await fill(opened)
        yield opened


async def fill(database: Database) -> None:
    await database.delete_prefix(DEFAULT, "")
    entries = [Read(SetValue(key, msgspec.Raw(value))) for key, value in ALL.items()]
    await database.set_many(DEFAULT, entries)


async def contents(
    database: Database, scope: Scope = DEFAULT, prefix: str = ""
) -> dict[str, bytes]:
    return {
        entry.key[scope.plain]: entry.value
        async for piece, _ in database.scan(scope, KeyRange(prefix))
        for entry in piece
        if isinstance(entry, Entry)
    }


def outside(scope: Scope, entries: dict[str, bytes]) -> dict[str, bytes]:
    """The entries that the scope does not include."""
    return {key: value for key, value in entries.items() if not key.startswith(scope.allowed)}


async def _get(database: Database, scope: Scope, key: str) -> object:
    return await database.get(scope, key)


async def _get_then(database: Database, scope: Scope, key: str) -> object:
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    database.get_then(scope, key, done.set_result)
    return await done


async def _get_many(database: Database, scope: Scope, key: str) -> object:
    found = database.get_many(scope, ["p/a", key])
    return [piece async for piece in found]


async def _get_few_then(database: Database, scope: Scope, key: str) -> object:
    # It reads only if it is known that the tenant's values are small.
    known = database.get_many(Scope(scope.tenant), ["p/a"])
    assert [piece async for piece in known]
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    assert database.get_few_then(
        scope, ["p/a", key], 1 << 16, lambda keys, result: done.set_result((keys, result))
    )
    return await done


async def _set(database: Database, scope: Scope, key: str) -> object:
    return await database.set(scope, SetValue(key, msgspec.Raw(b"9")))


async def _set_then(database: Database, scope: Scope, key: str) -> object:
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    database.set_then(scope, SetValue(key, msgspec.Raw(b"9")), done.set_result)
    return await done


async def _draft(database: Database, scope: Scope, key: str) -> object:
    return database.draft(scope, key, OCTETS)


async def _put(database: Database, scope: Scope, key: str) -> object:
    return await database.put(scope, database.draft(scope, key, OCTETS), b"9")


async def _set_many(database: Database, scope: Scope, key: str) -> object:
    given = {each: SetValue(each, msgspec.Raw(b"9")) for each in ("p/a", key)}
    return await database.set_many(scope, map(Read, given.values()))


async def _set_batch(database: Database, scope: Scope, key: str) -> object:
    batch = database.set_batch(scope)
    for each in dict.fromkeys(("p/a", key)):
        batch.add(Read(SetValue(each, msgspec.Raw(b"9"))))
    return await batch.write()


async def _delete(database: Database, scope: Scope, key: str) -> object:
    return await database.delete(scope, key)


async def _delete_then(database: Database, scope: Scope, key: str) -> object:
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    database.delete_then(scope, key, done.set_result)
    return await done


async def _delete_many(database: Database, scope: Scope, key: str) -> object:
    return await database.delete_many(scope, ["p/a", key])


async def _pop_many(database: Database, scope: Scope, key: str) -> object:
    return await database.pop_many(scope, ["p/a", key])


async def _delete_prefix(database: Database, scope: Scope, key: str) -> object:
    return await database.delete_prefix(scope, key)


async def _increment(database: Database, scope: Scope, key: str) -> object:
    return await database.increment(scope, key)


async def _touch(database: Database, scope: Scope, key: str) -> object:
    with suppress(NoSuchKey):
        await database.touch(scope, key, ttl=60)
    return None


async def _rename(database: Database, scope: Scope, key: str) -> object:
    with suppress(NoSuchKey):
        await database.rename(scope, key, "p/renamed")
    return None


async def _import_batch(database: Database, scope: Scope, key: str) -> object:
    batch = database.import_batch(scope)
    batch.add([SetValue(key, msgspec.Raw(b"9"))])
    await batch.write()
    return None


async def _scan(database: Database, scope: Scope, key: str) -> object:
    return await contents(database, scope, key)


async def _page(database: Database, scope: Scope, key: str) -> object:
    document = ListDocument(scope.plain)
    found, _ = await database.page(scope, KeyRange(key), None, 100, document)()
    return {entry.key[scope.plain] for entry in found}


async def _refresh(database: Database, scope: Scope, key: str) -> object:
    return await database.refresh(scope, key)


async def _count(database: Database, scope: Scope, key: str) -> object:
    return await database.count(scope, key)


async def _watch(database: Database, scope: Scope, key: str) -> object:
    async with database.watch(scope, key, None, lambda: None):
        return None


Operation = Callable[[Database, Scope, str], Awaitable[object]]

READS: dict[str, Operation] = {
    "get": _get,
    "get_then": _get_then,
    "get_many": _get_many,
    "get_few_then": _get_few_then,
    "refresh": _refresh,
    "scan": _scan,
    "page": _page,
    "count": _count,
    "watch": _watch,
}
WRITES: dict[str, Operation] = {
    "set": _set,
    "set_then": _set_then,
    "draft": _draft,
    "put": _put,
    "set_many": _set_many,
    "set_batch": _set_batch,
    "delete": _delete,
    "delete_then": _delete_then,
    "delete_many": _delete_many,
    "pop_many": _pop_many,
    "delete_prefix": _delete_prefix,
    "increment": _increment,
    "touch": _touch,
    "rename": _rename,
    "import_batch": _import_batch,
}

SCOPES = {
    "everything": Scope(),
    "reads": Scope(may_write=False),
    "nothing": Scope(may_read=False, may_write=False),
    "prefix": Scope(allowed="p/"),
    "reads a prefix": Scope(allowed="p/", may_write=False),
}


def test_the_table_has_every_operation_that_takes_a_scope() -> None:
    taking = {
        name
        for name, method in inspect.getmembers(Database, inspect.isfunction)
        if not name.startswith("_") and "scope" in inspect.signature(method).parameters
    }
    assert taking - {"create_token", "check_room"} == READS.keys() | WRITES.keys()


@pytest.mark.parametrize("kind", SCOPES)
@pytest.mark.parametrize("name", [*READS, *WRITES])
async def test_an_operation_with_a_scope(database: Database, name: str, kind: str) -> None:
    scope = SCOPES[kind]
    operation = READS.get(name) or WRITES[name]
    allowed = scope.may_write if name in WRITES else scope.may_read
    for key in ("p/a", "p/new", "q", "r", "p", "default/p/a"):
        await fill(database)
        if allowed and key.startswith(scope.allowed):
            await operation(database, scope, key)
            assert outside(scope, await contents(database)) == outside(scope, ALL)
            continue
        with pytest.raises(Forbidden):
            await operation(database, scope, key)
        assert await contents(database) == ALL, "nothing was done"


async def test_nothing_is_moved_out_of_a_prefix(database: Database) -> None:
    await fill(database)
    for to in ("q", "new", "default/p/x"):
        for copy in (False, True):
            with pytest.raises(Forbidden):
                await database.rename(SCOPES["prefix"], "p/a", to, copy=copy, replace=True)
    assert await contents(database) == ALL


async def test_without_a_prefix_everything_within_the_scope_is_meant(database: Database) -> None:
    scope = SCOPES["prefix"]
    assert await contents(database, scope) == {"p/a": b"1", "p/b": b"2"}
    for after, keys in (("p/a", ["p/b"]), ("", ["p/a", "p/b"]), ("a", ["p/a", "p/b"]), ("q", [])):
        listed = database.scan(scope, after=Place(after))
        assert [each.key[scope.plain] async for piece, _ in listed for each in piece] == keys
    async with database.watch(scope, "", None, lambda: None) as changes:
        await database.set(DEFAULT, SetValue("q", msgspec.Raw(b"4")))
        await database.set(DEFAULT, SetValue("p/c", msgspec.Raw(b"5")))
        assert [event.key for event in await anext(changes)] == ["p/c"]
    assert await database.delete_prefix(scope, "") == 3
    assert await contents(database) == {"q": b"4"}


async def test_a_draft_cannot_be_completed_with_fewer_rights(database: Database) -> None:
    drafted = database.draft(DEFAULT, "q", OCTETS)
    with pytest.raises(Forbidden):
        await database.put(SCOPES["reads"], drafted, b"9")
    assert await contents(database) == ALL


# Tenants and tokens


async def test_a_tenant_is_made_changed_and_deleted(database: Database) -> None:
    assert [tenant.name for tenant in await database.tenants()] == ["default"]
    made, created = await database.put_tenant("a", max_entries=5)
    assert created and made.limits == TenantLimits(max_entries=5)
    changed, created = await database.put_tenant("a", max_bytes=7, max_requests_per_second=1)
    assert not created
    assert changed.limits == TenantLimits(max_entries=5, max_bytes=7, max_requests_per_second=1)
    changed, _ = await database.put_tenant("a", max_entries=None)
    assert changed.limits == TenantLimits(max_bytes=7, max_requests_per_second=1)
    await database.put_tenant("a", max_bytes=None)
    await database.set(Scope("a"), SetValue("k", msgspec.Raw(b"1")))
    assert await database.delete_tenant("a") and not await database.delete_tenant("a")
    assert [tenant.name for tenant in await database.tenants()] == ["default"]
    assert (await database.get(Scope("a"), "k")).entry is None
    with pytest.raises(TenantRequired):
        await database.delete_tenant("default")


async def test_a_token_is_made_and_revoked(database: Database) -> None:
    await database.put_tenant("a")
    first, secret = await database.create_token("one", TokenScope.WRITE, "a", "p/", 60)
    second, other = await database.create_token("two", TokenScope.READ)
    admin, _ = await database.create_token("three", TokenScope.ADMIN)
    assert secret != other and secret.startswith("tb_")
    assert (first.tenant, first.prefix) == ("a", "p/")
    assert first.expires_at == pytest.approx(first.created_at + 60)
    assert (second.tenant, second.prefix, second.expires_at) == ("default", None, None)
    assert (admin.tenant, admin.prefix) == (None, None)
    assert await database.tokens() == [first, second, admin]
    assert await database.revoke_token(second.id) and not await database.revoke_token(second.id)
    assert await database.tokens() == [first, admin]
    access = await database.access(None)
    assert access is not None and access.closed
    assert await database.access(access.version) is None
    assert await database.disable_tokens() == 2
    access = await database.access(access.version)
    assert access is not None and not access.closed and not access.tokens


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("name", lambda d: d.put_tenant("A")),
        ("name", lambda d: d.delete_tenant("")),
        ("max_entries", lambda d: d.put_tenant("a", max_entries=-1)),
        ("max_bytes", lambda d: d.put_tenant("a", max_bytes=1 << 63)),
        ("max_requests_per_second", lambda d: d.put_tenant("a", max_requests_per_second=0)),
        ("name", lambda d: d.create_token("", TokenScope.ADMIN)),
        ("name", lambda d: d.create_token("x" * 129, TokenScope.ADMIN)),
        ("name", lambda d: d.create_token("a\nb", TokenScope.ADMIN)),
        ("name", lambda d: d.create_token("a\x1bb", TokenScope.ADMIN)),
        ("tenant", lambda d: d.create_token("n", TokenScope.READ, "A")),
        ("tenant", lambda d: d.create_token("n", TokenScope.ADMIN, "default")),
        ("prefix", lambda d: d.create_token("n", TokenScope.METRICS, None, "p")),
        ("prefix", lambda d: d.create_token("n", TokenScope.READ, None, "é" * 513)),
        ("prefix", lambda d: d.create_token("n", TokenScope.READ, None, "a\0")),
        ("ttl", lambda d: d.create_token("n", TokenScope.READ, ttl=0)),
        ("ttl", lambda d: d.create_token("n", TokenScope.READ, ttl=float("nan"))),
        ("id", lambda d: d.revoke_token("\udc80")),
    ],
)
async def test_what_cannot_be_a_tenant_or_a_token(
    database: Database, field: str, call: Callable[[Database], Awaitable[object]]
) -> None:
    before = await database.access(None)
    assert before is not None
    with pytest.raises(InvalidRequest) as caught:
        await call(database)
    assert caught.value.field == field
    assert await database.access(before.version) is None, "nothing was done"


async def test_a_token_for_a_tenant_that_does_not_exist(database: Database) -> None:
    with pytest.raises(NoSuchTenant):
        await database.create_token("n", TokenScope.READ, "absent")
    access = await database.access(None)
    assert access is not None and not access.closed
    assert issubclass(NoSuchTenant, TenantbaseError)
