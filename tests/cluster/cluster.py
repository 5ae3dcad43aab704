"""A cluster under test: PostgreSQL and a promoter, a ring, nodes, and proxies between them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final, Self

from tests.app_server import READY_SECONDS
from tests.cluster.node import Node
from tests.cluster.promoter import Promoter
from tests.faults.http_client import HttpClient, NoAnswer, NotSent
from tests.faults.sealed_items import ItemCollector
from tests.servers import FaultProxy, MemcachedProcess, free_port

_MEMCACHEDS: Final = 3
_ANSWER_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.02
_COLLECT_SECONDS: Final = 0.1
_OPTIONS: Final = ("--cache-timeout", "0.1", "--write-timeout", "5", "--drain-timeout", "5")


class Connected:
    """A node and the proxies through which it reaches the other servers.

    Attributes:
        stores: in front of each PostgreSQL server, in the promoter's order.
        ring: in front of each memcached.
        away: how many faults keep the node from serving.
    """

    def __init__(
        self, ports: Sequence[int], ring: Sequence[str], options: Sequence[str], bug: str | None
    ) -> None:
        self.stores = [FaultProxy(f"127.0.0.1:{port}") for port in ports]
        self.ring = [FaultProxy(address) for address in ring]
        hosts = ",".join(proxy.address for proxy in self.stores)
        memcacheds = ",".join(proxy.address for proxy in self.ring)
        self._url = f"postgresql://tenantbase@{hosts}/tenantbase"
        self._options = ["--memcached", memcacheds, *_OPTIONS, *options]
        self._program = ["-m", "tests.cluster.server", *(["--break", bug] if bug else []), "--"]
        self.node = Node(self._url, *self._options, program=self._program)
        self.away = 0

    def start(self) -> None:
        """Start the node. If it ends because there is no primary, start it again, as systemd does."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                self.node.start()
                return
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
            self.node = Node(self._url, *self._options, port=self.port, program=self._program)

    def close(self) -> None:
        """Stop the node if it still runs."""
        self.node.close()

    @property
    def port(self) -> int:
        return self.node.port


class Cluster:
    """The servers of a torture test. An async context manager.

    Args:
        nodes: their number.
        options: further options of `tenantbase serve`.
        bug: planted in the nodes.

    Attributes:
        promoter: used by one fault at a time.
        collector: has the items that nodes sent to memcached.
    """

    def __init__(self, nodes: int, *options: str, bug: str | None = None) -> None:
        self.promoter = Promoter()
        self.ring = [MemcachedProcess(f"127.0.0.1:{free_port()}") for _ in range(_MEMCACHEDS)]
        ports = [server.port for server in self.promoter.servers]
        addresses = [memcached.address for memcached in self.ring]
        self.members = [Connected(ports, addresses, options, bug) for _ in range(nodes)]
        self.collector = ItemCollector()
        self._stack = AsyncExitStack()

    @property
    def ports(self) -> list[int]:
        return [member.port for member in self.members]

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, self.promoter)
            for memcached in self.ring:
                stack.enter_context(memcached)
            for member in self.members:
                for proxy in (*member.stores, *member.ring):
                    await stack.enter_async_context(proxy)
                stack.callback(member.close)
            # One after the other, because the first makes the tables.
            for member in self.members:
                await asyncio.to_thread(member.start)
            assert await self.serves(READY_SECONDS) is not None, "not all nodes serve"
            collecting = asyncio.create_task(self._collect())
            stack.callback(collecting.cancel)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def serves(self, seconds: float) -> float | None:
        """Wait until every node has written that no fault keeps from it.

        Returns:
            How many seconds it took; None: more than ``seconds``.
        """
        begin = time.monotonic()
        waiting = [_writes(member) for member in self.members]
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*waiting)
        except TimeoutError:
            return None
        return time.monotonic() - begin

    async def _collect(self) -> None:
        """Take what the proxies have received, so that their memory does not grow."""
        while True:
            await asyncio.sleep(_COLLECT_SECONDS)
            for member in self.members:
                for proxy in member.ring:
                    self.collector.collect(proxy)
                for proxy in member.stores:
                    proxy.received.clear()


async def _writes(member: Connected) -> None:
    """Wait until a node acknowledges a write, or a fault keeps it from that."""
    body = json.dumps({"key": "probe", "value": 1}).encode()
    async with HttpClient(member.port, _ANSWER_SECONDS) as client:
        while not member.away:
            try:
                if (await client.ask("POST", "/set-value", body)).status == 200:
                    return
            except (NotSent, NoAnswer):
                pass
            await asyncio.sleep(_LOOK_SECONDS)
