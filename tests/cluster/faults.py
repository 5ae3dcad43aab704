"""The faults of a cluster by name. Each is a context manager, whose block runs while it lasts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import cycle
from typing import Final

from tests.cluster import clocks, full_disk, losing, partitions, stopping
from tests.cluster.cluster import Connected
from tests.cluster.scene import Fault, Scene, repeating
from tests.faults import sealed_items
from tests.servers import FaultProxy

_STEP_SECONDS: Final = 0.05
_ENDS: Final = ("pg_cancel_backend", "pg_terminate_backend")
_ENDED_BY: Final = "SELECT {}(pid) FROM pg_stat_activity WHERE {}"
_LARGEST_ANSWER_BYTES: Final = 600


# The primary. It is deposed in all of these, and its successor has a standby before the fault ends.


@asynccontextmanager
async def _promoted(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """The standby is promoted under load. The deposed primary goes on answering."""
    with scene.excuses.everything():
        await scene.changed("promotion", scene.cluster.promoter.fail_over)
    yield


@asynccontextmanager
async def _primary_killed(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    promoter = scene.cluster.promoter
    with scene.excuses.everything():
        await asyncio.to_thread(promoter.primary.kill)
        await asyncio.sleep(chance.uniform(0, 1))
        await scene.changed("primary killed", promoter.fail_over)
    yield


@asynccontextmanager
async def _primary_stopped(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """The primary is stopped, deposed, and continued: it believes that it still is the primary."""
    promoter = scene.cluster.promoter
    stopped = promoter.primary
    with scene.excuses.everything():
        await asyncio.to_thread(stopped.pause)
        await asyncio.sleep(chance.uniform(0, 3))
        await scene.changed("primary stopped", promoter.fail_over)
    yield
    await asyncio.to_thread(stopped.resume)


@asynccontextmanager
async def _primary_cut_off(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Some nodes lose the primary, others its successor: each believes another one."""
    promoter, members = scene.cluster.promoter, scene.cluster.members
    deposed = promoter.servers.index(promoter.primary)
    async with AsyncExitStack() as stack:
        stack.enter_context(scene.excuses.everything())
        behind = chance.sample(members, chance.randrange(1, max(2, len(members))))
        for member in members:
            for number, proxy in enumerate(member.stores):
                if (number == deposed) != (member in behind):
                    await proxy.stall()
                    stack.push_async_callback(proxy.pass_through)
        await asyncio.to_thread(promoter.fail_over)
        yield
        await stack.aclose()
    await scene.changed("primary cut off", lambda: None)


@asynccontextmanager
async def _primary_restarted(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """The primary crashes and recovers: commits that waited for the standby become visible."""
    primary = scene.cluster.promoter.primary
    with scene.excuses.everything():
        await scene.changed("primary restarted", primary.restart)
    yield


# The standby


@asynccontextmanager
async def _standby_killed(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    promoter = scene.cluster.promoter
    with scene.excuses.everything():
        assert promoter.candidate is not None
        await asyncio.to_thread(promoter.candidate.kill)
        await asyncio.sleep(chance.uniform(0, 2))
        await scene.changed("standby killed", promoter.replace_standby)
    yield


@asynccontextmanager
async def _standby_stopped(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """The standby is stopped for a while, and stays the standby: nothing is acknowledged."""
    standby = scene.cluster.promoter.candidate
    assert standby is not None
    with scene.excuses.everything():
        await asyncio.to_thread(standby.pause)
        yield
        await scene.changed("standby stopped", standby.resume)


@asynccontextmanager
async def _standby_stopped_and_replaced(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    promoter = scene.cluster.promoter
    stopped = promoter.candidate
    assert stopped is not None
    with scene.excuses.everything():
        await asyncio.to_thread(stopped.pause)
        await scene.changed("standby replaced", promoter.replace_standby)
    yield
    await asyncio.to_thread(stopped.resume)


@asynccontextmanager
async def _standby_slow(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """The standby runs for a moment, and stands still for longer, again and again."""
    standby = scene.cluster.promoter.candidate
    assert standby is not None

    async def pulse() -> None:
        await asyncio.to_thread(standby.pause)
        await asyncio.sleep(chance.uniform(0, 4 * _STEP_SECONDS))
        await asyncio.to_thread(standby.resume)
        await asyncio.sleep(_STEP_SECONDS)

    with scene.excuses.everything():
        async with repeating(pulse):
            yield
        await scene.changed("standby slow", standby.resume)


@asynccontextmanager
async def _waits_cancelled(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Somebody cancels COMMITs that wait for the standby: they are visible, and may be lost."""
    promoter = scene.cluster.promoter
    standby = promoter.candidate
    assert standby is not None
    with scene.excuses.everything():
        await asyncio.to_thread(standby.pause)
        await _cancel_waits(scene, chance)
        await scene.changed("waits cancelled", standby.resume)
    yield


@asynccontextmanager
async def _unconfirmed_lost(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """The same, and then the standby is promoted, which has never received them."""
    promoter = scene.cluster.promoter
    standby = promoter.candidate
    assert standby is not None
    with scene.excuses.everything():
        await asyncio.to_thread(standby.pause)
        await _cancel_waits(scene, chance)
        # Continued, it would receive what is in the kernel's buffers.
        await asyncio.to_thread(standby.kill)
        await asyncio.to_thread(promoter.primary.kill)
        await asyncio.to_thread(standby.start)
        await scene.changed("unconfirmed lost", promoter.fail_over)
    yield


async def _cancel_waits(scene: Scene, chance: random.Random) -> None:
    """Cancel waits, or end their connections: either ends the wait, but only a cancel tells the
    client."""
    for _ in range(chance.randrange(3, 9)):
        await asyncio.sleep(chance.uniform(0, 0.3))
        end = _ENDED_BY.format(chance.choice(_ENDS), "wait_event = 'SyncRep'")
        await asyncio.to_thread(scene.cluster.promoter.primary.sql, end)


@asynccontextmanager
async def _calls_ended(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Under load, statements and connections of nodes are cancelled, whatever they do."""
    primary = scene.cluster.promoter.primary

    async def end_some() -> None:
        some = f"usename = 'tenantbase' AND random() < {chance.choice((0.1, 0.3, 1))}"
        end = _ENDED_BY.format(chance.choice(_ENDS), some)
        await asyncio.to_thread(primary.sql, end)
        await asyncio.sleep(chance.uniform(0, 10 * _STEP_SECONDS))

    with scene.excuses.everything():
        async with repeating(end_some):
            yield
        await scene.changed("calls ended", lambda: None)


# Between one node and the servers


def _between(begin: Callable[[FaultProxy, random.Random], Awaitable[None]]) -> Fault:
    """A fault of all connections from one node to PostgreSQL."""

    @asynccontextmanager
    async def fault(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
        member = chance.choice(scene.cluster.proxied)
        with scene.away(member):
            for proxy in member.stores:
                await begin(proxy, chance)
            yield
            await _healed(member)

    return fault


async def _healed(member: Connected) -> None:
    for proxy in member.stores:
        await proxy.pass_through()


@asynccontextmanager
async def _cut_everywhere(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """PostgreSQL's answers, also those to COMMIT, are cut after their first byte, their second, ..."""
    member = chance.choice(scene.cluster.proxied)

    places = cycle(range(_LARGEST_ANSWER_BYTES))

    async def cut() -> None:
        after = next(places)
        for proxy in member.stores:
            proxy.cut_existing_after(after)
        await asyncio.sleep(_STEP_SECONDS)

    with scene.away(member):
        async with repeating(cut):
            yield
        await _healed(member)


# The ring


@asynccontextmanager
async def _cache_killed(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    memcached = chance.choice(scene.cluster.ring)
    memcached.kill()
    yield
    await asyncio.to_thread(memcached.start)


@asynccontextmanager
async def _cache_stopped(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    memcached = chance.choice(scene.cluster.ring)
    memcached.pause()
    yield
    memcached.resume()


@asynccontextmanager
async def _cache_resurrected(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Old items, and foreign ones, are put into all memcacheds again and again."""
    collector = scene.cluster.collector
    kinds = (collector.old, collector.old, collector.swapped, collector.damaged)

    async def put() -> None:
        items = chance.choice(kinds)(chance)
        for memcached in scene.cluster.ring:
            with suppress(OSError):
                await asyncio.to_thread(sealed_items.put, memcached.address, items)
        await asyncio.sleep(_STEP_SECONDS)

    async with repeating(put):
        yield


def _to_ring(begin: Callable[[FaultProxy, random.Random], Awaitable[None]]) -> Fault:
    """A fault between one node and the ring: the nodes no longer agree about who is there."""

    @asynccontextmanager
    async def fault(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
        member = chance.choice(scene.cluster.members)
        chosen = chance.sample(member.ring, chance.randrange(1, len(member.ring) + 1))
        for proxy in chosen:
            await begin(proxy, chance)
        yield
        for proxy in chosen:
            await proxy.pass_through()

    return fault


# Nodes


@asynccontextmanager
async def _node_killed(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    member = chance.choice(scene.cluster.members)
    node = member.node
    with scene.away(member):
        await asyncio.to_thread(node.kill)
        yield
        await asyncio.to_thread(member.start)


@asynccontextmanager
async def _node_stopped(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    member = chance.choice(scene.cluster.members)
    node = member.node
    with scene.away(member):
        # It may hold the lock of all writes, until the database ends its transaction.
        with scene.excuses.writes():
            await asyncio.to_thread(node.pause)
            yield
            await asyncio.to_thread(node.resume)


@asynccontextmanager
async def _node_drained(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    member = chance.choice(scene.cluster.members)
    node = member.node
    with scene.away(member):
        await asyncio.to_thread(node.stop)
        yield
        await asyncio.to_thread(member.start)


LANES: Final[dict[str, dict[str, Fault]]] = {
    "store": {
        "store-promote": _promoted,
        "store-kill-primary": _primary_killed,
        "store-stop-primary": _primary_stopped,
        "store-cut-off-primary": _primary_cut_off,
        "store-restart-primary": _primary_restarted,
        "store-kill-standby": _standby_killed,
        "store-stop-standby": _standby_stopped,
        "store-replace-standby": _standby_stopped_and_replaced,
        "store-slow-standby": _standby_slow,
        "store-cancel-waits": _waits_cancelled,
        "store-lose-unconfirmed": _unconfirmed_lost,
        "store-end-calls": _calls_ended,
        "store-lose-acknowledged": losing.acknowledged_lost,
        "store-promote-twice": losing.promoted_twice,
    },
    "net": {
        "net-stall": _between(lambda proxy, chance: proxy.stall()),
        "net-stall-commands": _between(lambda proxy, chance: proxy.stall(answers=False)),
        "net-stall-answers": _between(lambda proxy, chance: proxy.stall(commands=False)),
        "net-delay": _between(lambda proxy, chance: proxy.delay(chance.uniform(0.001, 0.3))),
        "net-cut": _between(lambda proxy, chance: proxy.cut_after(chance.randrange(2_000))),
        "net-cut-everywhere": _cut_everywhere,
        "net-reset": _between(lambda proxy, chance: proxy.reset()),
        "net-refuse": _between(lambda proxy, chance: proxy.refuse()),
    },
    "cache": {
        "cache-kill": _cache_killed,
        "cache-stop": _cache_stopped,
        "cache-resurrect": _cache_resurrected,
        "cache-hang": _to_ring(lambda proxy, chance: proxy.hang()),
        "cache-delay": _to_ring(lambda proxy, chance: proxy.delay(chance.uniform(0.001, 0.3))),
        "cache-cut": _to_ring(lambda proxy, chance: proxy.cut_after(chance.randrange(2_000))),
        "cache-refuse": _to_ring(lambda proxy, chance: proxy.refuse()),
    },
    "node": {
        "node-kill": _node_killed,
        "node-stop": _node_stopped,
        "node-drain": _node_drained,
        "node-stop-at-step": stopping.stopped_at_step,
        "node-stop-behind": stopping.stopped_behind_the_log,
    },
}
"""The faults, by lane. The faults of one lane take turns; different lanes overlap."""

NETWORK_LANES: Final[dict[str, dict[str, Fault]]] = {
    **LANES,
    "store": {
        **LANES["store"],
        "store-split": partitions.split,
        "store-partition": partitions.between_servers,
        "store-partition-promoter": partitions.from_promoter,
        "store-slow-link": partitions.slow_link,
        "store-disk-full": full_disk.full_disk,
    },
    "link": {
        "link-primary": partitions.from_primary,
        "link-standby": partitions.from_standby,
        "link-ring": partitions.from_ring,
        "link-any": partitions.from_any,
    },
    "time": {
        "time-servers": clocks.servers_moved,
        "time-nodes": clocks.nodes_moved,
    },
}
"""The same, and those that need a network of machines."""
