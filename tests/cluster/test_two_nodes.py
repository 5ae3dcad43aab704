"""Over HTTP, a change made at one node shows at the other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from http.client import HTTPConnection

import pytest

from tests.app_server import AppServer
from tests.cluster.node import Node
from tests.postgres import PostgresProcess
from tests.servers import READY_SECONDS, MemcachedProcess, poll

pytestmark = pytest.mark.integration

# Two workers each: every process is a node of its own.
_OPTIONS = ("--store-unreplicated", "--workers", "2", "--store-timeout", "30")
_TIMEOUTS = ("--read-timeout", "30", "--write-timeout", "30")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Sequence[AppServer]]:
    with PostgresProcess() as postgres, MemcachedProcess() as memcached:
        options = (*_OPTIONS, *_TIMEOUTS, "--memcached", memcached.address)
        with Node(postgres.url(), *options) as one, Node(postgres.url(), *options) as two:
            yield one, two


def watched(node: AppServer, prefix: str, last: str = "") -> Iterator[tuple[str, str]]:
    """The ids and keys of events. The first one is empty: the watch has begun."""
    connection = HTTPConnection("127.0.0.1", node.port, timeout=READY_SECONDS)
    try:
        headers = {"Last-Event-ID": last} if last else {}
        connection.request("GET", f"/v1/watch?prefix={prefix}", headers=headers)
        stream = connection.getresponse()
        yield "", ""
        number = ""
        while line := stream.readline():
            name, _, text = line.decode().rstrip("\n").partition(": ")
            if name == "id":
                number = text
            elif name == "data":
                yield number, json.loads(text)["key"]
    finally:
        connection.close()


def test_a_watch_resumes_at_the_other_node(nodes: Sequence[AppServer]) -> None:
    one, two = nodes
    events = watched(one, "w/")
    next(events)
    for number in range(2):
        two.ask("PUT", f"/v1/values/w/{number}", b"x")
    seen = [next(events), next(events)]
    events.close()  # type: ignore[attr-defined]
    for number in range(2, 5):
        one.ask("PUT", f"/v1/values/w/{number}", b"x")
    events = watched(two, "w/", last=seen[-1][0])
    next(events)
    seen += [next(events) for _ in range(3)]
    assert [key for _, key in seen] == [f"w/{number}" for number in range(5)]


def _is_hit(node: AppServer) -> bool:
    return node.ask("GET", "/v1/values/k").headers["X-Cache"] == "HIT"


def test_max_stale_needs_no_question(nodes: Sequence[AppServer]) -> None:
    one, two = nodes
    one.ask("PUT", "/v1/values/k", b"1")
    for node in nodes:
        poll(partial(_is_hit, node), "it is found in memcached")
    stale = {"Cache-Control": "max-stale=3600"}
    poll(
        lambda: two.ask("GET", "/v1/values/k", None, stale).headers["X-Cache"] == "STALE",
        "whichever worker answers has asked before",
    )
    assert one.ask("GET", "/v1/values/k", None, {"Cache-Control": "no-cache"}).body == b"1"


def test_a_quota_counts_at_all_nodes(nodes: Sequence[AppServer]) -> None:
    one, two = nodes
    limits = b'{"max_entries": 2}'
    assert one.ask("PUT", "/v1/tenants/acme", limits).status == 201
    statuses: list[int] = []

    def answered(node: AppServer, method: str, key: str, body: bytes | None) -> bool:
        answer = node.ask(method, f"/v1/values/{key}", body, {"X-Tenant": "acme"})
        if b"no-such-tenant" in answer.body:
            return False
        statuses.append(answer.status)
        return True

    for node, method, key, body in [
        (one, "PUT", "1", b"x"),
        (two, "PUT", "2", b"x"),
        (one, "PUT", "3", b"x"),
        (two, "PUT", "3", b"x"),
        (two, "DELETE", "1", None),
        (one, "PUT", "3", b"x"),
    ]:
        # Workers read the tenants once a second.
        poll(partial(answered, node, method, key, body), "the worker knows the tenant")
    assert statuses == [201, 201, 507, 507, 204, 201]


def test_a_rate_counts_at_each_node(nodes: Sequence[AppServer]) -> None:
    one, two = nodes
    assert one.ask("PUT", "/v1/tenants/slow", b'{"max_requests_per_second": 1}').status == 201
    slow = {"X-Tenant": "slow"}

    def limited(node: AppServer) -> bool:
        refused = node.ask("GET", "/v1/values/x", None, slow)
        return refused.status == 429 and "RateLimit" in refused.headers

    for node in nodes:
        poll(partial(limited, node), "its requests are limited")


def test_a_token_counts_at_all_nodes(nodes: Sequence[AppServer]) -> None:
    """The last test of its module: afterwards the database is closed."""
    one, two = nodes
    made = one.ask("POST", "/v1/tokens", b'{"name": "operator", "scope": "admin"}').json
    admin = {"Authorization": f"Bearer {made['token']}"}

    def admitted(node: AppServer, headers: dict[str, str]) -> set[int]:
        # On connections of their own, so that both workers are asked.
        return {node.ask("GET", "/v1/values/none", None, headers).status for _ in range(12)}

    for node in nodes:
        poll(lambda: admitted(node, {}) == {401}, "it is closed")  # noqa: B023
        poll(lambda: admitted(node, admin) == {404}, "the operator may")  # noqa: B023
    made = two.ask("POST", "/v1/tokens", b'{"name": "r", "scope": "read"}', admin).json
    reader = {"Authorization": f"Bearer {made['token']}"}
    poll(lambda: admitted(one, reader) == {404}, "the reader may")
    assert two.ask("DELETE", f"/v1/tokens/{made['id']}", None, admin).status == 204
    poll(lambda: admitted(one, reader) == {401}, "it is revoked")
