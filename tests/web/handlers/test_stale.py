"""``Cache-Control: max-stale`` on a database that several machines share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tenantbase.coherence.shared import shared_cache
from tenantbase.errors import StoreUnavailable
from tests.fake_cluster import FakeCluster, FakeSharedStore
from tests.ring import Ring
from tests.servers import MemcachedProcess
from tests.service import Server, served
from tests.web.conftest import Start

STALE = {"Cache-Control": "max-stale=60"}


@pytest.fixture
def store() -> FakeSharedStore:
    return FakeSharedStore(FakeCluster())


@pytest.fixture
async def server(store: FakeSharedStore) -> AsyncIterator[Server]:
    async with served(shared_cache(store, Ring())) as server:
        await server.ask("PUT", "/v1/values/k", b"1", {"Content-Type": "text/plain"})
        await server.ask("GET", "/v1/values/k")  # confirms an index
        yield server


READS = [
    pytest.param("GET", "/get-value?key=k", None, "STALE", id="value"),
    pytest.param("GET", "/v1/values/k", None, "STALE", id="raw"),
    pytest.param("HEAD", "/v1/values/k", None, "STALE", id="head"),
    pytest.param("POST", "/get-values", b'{"keys": ["k"]}', None, id="bulk"),
]


@pytest.mark.parametrize(("method", "target", "body", "status"), READS)
async def test_stale_copy_is_used_without_asking(
    server: Server,
    store: FakeSharedStore,
    method: str,
    target: str,
    body: bytes | None,
    status: str | None,
) -> None:
    asked = len(store.asked)
    answer = await server.ask(method, target, body, STALE)
    assert answer.status == 200
    assert answer.headers.get("x-cache") == status
    assert len(store.asked) == asked
    assert (await server.ask(method, target, body)).status == 200
    assert len(store.asked) == asked + 1


@pytest.mark.parametrize(("method", "target", "body", "status"), READS)
async def test_stale_copy_is_used_without_a_primary(
    server: Server,
    store: FakeSharedStore,
    method: str,
    target: str,
    body: bytes | None,
    status: str | None,
) -> None:
    store.read_error = StoreUnavailable("no primary")
    assert (await server.ask(method, target, body, STALE)).status == 200
    refused = await server.ask("GET", "/v1/values/k")
    assert (refused.status, "retry-after" in refused.headers) == (503, True)


async def test_no_cache_wins(server: Server) -> None:
    headers = {"Cache-Control": "max-stale=60, no-cache"}
    answer = await server.ask("GET", "/v1/values/k", headers=headers)
    assert answer.headers["x-cache"] == "BYPASS"


async def test_database_file_is_never_stale(start: Start, memcached: MemcachedProcess) -> None:
    async with start(memcached=memcached) as server:
        await server.ask("PUT", "/v1/values/k", b"1")
        answers = [await server.ask("GET", "/v1/values/k", headers=STALE) for _ in range(2)]
    assert [answer.headers["x-cache"] for answer in answers] == ["HIT", "HIT"]
