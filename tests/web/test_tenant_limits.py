"""A tenant's limits: the same answers on both HTTP paths, with every header, and nothing done."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

from tenantbase.access import TokenScope
from tenantbase.coherence.policy import Cache
from tenantbase.database import Database
from tenantbase.json_requests import SetValue
from tenantbase.scope import Scope
from tests.service import Server, opened, served, service, web_settings
from tests.web.both_paths import answers, both_paths
from tests.web.corpus import LAST
from tests.web.table import Ask, problem
from tests.wire import SECONDS, Answer, request

TENANT: Final = "small"
VALUE: Final = "x" * 98  # 100 bytes with its quotes
OLD: Final = msgspec.Raw(json.dumps(VALUE).encode())
JSON_TYPE: Final = {"Content-Type": "application/json"}

# Each would add an entry.
GROWING: Final = {
    "set": Ask("POST", "/set-value", '{"key":"more","value":1}'),
    "set if absent": Ask("POST", "/set-value", '{"key":"more","value":1,"if_absent":true}'),
    "put": Ask("PUT", "/v1/values/more", "1", JSON_TYPE),
    "set many": Ask(
        "POST",
        "/set-values",
        '{"values":[{"key":"a","value":"%s"},{"key":"more","value":1}]}' % ("y" * 98),
    ),
    "increment": Ask("POST", "/increment-value", '{"key":"more"}'),
}
# Each keeps the number of entries, and the bytes or fewer.
ALLOWED: Final = {
    "the same size": Ask("POST", "/set-value", '{"key":"a","value":"%s"}' % ("y" * 98)),
    "smaller": Ask("PUT", "/v1/values/a", "1", JSON_TYPE),
    "an integer": Ask("POST", "/increment-value", '{"key":"a","by":8}'),
    "read": Ask("GET", "/get-value?key=a"),
    "delete": Ask("DELETE", "/delete-value?key=b"),
    "delete many": Ask("POST", "/delete-values", '{"keys":["a"]}'),
}
# What counts against a rate: both paths answer some of these.
COUNTED: Final = {
    "get": Ask("GET", "/get-value?key=a"),
    "raw": Ask("GET", "/v1/values/a"),
    "set": Ask("POST", "/set-value", '{"key":"a","value":1}'),
    "delete": Ask("DELETE", "/delete-value?key=a"),
    "put": Ask("PUT", "/v1/values/a", "1"),
    "list": Ask("GET", "/v1/values"),
    "bulk": Ask("POST", "/get-values", '{"keys":["a"]}'),
    "watch": Ask("HEAD", "/v1/watch"),
    "whoami": Ask("GET", "/v1/whoami"),
    "invalid": Ask("POST", "/set-value", "{"),
    "no route": Ask("GET", "/nowhere"),
}


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[Cache]:
    async with opened(tmp_path / "x.db") as cache:
        yield cache


@pytest.fixture
def database(cache: Cache) -> Database:
    return service(cache, web_settings())


async def token(database: Database, **limits: int) -> dict[str, str]:
    """Make a tenant with two entries of 101 bytes and these limits. Returns: headers for it."""
    await database.put_tenant(TENANT)
    for key in ("a", "b"):
        await database.set(Scope(TENANT), SetValue(key, OLD))
    await database.put_tenant(TENANT, **limits)
    _, secret = await database.create_token("t", TokenScope.WRITE, TENANT)
    return {"Authorization": f"Bearer {secret}"}


async def sent(server: Server, ask: Ask, headers: dict[str, str]) -> Answer:
    return await server.ask(ask.method, ask.target, ask.body, {**dict(ask.headers), **headers})


@pytest.mark.parametrize("limit", ["max_entries", "max_bytes"])
async def test_a_write_over_a_quota_is_refused_whole(
    cache: Cache, database: Database, limit: str
) -> None:
    headers = await token(database, **{limit: 2 if limit == "max_entries" else 202})
    async with both_paths(cache) as ports:
        for name, ask in GROWING.items():
            data = request(ask.method, ask.target, ask.body, {**dict(ask.headers), **headers})
            fast, general = [await answers(port, [data + LAST]) for port in ports]
            assert fast == general, name
    for fast_path in (True, False):
        async with served(cache, web_settings(fast_path=fast_path)) as server:
            for name, ask in GROWING.items():
                refused = await sent(server, ask, headers)
                assert refused.status == 507, name
                assert refused.json == problem("quota-exceeded", 507, limit=limit), name
                assert refused.headers["Content-Type"] == "application/problem+json"
                assert refused.headers["Cache-Control"] == "private, no-cache"
                assert "Retry-After" not in refused.headers, "waiting does not help"
            kept = await sent(server, Ask("GET", "/get-values"), headers)
            assert {each["key"]: each["value"] for each in kept.json["values"]} == {
                "a": VALUE,
                "b": VALUE,
            }
    async with served(cache) as server:
        for name, ask in ALLOWED.items():
            assert (await sent(server, ask, headers)).status < 300, name


async def test_a_request_over_a_rate_is_refused_whatever_it_asks(
    cache: Cache, database: Database
) -> None:
    headers = await token(database, max_requests_per_second=1)
    for fast_path in (True, False):
        async with served(cache, web_settings(fast_path=fast_path)) as server:
            for name, ask in COUNTED.items():
                async with asyncio.timeout(SECONDS):  # one of them is allowed in each second
                    while (refused := await sent(server, ask, headers)).status != 429:
                        pass
                if ask.method != "HEAD":
                    assert refused.json == problem("rate-limited", 429), name
                assert refused.headers["Content-Type"] == "application/problem+json"
                assert refused.headers["Cache-Control"] == "private, no-cache"
                assert refused.headers["Retry-After"] == "1"
                assert refused.headers["RateLimit-Policy"] == '"requests";q=1;w=1'
                assert refused.headers["RateLimit"] == '"requests";r=0;t=1'
