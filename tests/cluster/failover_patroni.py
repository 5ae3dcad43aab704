"""Patroni replaces a primary that dies with its machine; nothing that was acknowledged is lost.

Not part of the regular tests, because it takes a minute or two. Run it with
``scripts/test tests/cluster/failover_patroni.py``.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.node import Node
from tests.cluster.patroni import DEPLOYED, Etcd, Patroni, primary_of
from tests.postgres import make_directory
from tests.servers import MemcachedProcess, free_port, poll

pytestmark = [pytest.mark.torture, pytest.mark.timeout(600)]

_TTL_SECONDS = 20.0
_MORE_SECONDS = 40.0  # to elect, to promote, to join again; with much to spare on a busy machine


class Cluster:
    """Patroni's members, and two nodes on them."""

    def __init__(self, stack: ExitStack) -> None:
        etcd = stack.enter_context(Etcd(_directory(stack)))
        self.members = [
            stack.enter_context(Patroni(name, _directory(stack), etcd.port))
            for name in ("one", "two", "three")
        ]
        primary_of(self.members)
        hosts = ",".join(member.host for member in self.members)
        url = f"postgresql://tenantbase@{hosts}/tenantbase"
        memcached = stack.enter_context(MemcachedProcess(f"127.0.0.1:{free_port()}"))
        self.nodes = [Node(url, "--memcached", memcached.address) for _ in range(2)]
        for node in self.nodes:
            stack.enter_context(node)

    def write(self, number: int) -> bool:
        """Append a number through one of the nodes. Returns: whether it was acknowledged."""
        node = self.nodes[number % len(self.nodes)]
        body = json.dumps({"key": f"n{number}", "value": number}).encode()
        return node.ask("POST", "/set-value", body).status == 200

    def has(self, number: int) -> bool:
        """Whether all nodes have a number."""
        return all(
            node.ask("GET", f"/get-value?key=n{number}").json.get("value") == number
            for node in self.nodes
        )


def _directory(stack: ExitStack) -> Path:
    directory = make_directory()
    stack.callback(shutil.rmtree, directory)
    return directory


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(stack)


def test_the_deployed_ttl() -> None:
    assert f"ttl: {_TTL_SECONDS:.0f}\n" in DEPLOYED.read_text()


def test_a_dead_primary_is_replaced(cluster: Cluster) -> None:
    acknowledged = [number for number in range(200) if cluster.write(number)]
    assert len(acknowledged) == 200
    dead = primary_of(cluster.members)
    dead.kill()
    numbers = iter(range(200, 100_000))

    def written() -> bool:
        number = next(numbers)
        if cluster.write(number):
            acknowledged.append(number)
            return True
        time.sleep(0.1)  # a refused write is answered at once
        return False

    poll(written, "a write is acknowledged again", _TTL_SECONDS + _MORE_SECONDS)
    successor = primary_of([member for member in cluster.members if member is not dead])
    assert successor is not dead
    poll(lambda: all(map(cluster.has, acknowledged)), "nothing is lost", _MORE_SECONDS)
