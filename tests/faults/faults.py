"""The faults by name. Each is a context manager, whose block runs while the fault lasts."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from typing import Final

from tests.faults import guests, hostile, sealed_items
from tests.faults.cluster import Cluster, Memcached, TorturedServer, in_thread
from tests.faults.control import STEPS, Action
from tests.faults.scene import Scene
from tests.servers import FaultProxy

Fault = Callable[[Scene, random.Random], AbstractAsyncContextManager[None]]


# memcached: one of several, if there are


@asynccontextmanager
async def _killed(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    memcached = chance.choice(scene.cluster.memcacheds)
    memcached.kill()
    yield
    await in_thread(memcached.start)


@asynccontextmanager
async def _terminated(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    memcached = chance.choice(scene.cluster.memcacheds)
    memcached.terminate()
    yield
    await in_thread(memcached.start)


@asynccontextmanager
async def _stopped(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    memcached = chance.choice(scene.cluster.memcacheds)
    memcached.pause()
    yield
    memcached.resume()


@asynccontextmanager
async def _flushed(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    memcached = chance.choice(scene.cluster.memcacheds)
    await in_thread(memcached.flush)
    yield
    await in_thread(memcached.flush)


@asynccontextmanager
async def _resurrected(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """memcached is restarted, and old items are put back."""
    memcached = chance.choice(scene.cluster.memcacheds)
    await in_thread(memcached.restart)
    async with _putting(memcached, lambda: scene.cluster.collector.old(chance)):
        yield


@asynccontextmanager
async def _poisoned(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """memcached is filled again and again with items that must be rejected."""
    memcached = chance.choice(scene.cluster.memcacheds)
    collector = scene.cluster.collector
    kinds = (collector.old, collector.swapped, collector.damaged, collector.foreign)
    async with _putting(memcached, lambda: chance.choice(kinds)(chance)):
        yield


@asynccontextmanager
async def _tiny(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """memcached has little memory and foreign items in it, so it evicts all the time."""
    memcached = chance.choice(scene.cluster.memcacheds)
    await in_thread(memcached.restart_with, "-m", "2")
    async with _putting(memcached, lambda: sealed_items.filling(chance)):
        yield
    await in_thread(memcached.restart_with)


@asynccontextmanager
async def _putting(
    memcached: Memcached, chosen: Callable[[], list[tuple[bytes, bytes]]]
) -> AsyncIterator[None]:
    async def go_on() -> None:
        while True:
            with suppress(OSError):
                await in_thread(sealed_items.put, memcached.address, chosen())
            await asyncio.sleep(0.02)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


# The network between one server and memcached, or between all servers and one of several


def _proxied(begin: Callable[[FaultProxy, random.Random], Awaitable[None]]) -> Fault:
    @asynccontextmanager
    async def fault(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
        proxy = chance.choice(scene.cluster.proxies)
        await begin(proxy, chance)
        yield
        await proxy.pass_through()

    return fault


@asynccontextmanager
async def _cut_everywhere(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Connections are cut after an answer's first byte, then its second, and so on."""
    proxy = chance.choice(scene.cluster.proxies)

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


# Workers and servers, but never the first server, whose memory is watched


def _victim(cluster: Cluster, chance: random.Random) -> TorturedServer:
    return chance.choice(cluster.servers[1:] or cluster.servers)


@asynccontextmanager
async def _worker_killed(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    server = _victim(scene.cluster, chance)
    with scene.excuses.all_of(server.port):
        pid = chance.choice(server.workers)
        os.kill(pid, signal.SIGKILL)
        await _revived(server, [pid])
    yield


@asynccontextmanager
async def _worker_stopped(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    server = _victim(scene.cluster, chance)
    pid = chance.choice(server.workers)
    with scene.excuses.all_of(server.port), scene.excuses.writes():
        os.kill(pid, signal.SIGSTOP)
        yield
        _go_on(pid)


@asynccontextmanager
async def _server_killed(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    server = _victim(scene.cluster, chance)
    with scene.excuses.all_of(server.port):
        await in_thread(server.kill)
        yield
        await in_thread(server.start)


@asynccontextmanager
async def _server_drained(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    server = _victim(scene.cluster, chance)
    with scene.excuses.all_of(server.port):
        await in_thread(server.stop)
        yield
        await in_thread(server.start)


@asynccontextmanager
async def _all_restarted(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """All processes are gone for a moment, so the tag file is rewritten."""
    with scene.excuses.everything():
        await asyncio.gather(*(in_thread(server.kill) for server in scene.cluster.servers))
        for server in scene.cluster.servers:
            await in_thread(server.start)
        yield


@asynccontextmanager
async def _killed_at_step(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """A worker dies at a step of the protocol."""
    with scene.excuses.everything():
        pids = await _catch(scene.cluster, chance.choice(STEPS), "kill")
        for server in scene.cluster.servers:
            await _revived(server, pids)
    yield


@asynccontextmanager
async def _stopped_at_step(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """A worker is stopped at a step of the protocol."""
    # It may hold the write lock, which blocks all writes.
    with scene.excuses.writes():
        pids = await _catch(scene.cluster, chance.choice(STEPS), "stop")
        ports = [server.port for server in scene.cluster.servers if {*server.workers} & {*pids}]
        with scene.excuses.all_of(*ports):
            yield
            for pid in pids:
                _go_on(pid)


def _go_on(pid: int) -> None:
    """Let a stopped worker continue, unless its supervisor has taken it for hung and replaced it."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


async def _catch(cluster: Cluster, step: str, action: Action) -> list[int]:
    """Arm a failpoint for two seconds. Returns: the process that reached it, if one did."""
    cluster.control.arm(step, action)
    pids: list[int] = []
    deadline = time.monotonic() + 2.0
    while not pids and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
        pids = cluster.control.caught()
    cluster.control.disarm()
    return pids or cluster.control.caught()


async def _revived(server: TorturedServer, killed: Collection[int]) -> None:
    """Wait until killed workers are replaced; restart a server that has ended."""
    deadline = time.monotonic() + 30.0
    while True:
        if server.process.poll() is not None:
            await in_thread(server.wait)
            await in_thread(server.start)
            return
        workers = server.workers
        if len(workers) >= server.worker_count and not {*workers} & {*killed}:
            return
        assert time.monotonic() < deadline, "a worker that was killed was not replaced"
        await asyncio.sleep(0.02)


# Time


@asynccontextmanager
async def _clock_moved(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """The wall clock jumps forward or back, by a second or by days."""
    with ExitStack() as stack:
        for referee in (scene.referee, *scene.others):
            stack.enter_context(referee.wrong_clocks())
        scene.cluster.control.clock_error = chance.choice((-1, 1)) * 10 ** chance.uniform(0, 5.5)
        yield
        scene.cluster.control.clock_error = 0.0


@asynccontextmanager
async def _dawdling(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Steps of the protocol take longer at random, so that rare interleavings become common."""
    with scene.excuses.slowness():
        scene.cluster.control.dawdle(chance.uniform(0.02, 0.3), chance.uniform(0.005, 0.2))
        yield
        scene.cluster.control.dawdle(0.0, 0.0)


LANES: Final[dict[str, dict[str, Fault]]] = {
    "cache": {
        "cache-kill": _killed,
        "cache-end": _terminated,
        "cache-stop": _stopped,
        "cache-flush": _flushed,
        "cache-resurrect": _resurrected,
        "cache-poison": _poisoned,
        "cache-tiny": _tiny,
    },
    "net": {
        "net-hang": _proxied(lambda proxy, chance: proxy.hang()),
        "net-delay": _proxied(lambda proxy, chance: proxy.delay(chance.uniform(0.001, 0.3))),
        "net-drip": _proxied(lambda proxy, chance: proxy.drip(0.001)),
        "net-cut": _proxied(lambda proxy, chance: proxy.cut_after(chance.randrange(2_000))),
        "net-cut-everywhere": _cut_everywhere,
        "net-reset": _proxied(lambda proxy, chance: proxy.reset()),
        "net-refuse": _proxied(lambda proxy, chance: proxy.refuse()),
    },
    "process": {
        "process-kill": _worker_killed,
        "process-stop": _worker_stopped,
        "process-kill-server": _server_killed,
        "process-drain-server": _server_drained,
        "process-restart-all": _all_restarted,
        "process-kill-at-step": _killed_at_step,
        "process-stop-at-step": _stopped_at_step,
    },
    "disk": {
        "disk-kill-at-call": guests.killed_at_call,
        "disk-sync-fails": guests.sync_failed,
        "disk-full": guests.disk_full,
    },
    "client": {
        "client-pipelines-unread": hostile.pipelines_unread,
        "client-holds-bodies-back": hostile.bodies_held_back,
        "client-says-nothing": hostile.silent_connections,
        "client-half-closes": hostile.half_closed,
        "client-sends-odd-requests": hostile.odd_requests,
        "client-reads-damaged-row": hostile.damaged_row,
    },
    "time": {
        "time-jump": _clock_moved,
        "time-dawdle": _dawdling,
    },
}
"""The faults, by lane. The faults of one lane take turns; different lanes overlap."""
