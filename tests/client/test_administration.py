"""The Python client with tokens, tenants and limits, against a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tenantbase.client import (
    Caller,
    Client,
    Forbidden,
    NewToken,
    NoSuchTenant,
    OwnToken,
    QuotaExceeded,
    RateLimited,
    Refused,
    Tenant,
    TokenScope,
    Unauthenticated,
    WrongType,
)
from tests.app_server import AppServer

SECONDS = 20.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[AppServer]:
    with AppServer(tmp_path / "x.db", "--memcached", "off", "--log-level", "debug") as server:
        yield server


@pytest.fixture
async def admin(server: AppServer) -> AsyncIterator[Client]:
    """The administrator of a server that its token has closed."""
    async with Client(server.base_url) as anybody:
        made = await anybody.create_token("root", TokenScope.ADMIN)
    async with Client(server.base_url, token=made.token) as client:
        yield client


async def test_open_server_takes_everybody_for_an_administrator(server: AppServer) -> None:
    async with Client(server.base_url) as client:
        assert await client.whoami() == Caller(TokenScope.ADMIN, None, None, 1 << 20, None)
        assert await client.tokens() == []
        assert [each.name for each in await client.tenants()] == ["default"]


async def test_first_token_closes_the_server(server: AppServer, admin: Client) -> None:
    async with Client(server.base_url) as anybody:
        for call in (
            anybody.get("k"),
            anybody.set("k", 1),
            anybody.whoami(),
            anybody.tokens(),
            anext(anybody.watch()),
        ):
            with pytest.raises(Unauthenticated):
                await call
        assert (await anybody.health()).status == "ok"
    caller = await admin.whoami()
    (token,) = await admin.tokens()
    assert caller.scope == "admin" and caller.token == OwnToken(token.id, "root", None)


async def test_tenants(admin: Client) -> None:
    assert await admin.put_tenant("acme", max_entries=10, max_bytes=1000)
    assert not await admin.put_tenant("acme", max_bytes=None, max_requests_per_second=50)
    assert not await admin.put_tenant("acme")
    acme, default = await admin.tenants()
    assert acme == Tenant("acme", 0, 0, 10, None, 50)
    assert default.name == "default"
    with pytest.raises(Refused) as caught:
        await admin.put_tenant("acme", max_entries=-1)
    assert caught.value.problem.field == "max_entries"
    await admin.delete_tenant("acme")
    await admin.delete_tenant("acme")
    assert [each.name for each in await admin.tenants()] == ["default"]
    with pytest.raises(Refused) as caught:
        await admin.delete_tenant("default")
    assert caught.value.problem.status == 409 and not isinstance(caught.value, WrongType)


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "a?x", "a" * 65])
async def test_name_that_no_tenant_has_is_not_sent(admin: Client, name: str) -> None:
    for call in (admin.put_tenant(name), admin.delete_tenant(name)):
        with pytest.raises(ValueError, match="a tenant's name"):
            await call


@pytest.mark.parametrize("id", ["", "..", "a/b", "tb_" + "x" * 43])
async def test_what_is_no_id_is_not_sent(admin: Client, id: str) -> None:
    with pytest.raises(ValueError) as caught:
        await admin.revoke_token(id)
    assert "xxx" not in str(caught.value)


async def test_token_reaches_its_tenant_and_prefix_alone(server: AppServer, admin: Client) -> None:
    await admin.put_tenant("acme")
    made = await admin.create_token("ci", TokenScope.WRITE, tenant="acme", prefix="ci/", ttl=3600)
    assert isinstance(made, NewToken) and made.expires_at is not None
    assert made.expires_at - made.created_at == pytest.approx(3600)
    assert (made.tenant, made.prefix, made.scope) == ("acme", "ci/", TokenScope.WRITE)
    await admin.set("ci/k", "default's")
    async with Client(server.base_url, token=made.token) as client:
        assert await client.whoami() == Caller(
            TokenScope.WRITE,
            "acme",
            "ci/",
            1 << 20,
            OwnToken(made.id, "ci", made.expires_at),
        )
        assert await client.get("ci/k") is None
        await client.set("ci/k", "acme's")
        assert [each.value async for each in client.list()] == ["acme's"]
        for call in (client.set("k", 1), client.get("k"), client.tenants(), client.tokens()):
            with pytest.raises(Forbidden):
                await call
    async with Client(server.base_url, token=made.token, tenant="default") as client:
        with pytest.raises(Forbidden):
            await client.get("ci/k")
    entry = await admin.get("ci/k")
    assert entry is not None and entry.value == "default's"


async def test_administrator_chooses_the_tenant(server: AppServer, admin: Client) -> None:
    await admin.put_tenant("acme")
    (token,) = await admin.tokens()
    made = await admin.create_token("second", TokenScope.ADMIN)
    async with Client(server.base_url, token=made.token, tenant="acme") as acme:
        await acme.set("k", 1)
        assert await admin.get("k") is None
        assert [key async for key in acme.list_keys()] == ["k"]
    async with Client(server.base_url, token=made.token, tenant="nope") as nope:
        for call in (nope.get("k"), nope.set("k", 1), anext(nope.watch())):
            with pytest.raises(NoSuchTenant):
                await call
    with pytest.raises(NoSuchTenant):
        await admin.create_token("x", TokenScope.READ, tenant="nope")
    assert [each.id for each in await admin.tokens()] == [token.id, made.id]


async def test_revoked_token_is_not_accepted(server: AppServer, admin: Client) -> None:
    made = await admin.create_token("r", TokenScope.READ)
    async with Client(server.base_url, token=made.token) as client:
        await client.get("k")
        watching = asyncio.ensure_future(anext(client.watch()))
        await admin.revoke_token(made.id)
        await admin.revoke_token(made.id)
        async with asyncio.timeout(SECONDS):
            with pytest.raises(Unauthenticated):
                while True:
                    await client.get("k")
            with pytest.raises(Unauthenticated):
                await watching
    assert [each.name for each in await admin.tokens()] == ["root"]


async def test_rate_limit_is_waited_for(server: AppServer, admin: Client) -> None:
    await admin.put_tenant("acme", max_requests_per_second=5)
    made = await admin.create_token("w", TokenScope.WRITE, tenant="acme")
    async with Client(server.base_url, token=made.token) as client:
        with pytest.raises(RateLimited) as caught:
            for number in range(100):
                await client.set(f"k{number}", number)
        assert caught.value.retry_after >= 1
    async with Client(server.base_url, token=made.token, wait_when_limited=SECONDS) as patient:
        begun = time.monotonic()
        for number in range(12):
            await patient.set("patient", number)
        assert time.monotonic() - begun >= 1
    assert made.token not in server.stderr


async def test_quota_is_an_error_with_its_limit(server: AppServer, admin: Client) -> None:
    await admin.put_tenant("acme", max_entries=2)
    made = await admin.create_token("w", TokenScope.WRITE, tenant="acme")
    async with Client(server.base_url, token=made.token) as client:
        await client.set_many({"a": 1, "b": 2})
        with pytest.raises(QuotaExceeded) as caught:
            await client.set("c", 3)
        assert caught.value.limit == "max_entries"
        assert await client.delete_many(["a"]) == 1
        await client.set("c", 3)
    acme, _ = await admin.tenants()
    assert acme.entries == 2
