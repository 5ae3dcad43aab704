"""A small torture test: servers in one process, for runs of a second. It has the same parts, steps,
clients, faults and checks as the large one, but a single process, so nothing can be killed.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tenantbase.process.sweeper import sweeping
from tests.faults.client import Client, Config, keys_of
from tests.faults.cluster import CACHE_SECONDS, Cluster
from tests.faults.excuses import Excuses
from tests.faults.faults import LANES
from tests.faults.planted import plant
from tests.faults.referee import Referee
from tests.faults.scene import Scene
from tests.faults.stepped import Parts, stepped
from tests.service import opened, served, web_settings

_SLICE: Final = 0.7
_RESTART: Final = 0.5
_SETTLE: Final = 0.01


@dataclass(frozen=True)
class Hunt:
    """The plan that exposes a bug.

    Attributes:
        faults: all of them run all the time.
        steps: the steps of the protocol to delay.
        longest: the longest delay in seconds.
        restarts: whether all servers restart at intervals.
    """

    faults: Sequence[str] = ()
    steps: Collection[str] = ()
    longest: float = 0.03
    restarts: bool = False


async def hunt(plan: Hunt, *, seed: int, seconds: float, bug: str | None) -> list[str]:
    """Torture servers until something is found or the time is up. Returns: the findings."""
    with tempfile.TemporaryDirectory(prefix="tenantbase-small-") as directory:
        async with AsyncExitStack() as stack:
            cluster = await stack.enter_async_context(
                Cluster(Path(directory).resolve(), servers=0, proxies=1)
            )
            cluster.control.dawdle(0.5 if plan.steps else 0.0, plan.longest, plan.steps)
            parts = stepped(plant(Parts(), bug), cluster.control)
            stack.enter_context(parts.installed(cluster.control))
            pool = stack.enter_context(ThreadPoolExecutor(1))
            return await _hunt(plan, cluster, pool, seed, seconds)


async def _hunt(
    plan: Hunt, cluster: Cluster, pool: ThreadPoolExecutor, seed: int, seconds: float
) -> list[str]:
    nodes = [_Node(cluster, address) for address in _addresses(cluster)]
    for node in nodes:
        await node.open()
    begin = time.monotonic()
    referee = Referee(lambda _: None, int(begin * 1e9), _SLICE, pool)
    scene = Scene(
        cluster, Excuses(), lambda: keys_of(int((time.monotonic() - begin) / _SLICE)), referee
    )
    clients = _clients(nodes, seed, begin, seconds)
    async with AsyncExitStack() as stack:
        for fault in plan.faults:
            lane = next(faults for faults in LANES.values() if fault in faults)
            await stack.enter_async_context(lane[fault](scene, random.Random(f"{seed} {fault}")))
        working = [asyncio.create_task(client.run()) for client in clients]
        restarted = time.monotonic()
        while not referee.violations and not all(task.done() for task in working):
            await asyncio.sleep(0.1)
            _tell(clients, referee)
            for number in referee.complete():
                await referee.check(number, [node.port for node in nodes])
            if plan.restarts and time.monotonic() > restarted + _RESTART:
                await _restart(nodes, clients)
                restarted = time.monotonic()
        for task in working:
            task.cancel()
        outcomes = await asyncio.gather(*working, return_exceptions=True)
    for node in nodes:
        await node.close()
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return referee.violations


def _addresses(cluster: Cluster) -> list[str]:
    return [cluster.memcached.address, *(proxy.address for proxy in cluster.proxies)]


def _clients(nodes: Sequence[_Node], seed: int, begin: float, seconds: float) -> list[Client]:
    config = Config(
        name="s",
        ports=[node.port for node in nodes],
        seed=seed,
        clients=16,
        readers=8,
        begin=begin,
        seconds=seconds,
        slice_seconds=_SLICE,
        pause=0.001,
    )
    seen: dict[str, int] = {}
    return [Client(config, n, seen) for n in range(config.clients)]


def _tell(clients: Sequence[Client], referee: Referee) -> None:
    referee.told(None, min(time.monotonic_ns(), *(client.busy_since for client in clients)))
    for client in clients:
        referee.hear(client.done)
        client.done.clear()


async def _restart(nodes: Sequence[_Node], clients: Sequence[Client]) -> None:
    """Close all servers, some with requests in flight, and open them again."""
    # asyncio loses a connection that it accepts at the very moment its server closes, and warns
    # when the garbage collector finds it. So clients open no connections then.
    for client in clients:
        client.go_on.clear()
    await asyncio.sleep(_SETTLE)
    for node in nodes:
        await node.close()
    for node in nodes:
        await node.open()
    for client in clients:
        client.go_on.set()


class _Node:
    """A server in this process, on a fixed port."""

    def __init__(self, cluster: Cluster, memcached: str) -> None:
        self._database = cluster.database
        self._memcached = memcached
        self._stack = AsyncExitStack()
        self.port = 0

    async def open(self) -> None:
        cache = await self._stack.enter_async_context(
            opened(
                self._database,
                self._memcached,
                cache_timeout=CACHE_SECONDS,
                drain_timeout=0.2,
                # After this timeout, closing would exit the process, and the tests with it.
                write_timeout=3600.0,
            )
        )
        await self._stack.enter_async_context(sweeping(cache))
        settings = web_settings(drain_timeout=0.2)
        server = await self._stack.enter_async_context(served(cache, settings, port=self.port))
        self.port = server.port

    async def close(self) -> None:
        await self._stack.aclose()
