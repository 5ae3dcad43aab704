"""A cluster under test: PostgreSQL and a promoter, a ring, nodes, and proxies between them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Self

from tests.app_server import READY_SECONDS
from tests.cluster.clock import Clock
from tests.cluster.machines import RemoteMemcached, RemoteProxy, RemoteServer
from tests.cluster.network import Machine, Network
from tests.cluster.node import Node
from tests.cluster.promoter import NAMES, Promoter
from tests.cluster.steps import STEPS
from tests.faults.control import Control
from tests.faults.http_client import HttpClient, NoAnswer, NotSent
from tests.faults.sealed_items import ItemCollector
from tests.postgres import PostgresProcess
from tests.servers import FaultProxy, MemcachedProcess, free_port

_MEMCACHEDS: Final = 3
_START_SECONDS: Final = 600.0  # other faults may keep it from the database all the while
_ANSWER_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.02
_COLLECT_SECONDS: Final = 0.1
_OPTIONS: Final = ("--cache-timeout", "0.1", "--write-timeout", "5", "--drain-timeout", "5")
_BACKLOG: Final = 100
_FIRST_DESCRIPTOR: Final = 500
"""Of the nodes' listening sockets, high enough that no other file has it."""


class Connected:
    """A node and the proxies through which it reaches the other servers.

    Args:
        number: of the node, from 0.
        servers, ring: addresses of PostgreSQL's servers, and of memcacheds.
        options: further options of `tenantbase serve`.
        bug: planted in it.
        directory: for the files that control it.
        machine: where it runs; None: here.
        direct: it reaches PostgreSQL without proxies.

    Attributes:
        stores: in front of each PostgreSQL server, in the promoter's order; empty if it is direct.
        ring: in front of each memcached.
        control: stops it at steps of the protocol.
        clock: its own; None: that of this machine.
        away: how many faults keep the node from serving.
    """

    def __init__(
        self,
        number: int,
        servers: Sequence[str],
        ring: Sequence[str],
        options: Sequence[str],
        bug: str | None,
        directory: Path,
        machine: Machine | None = None,
        direct: bool = False,
    ) -> None:
        self.stores = [] if direct else [_proxy(machine, address) for address in servers]
        self.ring = [_proxy(machine, address) for address in ring]
        hosts = ",".join(servers if direct else [proxy.address for proxy in self.stores])
        memcacheds = ",".join(proxy.address for proxy in self.ring)
        self._url = f"postgresql://tenantbase@{hosts}/tenantbase"
        self._options = ["--memcached", memcacheds, *_OPTIONS, *options]
        self.control = Control(directory / str(number), STEPS)
        self._program = ["-m", "tests.cluster.server", "--control", str(self.control.directory)]
        self._program += [*(["--break", bug] if bug else []), "--"]
        self.machine = machine
        self.clock = None if machine is None else Clock()
        self.port = free_port()
        self._descriptor = _FIRST_DESCRIPTOR + number
        self.node = self._made()
        self.away = 0

    def start(self) -> None:
        """Start the node. If it ends because there is no primary, start it again, as systemd does."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._start()
                return
            except AssertionError:
                self.node = self._made()  # the one that failed is closed
                if time.monotonic() > deadline:
                    raise

    def close(self) -> None:
        """Stop the node if it still runs."""
        self.node.close()
        if self.clock is not None:
            self.clock.close()

    def _made(self) -> Node:
        options = [*self._options, "--listen", f"fd:{self._descriptor}"]
        environment = {} if self.clock is None else self.clock.environment
        node = Node(self._url, *options, program=self._program, environment=environment)
        node.descriptors = [self._descriptor]
        return node

    def _start(self) -> None:
        # Clients are not on the machine's network, so the socket is made here.
        with socket.create_server(("127.0.0.1", self.port), backlog=_BACKLOG) as listener:
            os.dup2(listener.fileno(), self._descriptor)
            try:
                spawn = self.node.spawn
                spawn() if self.machine is None else self.machine.run(spawn)
            finally:
                os.close(self._descriptor)
        self.node.await_ready()


def _proxy(machine: Machine | None, upstream: str) -> FaultProxy:
    return FaultProxy(upstream) if machine is None else RemoteProxy(machine, upstream)


class Cluster:
    """The servers of a torture test. An async context manager.

    Args:
        nodes: their number.
        options: further options of `tenantbase serve`.
        bug: planted in the nodes.
        network: everything gets a machine there, and the last of several nodes needs no proxies to
            PostgreSQL; None: everything is on this machine.

    Attributes:
        promoter: used by one fault at a time.
        operator: the promoter's machine.
        collector: has the items that nodes sent to memcached.
    """

    def __init__(
        self,
        nodes: int,
        *options: str,
        bug: str | None = None,
        network: Network | None = None,
    ) -> None:
        self.network = network
        self._directory = TemporaryDirectory(prefix="tb-cluster-")
        self.operator: Machine | None = None
        self.remote: list[RemoteServer] = []
        self.ring: list[MemcachedProcess] = []
        machines: list[Machine | None] = [None] * nodes
        if network is None:
            self.ring += [MemcachedProcess(f"127.0.0.1:{free_port()}") for _ in range(_MEMCACHEDS)]
        else:
            operator = self.operator = network.add("promoter")
            self.remote = [RemoteServer(network.add(name), operator) for name in NAMES]
            self.ring += [
                RemoteMemcached(network.add(f"memcached-{number}")) for number in range(_MEMCACHEDS)
            ]
            machines = [network.add(f"node-{number}") for number in range(nodes)]
        self.promoter = Promoter(*self.remote)
        servers = [server.host for server in self.promoter.servers]
        ring = [memcached.address for memcached in self.ring]
        self.members = [
            Connected(
                number,
                servers,
                ring,
                options,
                bug,
                Path(self._directory.name),
                machine,
                direct=machine is not None and number == nodes - 1 > 0,
            )
            for number, machine in enumerate(machines)
        ]
        self.collector = ItemCollector()
        self._stack = AsyncExitStack()

    @property
    def ports(self) -> list[int]:
        return [member.port for member in self.members]

    @property
    def proxied(self) -> list[Connected]:
        """The nodes that reach PostgreSQL through proxies."""
        return [member for member in self.members if member.stores]

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.callback(self._directory.cleanup)
            for member in self.members:
                stack.callback(member.close)
            await asyncio.to_thread(stack.enter_context, self.promoter)
            for memcached in self.ring:
                stack.enter_context(memcached)
            for member in self.members:
                for proxy in (*member.stores, *member.ring):
                    await stack.enter_async_context(proxy)
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
        waiting = [write(member) for member in self.members]
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


def machine_of(server: PostgresProcess | MemcachedProcess | Connected) -> Machine:
    """The machine of a server of a cluster that has a network."""
    assert isinstance(server, RemoteServer | RemoteMemcached | Connected)
    assert server.machine is not None
    return server.machine


async def write(member: Connected) -> None:
    """Repeat a write until the node acknowledges it, or a fault may keep the node from that."""
    body = json.dumps({"key": "probe", "value": 1}).encode()
    async with HttpClient(member.port, _ANSWER_SECONDS) as client:
        while not member.away:
            try:
                if (await client.ask("POST", "/set-value", body)).status == 200:
                    return
            except (NotSent, NoAnswer):
                pass
            await asyncio.sleep(_LOOK_SECONDS)
