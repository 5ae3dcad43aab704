"""Faults of the network between machines: partitions in each direction, and a slow link.

Packets on a cut path are dropped silently, as by a broken switch. Clients are on another network.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from tests.cluster.cluster import machine_of
from tests.cluster.machines import RemoteServer
from tests.cluster.network import Direction, Machine, Network
from tests.cluster.scene import Fault, Scene
from tests.servers import poll

_KILOBITS: Final = (50, 200, 1_000)


def _network(scene: Scene) -> Network:
    network = scene.cluster.network
    assert network is not None
    return network


def _directions(
    chance: random.Random, some: Sequence[Machine], others: Sequence[Machine]
) -> list[Direction]:
    """Both directions between two groups of machines, or one of them only."""
    there = [(one, other) for one in some for other in others]
    back = [(other, one) for one, other in there]
    return chance.choice((there, back, there + back))


# Between servers, and between them and the promoter


@asynccontextmanager
async def between_servers(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Between the primary and its standby. The promoter reacts later, or not at all."""
    promoter = scene.cluster.promoter
    primary, standby = promoter.primary, promoter.candidate
    assert standby is not None
    directions = _directions(chance, [machine_of(primary)], [machine_of(standby)])
    with scene.excuses.everything():
        with _network(scene).cut(directions):
            yield
            change = chance.choice((None, promoter.replace_standby, promoter.fail_over))
            if change is not None:
                await scene.changed("servers cut off", change)
        await scene.changed("servers joined again", lambda: None)


@asynccontextmanager
async def from_promoter(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Between the promoter and the primary, which goes on without the promoter's knowing."""
    promoter, operator = scene.cluster.promoter, scene.cluster.operator
    assert operator is not None
    deposed = promoter.primary
    with scene.excuses.everything():
        with _network(scene).cut(_directions(chance, [operator], [machine_of(deposed)])):
            await asyncio.to_thread(poll, lambda: not _answers(deposed), "the promoter is cut off")
            await scene.changed("promoter cut off", promoter.fail_over)
            yield


def _answers(server: object) -> bool:
    assert isinstance(server, RemoteServer)
    try:
        return server.sql("SELECT 1", seconds=1.0) == "1"
    except subprocess.SubprocessError:
        return False


@asynccontextmanager
async def split(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """The primary is on one side with some nodes and memcacheds, the promoter is on the other."""
    cluster, promoter = scene.cluster, scene.cluster.promoter
    deposed = promoter.primary
    rest = [*map(machine_of, cluster.members), *map(machine_of, cluster.ring)]
    there = [machine for machine in rest if chance.random() < 0.4]
    here = [machine for machine in rest if machine not in there]
    here += [machine_of(each) for each in promoter.servers if each is not deposed]
    there.append(machine_of(deposed))
    directions = _directions(chance, there, here)
    cut_off = [member for member in cluster.members if machine_of(member) in there]
    with scene.excuses.everything(), scene.all_away(cut_off):
        with _network(scene).cut(directions):
            await scene.changed("split", promoter.fail_over)
            yield
    with scene.excuses.everything():
        await scene.changed("split ended", lambda: None)


@asynccontextmanager
async def slow_link(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """The link to the standby is slow, so commits are."""
    standby = scene.cluster.promoter.candidate
    assert standby is not None
    with scene.excuses.everything():
        with _network(scene).slow(machine_of(standby), chance.choice(_KILOBITS)):
            yield
        await scene.changed("slow link", lambda: None)


# Between one node and the servers


def _from_node(others: str) -> Fault:
    @asynccontextmanager
    async def fault(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
        member = chance.choice(scene.cluster.members)
        directions = _directions(chance, [machine_of(member)], _chosen(scene, others, chance))
        with scene.away(member), _network(scene).cut(directions):
            yield

    return fault


def _chosen(scene: Scene, others: str, chance: random.Random) -> list[Machine]:
    promoter, ring = scene.cluster.promoter, scene.cluster.ring
    match others:
        case "primary":
            return [machine_of(promoter.primary)]
        case "standby":
            standby = promoter.candidate or promoter.spare  # it is being replaced
            return [machine_of(standby)]
        case "ring":
            return [machine_of(each) for each in chance.sample(ring, chance.randint(1, len(ring)))]
        case _:
            every = [*map(machine_of, promoter.servers), *map(machine_of, ring)]
            return chance.sample(every, chance.randint(1, len(every)))


from_primary = _from_node("primary")
from_standby = _from_node("standby")
from_ring = _from_node("ring")
from_any = _from_node("any")
