"""Who may call: tokens and tenants, on both HTTP paths."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tenantbase.access import TokenScope
from tenantbase.coherence.policy import Cache
from tenantbase.database import Database
from tenantbase.json_requests import SetValue
from tenantbase.scope import DEFAULT, Scope
from tests.servers import poll_async
from tests.service import Server, opened, served, service, web_settings
from tests.web.both_paths import answers, both_paths
from tests.web.corpus import LAST
from tests.web.table import problem
from tests.wire import SECONDS, Headers, request

pytestmark = pytest.mark.integration

PAUSE_SECONDS = 0.02
UNAUTHENTICATED = problem("unauthenticated", 401)
FORBIDDEN = problem("forbidden", 403)


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[Cache]:
    async with asyncio.timeout(3 * SECONDS), opened(tmp_path / "x.db") as cache:
        yield cache


@pytest.fixture
def database(cache: Cache) -> Database:
    return service(cache, web_settings())


@pytest.fixture(params=[True, False], ids=["fast", "general"])
async def server(request: pytest.FixtureRequest, cache: Cache) -> AsyncIterator[Server]:
    async with served(cache, web_settings(fast_path=request.param)) as server:
        yield server


def bearer(secret: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"} | {k.replace("_", "-"): v for k, v in more.items()}


async def until(server: Server, status: int, headers: Mapping[str, str]) -> None:
    """Wait until requests with these headers have this status."""
    async with asyncio.timeout(SECONDS):
        while (await server.ask("GET", "/v1/whoami", headers=headers)).status != status:
            await asyncio.sleep(PAUSE_SECONDS)


async def tokens(database: Database) -> dict[str, str]:
    """Close the database, and make a token of every kind, for the tenant ``a`` where it has one."""
    await database.put_tenant("a")
    await database.put_tenant("b")
    made = {}
    for name, scope, tenant, prefix in (
        ("admin", TokenScope.ADMIN, None, None),
        ("metrics", TokenScope.METRICS, None, None),
        ("read", TokenScope.READ, "a", None),
        ("write", TokenScope.WRITE, "a", None),
        ("prefix", TokenScope.WRITE, "a", "p/"),
        ("other", TokenScope.WRITE, "b", None),
    ):
        _, made[name] = await database.create_token(name, scope, tenant, prefix)
    for tenant in ("default", "a", "b"):
        for key in ("k", "p/k"):
            value = msgspec.Raw(b'"%b"' % tenant.encode())
            await database.set(Scope(tenant), SetValue(key, value))
    return made


async def closed(server: Server, database: Database) -> dict[str, str]:
    """``tokens``, once the server knows them all."""
    made = await tokens(database)
    await until(server, 401, {})
    await until(server, 200, bearer(made["other"]))
    return made


PLAIN = {
    "get": ("GET", "/get-value?key=k", None),
    "get within": ("GET", "/get-value?key=p/k", None),
    "absent": ("GET", "/get-value?key=nope", None),
    "raw": ("GET", "/v1/values/p/k", None),
    "set": ("POST", "/set-value", '{"key": "w", "value": 1}'),
    "set within": ("POST", "/set-value", '{"key": "p/w", "value": 1}'),
    "values": ("POST", "/get-values", '{"keys": ["k", "p/k", "nope"]}'),
    "values within": ("POST", "/get-values", '{"keys": ["p/k", "p/nope"]}'),
    "set badly": ("POST", "/set-value", '{"key": "p/w"}'),
    "delete": ("DELETE", "/delete-value?key=gone", None),
    "delete raw": ("DELETE", "/v1/values/p/gone", None),
    "health": ("GET", "/health-check", None),
    "list": ("GET", "/get-values", None),
    "no route": ("GET", "/nowhere", None),
    "whoami": ("GET", "/v1/whoami", None),
    "tenants": ("GET", "/v1/tenants", None),
}


async def test_both_paths_say_the_same_to_every_caller(cache: Cache, database: Database) -> None:
    made = await tokens(database)
    made["unknown"] = "tb_" + "x" * 43
    revoked, made["revoked"] = await database.create_token("r", TokenScope.ADMIN)
    await database.revoke_token(revoked.id)
    _, made["expired"] = await database.create_token("e", TokenScope.ADMIN, ttl=0.001)
    await asyncio.sleep(0.01)
    headers: list[Headers] = [
        {},
        {"X-Tenant": "a"},
        {"Authorization": ""},
        {"Authorization": made["admin"]},
        {"Authorization": "Basic " + made["admin"]},
        {"Authorization": "bEARER  " + made["admin"]},
        {"Authorization": "Bearer " + made["admin"] + "x"},
        [("Authorization", "Bearer " + made["admin"])] * 2,
        [("Authorization", "Bearer " + made["admin"]), ("X-Tenant", "a"), ("X-Tenant", "a")],
    ]
    for secret in made.values():
        headers.append(bearer(secret))
        headers += [
            bearer(secret, X_Tenant=tenant) for tenant in ("a", "b", "default", "nope", "A", "")
        ]
    async with both_paths(cache) as ports:
        for fields in headers:
            for name, (method, target, body) in PLAIN.items():
                data = request(method, target, body, fields)
                fast, general = [await answers(port, [data + data + LAST]) for port in ports]
                assert fast == general != b"reset", (name, fields)


async def test_an_open_server_asks_nobody(server: Server, database: Database) -> None:
    await database.put_tenant("a")
    for headers in ({}, bearer("tb_unknown"), {"Authorization": "nonsense"}):
        assert (await server.ask("GET", "/v1/whoami", headers=headers)).json["scope"] == "admin"
        stored = await server.ask("POST", "/set-value", '{"key": "k", "value": 1}', headers)
        assert stored.status == 200
    who = await server.ask("GET", "/v1/whoami")
    assert who.json == {
        "scope": "admin",
        "tenant": None,
        "prefix": None,
        "max_value_bytes": 1 << 20,
        "token": None,
    }
    await until(server, 200, {"X-Tenant": "a"})
    assert (await server.ask("GET", "/get-value?key=k", headers={"X-Tenant": "a"})).status == 404
    unknown = await server.ask("GET", "/get-value?key=k", headers={"X-Tenant": "nope"})
    assert (unknown.status, unknown.json) == (404, problem("no-such-tenant", 404))
    illegal = await server.ask("GET", "/get-value?key=k", headers={"X-Tenant": "A"})
    assert (illegal.status, illegal.json["field"]) == (400, "X-Tenant")


async def test_a_closed_server_asks_everybody(server: Server, database: Database) -> None:
    made = await closed(server, database)
    refused = set()
    for headers in (
        {},
        {"Authorization": made["admin"]},
        {"Authorization": "Basic " + made["admin"]},
        bearer(made["admin"][:-1]),
        bearer("tb_" + "x" * 43),
        bearer(""),
    ):
        for method, target, body in PLAIN.values():
            if target == "/health-check":
                continue
            answer = await server.ask(method, target, body, headers)
            assert (answer.status, answer.json) == (401, UNAUTHENTICATED), target
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="tenantbase"'
            refused.add(answer.body)
    assert len(refused) == 1, "one text for every reason"
    for public in ("/health-check", "/livez", "/openapi.json", "/docs", "/"):
        assert (await server.ask("GET", public)).status == 200
    assert (await server.ask("OPTIONS", "/")).status == 204
    assert (await server.ask("GET", "/nowhere", headers=bearer(made["read"]))).status == 404


async def test_what_each_kind_of_token_may_do(server: Server, database: Database) -> None:
    made = await closed(server, database)
    asked: list[tuple[str, str, str | None]] = [
        ("GET", "/get-value?key=k", None),
        ("GET", "/get-value?key=p/k", None),
        ("POST", "/set-value", '{"key": "p/k", "value": 2}'),
        ("DELETE", "/v1/values/k", None),
        ("GET", "/v1/tenants", None),
        ("POST", "/delete-values", '{"prefix": "q"}'),
        ("HEAD", "/v1/watch?prefix=q", None),
    ]
    expected = {
        "admin": [200, 200, 200, 204, 200, 200, 200],
        "metrics": [403] * 7,
        "read": [200, 200, 403, 403, 403, 403, 200],
        "write": [200, 200, 200, 204, 403, 200, 200],
        "prefix": [403, 200, 200, 403, 403, 403, 403],
    }
    for name, statuses in expected.items():
        await tokens_back(database)
        got = [
            (await server.ask(method, target, body, bearer(made[name]))).status
            for method, target, body in asked
        ]
        assert got == statuses, name
    for name in ("metrics", "read", "write", "prefix"):
        texts = set()
        for tenant in ("b", "default", "nope", "A", ""):
            answer = await server.ask(
                "GET", "/get-value?key=p/k", headers=bearer(made[name], X_Tenant=tenant)
            )
            assert answer.status == 403
            texts.add(answer.body)
        assert len(texts) == 1, "whether a tenant exists must not show"


async def tokens_back(database: Database) -> None:
    """Store what ``tokens`` stored, again."""
    for key in ("k", "p/k"):
        await database.set(Scope("a"), SetValue(key, msgspec.Raw(b'"a"')))
        await database.set(DEFAULT, SetValue(key, msgspec.Raw(b'"default"')))


async def test_a_caller_gets_the_values_of_its_tenant(server: Server, database: Database) -> None:
    made = await closed(server, database)
    for headers, value in (
        (bearer(made["admin"]), "default"),
        (bearer(made["admin"], X_Tenant="b"), "b"),
        (bearer(made["read"]), "a"),
        (bearer(made["read"], X_Tenant="a"), "a"),
        (bearer(made["other"]), "b"),
    ):
        for _ in range(2):
            answer = await server.ask("GET", "/get-value?key=k", headers=headers)
            assert answer.json["value"] == value
            assert answer.headers["Cache-Control"] == "private, no-cache"
            listed = await server.ask("GET", "/get-values", headers=headers)
            assert [each["value"] for each in listed.json["values"]] == [value, value]
    within = await server.ask("GET", "/get-values", headers=bearer(made["prefix"]))
    assert [each["key"] for each in within.json["values"]] == ["p/k"]


async def test_without_a_token_answers_are_not_private(server: Server) -> None:
    answer = await server.ask("GET", "/get-value?key=k")
    assert answer.headers["Cache-Control"] == "no-cache"


async def test_tokens_are_made_used_and_revoked_over_http(server: Server) -> None:
    made = await server.ask("POST", "/v1/tokens", '{"name": "ops", "scope": "admin"}')
    assert (made.status, made.headers["Cache-Control"]) == (201, "no-store")
    admin = bearer(made.json["token"])
    assert (await server.ask("GET", "/v1/tokens")).status == 401, "closed at once"
    created = await server.ask("PUT", "/v1/tenants/acme", '{"max_entries": 1}', admin)
    assert created.status == 201
    assert created.json == {
        "name": "acme",
        "entries": 0,
        "bytes": 0,
        "max_entries": 1,
        "max_bytes": None,
        "max_requests_per_second": None,
    }
    assert (await server.ask("PUT", "/v1/tenants/acme", None, admin)).json["max_entries"] == 1
    body = '{"name": "app", "scope": "write", "tenant": "acme", "prefix": "p/", "ttl": 60}'
    token = (await server.ask("POST", "/v1/tokens", body, admin)).json
    app = bearer(token["token"])
    who = (await server.ask("GET", "/v1/whoami", headers=app)).json
    assert (who["scope"], who["tenant"], who["prefix"]) == ("write", "acme", "p/")
    assert who["token"] == {"id": token["id"], "name": "app", "expires_at": token["expires_at"]}
    listed = (await server.ask("GET", "/v1/tokens", headers=admin)).json["tokens"]
    assert [each["name"] for each in listed] == ["ops", "app"]
    assert all("token" not in each for each in listed)
    for _ in range(2):
        assert (await server.ask("DELETE", f"/v1/tokens/{token['id']}", None, admin)).status == 204
    assert (await server.ask("GET", "/v1/whoami", headers=app)).status == 401
    for _ in range(2):
        assert (await server.ask("DELETE", "/v1/tenants/acme", None, admin)).status == 204
    required = await server.ask("DELETE", "/v1/tenants/default", None, admin)
    assert (required.status, required.json) == (409, problem("tenant-required", 409))
    unknown = '{"name": "n", "scope": "read", "tenant": "acme"}'
    assert (await server.ask("POST", "/v1/tokens", unknown, admin)).status == 404


@pytest.mark.parametrize(
    ("method", "target", "body", "field"),
    [
        ("PUT", "/v1/tenants/A", "{}", "name"),
        ("PUT", "/v1/tenants/a", '{"max_bytes": -1}', "max_bytes"),
        ("PUT", "/v1/tenants/a", '{"max_bytes": true}', "max_bytes"),
        ("PUT", "/v1/tenants/a", '{"max": 1}', "max"),
        ("POST", "/v1/tokens", '{"scope": "admin"}', "name"),
        ("POST", "/v1/tokens", '{"name": "n", "scope": "root"}', "scope"),
        ("POST", "/v1/tokens", '{"name": "n", "scope": "admin", "tenant": "default"}', "tenant"),
        ("POST", "/v1/tokens", '{"name": "n", "scope": "read", "ttl": 0}', "ttl"),
    ],
)
async def test_what_cannot_be_made(
    server: Server, method: str, target: str, body: str, field: str
) -> None:
    answer = await server.ask(method, target, body)
    assert (answer.status, answer.json["field"]) == (400, field)
    assert (await server.ask("GET", "/v1/tokens")).json == {"tokens": []}


@pytest.mark.parametrize("how", ["revoked", "expired", "tenant deleted"])
async def test_a_watch_ends_with_its_token(server: Server, database: Database, how: str) -> None:
    await database.put_tenant("a")
    ttl = 4.0 if how == "expired" else None  # it has to be used before
    token, secret = await database.create_token("w", TokenScope.READ, "a", ttl=ttl)
    await until(server, 200, bearer(secret))
    async with server.wire() as wire:
        await wire.send(request("GET", "/v1/watch", headers=bearer(secret)))
        async with asyncio.timeout(SECONDS):
            await wire.reader.readuntil(b"watching")
            if how == "revoked":
                await database.revoke_token(token.id)
            elif how == "tenant deleted":
                await database.delete_tenant("a")
            assert b"id: " in await wire.reader.read()  # to the end of the connection
    await until(server, 401, bearer(secret))


LONG = {
    "list": ("GET", "/get-values", None, {}),
    "lines": ("GET", "/v1/values", None, {"Accept": "application/x-ndjson"}),
    "bulk": ("POST", "/get-values", json.dumps({"keys": [f"big/{n}" for n in range(16)]}), {}),
}


@pytest.mark.parametrize("how", ["revoked", "expired", "tenant deleted"])
async def test_long_answers_are_cut_with_their_token(
    server: Server, database: Database, how: str
) -> None:
    """A client could take a list that ends early for the whole."""
    await database.put_tenant("a")
    value = msgspec.Raw(b'"%b"' % (b"x" * 1_000_000))
    for number in range(16):  # more than the kernel's buffers take
        await database.set(Scope("a"), SetValue(f"big/{number}", value))
    ttl = 4.0 if how == "expired" else None  # it has to be used before
    token, secret = await database.create_token("t", TokenScope.READ, "a", ttl=ttl)
    await until(server, 401, {})
    async with AsyncExitStack() as stack, asyncio.timeout(SECONDS):
        for method, target, body, headers in LONG.values():
            wire = await stack.enter_async_context(server.wire())
            await wire.send(request(method, target, body, bearer(secret) | headers))
            assert await wire.reader.readexactly(12) == b"HTTP/1.1 200"
        assert server.lifecycle.active == len(LONG), "none has been sent to its end"
        if how == "revoked":
            await database.revoke_token(token.id)
        elif how == "tenant deleted":
            await database.delete_tenant("a")
        # A connection whose answer was complete would stay open. Without the tenant, a list may end
        # before the token is looked at, and rightly: there is nothing more to list.
        left = server.lifecycle.connections
        await poll_async(
            lambda: not len(left) or (how == "tenant deleted" and not server.lifecycle.active),
            "they are cut",
        )
    await until(server, 401, bearer(secret))


async def test_too_many_requests_of_a_tenant(server: Server, database: Database) -> None:
    await database.put_tenant("a", max_requests_per_second=2)
    limited = {"X-Tenant": "a"}
    async with asyncio.timeout(SECONDS):
        while (
            answer := await server.ask("GET", "/get-value?key=k", headers=limited)
        ).status != 429:
            pass
    assert answer.json == problem("rate-limited", 429)
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["RateLimit-Policy"] == '"requests";q=2;w=1'
    assert answer.headers["RateLimit"] == '"requests";r=0;t=1'
    for target in ("/health-check", "/livez", "/v1/tenants", "/v1/tokens"):
        for _ in range(5):
            assert (await server.ask("GET", target, headers=limited)).status == 200
    assert (await server.ask("GET", "/get-value?key=k")).status == 404, "another tenant's"
    async with asyncio.timeout(SECONDS):
        while (await server.ask("GET", "/get-value?key=k", headers=limited)).status != 404:
            await asyncio.sleep(PAUSE_SECONDS)


async def test_a_server_for_other_machines_lets_nobody_in_while_open(
    cache: Cache, database: Database
) -> None:
    async with served(cache, web_settings(may_be_open=False)) as server:
        assert (await server.ask("GET", "/get-value?key=k")).status == 401
        assert (
            await server.ask("POST", "/v1/tokens", '{"name": "n", "scope": "admin"}')
        ).status == 401
        _, secret = await database.create_token("n", TokenScope.ADMIN)
        await until(server, 200, bearer(secret))
        await database.disable_tokens()
        await until(server, 401, bearer(secret))


async def test_a_body_is_not_read_without_a_token(server: Server, database: Database) -> None:
    await database.create_token("n", TokenScope.ADMIN)
    await until(server, 401, {})
    head: Any = {"Content-Length": "1000", "Expect": "100-continue"}
    async with server.wire() as wire:
        await wire.send(request("PUT", "/v1/values/k", None, head))
        assert (await wire.answer("PUT")).status == 401
