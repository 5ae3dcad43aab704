"""Behind HAProxy, with the project's configuration, while no node can serve as usual."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import wire
from tests.app_server import AppServer
from tests.cluster.node import Node
from tests.haproxy import HAProxy
from tests.interfaces.postgres.cluster import replicated
from tests.postgres import PostgresProcess
from tests.servers import MemcachedProcess, poll

pytestmark = pytest.mark.integration

_OPTIONS = ("--store-timeout", "0.5", "--read-timeout", "1", "--write-timeout", "2")
_STALE = {"Cache-Control": "max-stale=3600"}


class Front:
    """Two nodes behind HAProxy, and their database."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        primary, self.standby = stack.enter_context(replicated())
        memcached = stack.enter_context(MemcachedProcess())
        hosts = ",".join((primary.host, self.standby.host))
        url = f"postgresql://tenantbase@{hosts}/tenantbase"
        self.nodes = [
            stack.enter_context(Node(url, "--memcached", memcached.address, *_OPTIONS))
            for _ in range(2)
        ]
        self.haproxy = stack.enter_context(HAProxy(directory, *(node.port for node in self.nodes)))
        self.primary: PostgresProcess = primary
        poll(lambda: self.haproxy.up() == {"one", "two"}, "both nodes are up")

    def ask(self, method: str, path: str, **headers: str) -> wire.Answer:
        return wire.ask(self.haproxy.port, method, path, b"1" if method == "PUT" else None, headers)

    def remember(self, node: AppServer) -> None:
        """Read until the node knows that a copy in memcached is valid."""
        poll(
            lambda: node.ask("GET", "/v1/values/k").headers.get("X-Cache") == "HIT",
            "memcached has a copy",
        )


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with ExitStack() as stack:
        yield Front(stack, tmp_path)


def _is_refusal(answer: wire.Answer) -> bool:
    """Whether a program can tell that nothing was done, and when to try again."""
    return (
        answer.status == 503
        and answer.headers["Retry-After"] == "1"
        and answer.json["type"] == "urn:tenantbase:problem:store-unavailable"
    )


def test_without_a_standby_stale_reads_go_on(front: Front) -> None:
    assert front.ask("PUT", "/v1/values/k").status == 201
    for node in front.nodes:
        front.remember(node)
    front.standby.pause()
    poll(lambda: front.haproxy.up() == set(), "no node is healthy")
    for below in ("", "/kv"):
        for _ in front.nodes:
            stale = front.ask("GET", f"{below}/v1/values/k", **_STALE)
            assert (stale.status, stale.body, stale.headers["X-Cache"]) == (200, b"1", "STALE")
        assert _is_refusal(front.ask("GET", f"{below}/v1/values/k"))
    front.standby.resume()
    poll(lambda: front.haproxy.up() == {"one", "two"}, "both nodes are up again")
    assert front.ask("GET", "/v1/values/k").body == b"1"


def test_without_any_node_haproxy_says_when_to_try_again(front: Front) -> None:
    for node in front.nodes:
        node.kill()
    for method in ("GET", "PUT"):
        assert _is_refusal(front.ask(method, "/v1/values/k"))
    poll(lambda: front.haproxy.up() == set(), "no node is up")
    for method in ("GET", "PUT"):
        assert _is_refusal(front.ask(method, "/v1/values/k"))
