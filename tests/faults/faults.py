"""What is done to the servers: faults by name, each with its beginning and its end."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final

from tests.faults import frames
from tests.faults.cluster import Cluster, TorturedServer
from tests.faults.control import READ_STEPS, WRITE_STEPS
from tests.faults.excuses import Excuses
from tests.servers import FaultProxy

Fault = Callable[[Cluster, random.Random, Excuses], AbstractAsyncContextManager[None]]
_LONGEST_STOP: Final = 30.0
_SECOND: Final = 1_000_000_000


# memcached


@asynccontextmanager
async def _killed(cluster: Cluster, chance: random.Random, excuses: Excuses) -> AsyncIterator[None]:
    cluster.memcached.kill()
    yield
    await asyncio.to_thread(cluster.memcached.start)


@asynccontextmanager
async def _terminated(
    cluster: Cluster, chance: random.Random, excuses: Excuses
) -> AsyncIterator[None]:
    cluster.memcached.terminate()
    yield
    await asyncio.to_thread(cluster.memcached.start)


@asynccontextmanager
async def _stopped(
    cluster: Cluster, chance: random.Random, excuses: Excuses
) -> AsyncIterator[None]:
    cluster.memcached.pause()
    yield
    cluster.memcached.resume()


@asynccontextmanager
async def _flushed(
    cluster: Cluster, chance: random.Random, excuses: Excuses
) -> AsyncIterator[None]:
    await asyncio.to_thread(cluster.memcached.flush)
    yield
    await asyncio.to_thread(cluster.memcached.flush)


@asynccontextmanager
async def _resurrected(
    cluster: Cluster, chance: random.Random, excuses: Excuses
) -> AsyncIterator[None]:
    """Restarted, and back with what it once held."""
    await asyncio.to_thread(cluster.memcached.restart)
    async with _putting(cluster, lambda: cluster.collector.old(chance)):
        yield


@asynccontextmanager
async def _poisoned(
    cluster: Cluster, chance: random.Random, excuses: Excuses
) -> AsyncIterator[None]:
    """Filled with frames that nobody should believe, again and again."""
    collector = cluster.collector
    kinds = (collector.old, collector.swapped, collector.damaged, collector.foreign)
    async with _putting(cluster, lambda: chance.choice(kinds)(chance)):
        yield


@asynccontextmanager
async def _tiny(cluster: Cluster, chance: random.Random, excuses: Excuses) -> AsyncIterator[None]:
    """With so little memory that it evicts all the time."""
    await asyncio.to_thread(cluster.memcached.restart, "-m", "1", "-o", "slab_chunk_max=16384")
    yield
    await asyncio.to_thread(cluster.memcached.restart)


@asynccontextmanager
async def _putting(
    cluster: Cluster, chosen: Callable[[], list[tuple[bytes, bytes]]]
) -> AsyncIterator[None]:
    async def go_on() -> None:
        while True:
            with suppress(OSError):
                await asyncio.to_thread(frames.put, cluster.memcached.address, chosen())
            await asyncio.sleep(0.1)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


# The network between one server and memcached


def _proxied(begin: Callable[[FaultProxy, random.Random], Awaitable[None]]) -> Fault:
    @asynccontextmanager
    async def fault(
        cluster: Cluster, chance: random.Random, excuses: Excuses
    ) -> AsyncIterator[None]:
        proxy = chance.choice(cluster.proxies)
        await begin(proxy, chance)
        yield
        await proxy.pass_through()

    return fault


@asynccontextmanager
async def _cut_everywhere(
    cluster: Cluster, chance: random.Random, excuses: Excuses
) -> AsyncIterator[None]:
    """Answers are cut after every number of bytes in turn."""
    proxy = chance.choice(cluster.proxies)

    async def go_on() -> None:
        after = 0
        while True:
            await proxy.cut_after(after)
            await asyncio.sleep(0.02)
            after = (after + 1) % 400

    task = asyncio.create_task(go_on())
    yield
    task.cancel()
    await asyncio.wait([task])
    await proxy.pass_through()


# Workers and servers; never the first server, which is watched for its memory


def _victim(cluster: Cluster, chance: random.Random) -> TorturedServer:
    return chance.choice(cluster.servers[1:] or cluster.servers)


@asynccontextmanager
async def _worker_killed(
    cluster: Cluster, chance: random.Random, excuses: Excuses
) -> AsyncIterator[None]:
    server = _victim(cluster, chance)
    with excuses.all_of(server.port):
        os.kill(chance.choice(server.workers), signal.SIGKILL)
        await _revived(server)
        yield


@asynccontextmanager
async def _worker_stopped(
    cluster: Cluster, chance: random.Random, excuses: Excuses
) -> AsyncIterator[None]:
    server = _victim(cluster, chance)
    pid = chance.choice(server.workers)
    with excuses.all_of(server.port), excuses.writes():
        os.kill(pid, signal.SIGSTOP)
        yield
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def _server_killed(
    cluster: Cluster, chance: random.Random, excuses: Excuses
) -> AsyncIterator[None]:
    server = _victim(cluster, chance)
    with excuses.all_of(server.port):
        await asyncio.to_thread(server.kill)
        yield
        await asyncio.to_thread(server.start)


@asynccontextmanager
async def _server_drained(
    cluster: Cluster, chance: random.Random, excuses: Excuses
) -> AsyncIterator[None]:
    server = _victim(cluster, chance)
    with excuses.all_of(server.port):
        await asyncio.to_thread(server.stop)
        yield
        await asyncio.to_thread(server.start)


@asynccontextmanager
async def _all_restarted(
    cluster: Cluster, chance: random.Random, excuses: Excuses
) -> AsyncIterator[None]:
    """Everybody has gone for a moment, so the tag file is new."""
    with excuses.everything():
        await asyncio.gather(*(asyncio.to_thread(server.kill) for server in cluster.servers))
        for server in cluster.servers:
            await asyncio.to_thread(server.start)
        yield


def _at_step(action: str) -> Fault:
    @asynccontextmanager
    async def fault(
        cluster: Cluster, chance: random.Random, excuses: Excuses
    ) -> AsyncIterator[None]:
        step = chance.choice((*WRITE_STEPS, *WRITE_STEPS, *READ_STEPS))
        # Whoever comes to the step may be on any server. While it stands there it may hold the
        # write lock, so that no write of anybody ends.
        with excuses.everything() if action == "kill" else excuses.writes():
            cluster.control.arm(step, "kill" if action == "kill" else "stop")
            caught: list[int] = []
            for _ in range(100):
                await asyncio.sleep(0.02)
                caught = cluster.control.caught()
                if caught:
                    break
            cluster.control.disarm()
            servers = [cluster.owner_of(pid) for pid in caught]
            if action == "kill":
                for server in servers or cluster.servers:
                    if server is not None:
                        await _revived(server)
                yield
                return
            with excuses.all_of(*(server.port for server in servers if server is not None)):
                yield
                for pid in caught + cluster.control.caught():
                    os.kill(pid, signal.SIGCONT)

    return fault


async def _revived(server: TorturedServer) -> None:
    """Wait until there are as many workers as before, or start the server anew if it was alone."""
    for _ in range(500):
        await asyncio.sleep(0.02)
        if server.process.poll() is not None:
            await asyncio.to_thread(server.wait)
            await asyncio.to_thread(server.start)
            return
        if len(server.workers) >= server.worker_count:
            return
    raise AssertionError("a worker that was killed was not replaced")
