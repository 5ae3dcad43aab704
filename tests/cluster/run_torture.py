"""One run of a cluster's torture test: servers, clients, faults by a plan, and the result."""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Final

from tests.cluster.cluster import Cluster
from tests.cluster.faults import NETWORK_LANES
from tests.cluster.network import Network
from tests.cluster.scene import Scene
from tests.faults import interrupts
from tests.faults.client import Config
from tests.faults.excuses import Excuses
from tests.faults.judge import Judge
from tests.faults.observing import check_slices, run_clients
from tests.faults.referee import Referee
from tests.faults.schedule import Event

_SLOWEST_SECONDS: Final = 5.0  # of a request without an excuse, on an overloaded machine
_HEAL_SECONDS: Final = 60.0
# Longer than any request without an excuse. If it were much longer, all clients would soon be waiting
# for a stopped node.
_PATIENCE_SECONDS: Final = 6.0
_SAID_CHARACTERS: Final = 2_000


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    Attributes:
        events: the faults, by time.
        nodes: their number.
        confirm: how nodes confirm what the primary says; None: as they do by default.
        bug: planted in the nodes.
        network: every server is on a machine of its own; see `network.isolated`.
        processes, clients: the number of client processes, and of clients in each.
        pause: average seconds between two operations of a client.
        slice_seconds: after this long clients move on to new keys.
    """

    seed: int
    seconds: float
    events: Sequence[Event] = ()
    nodes: int = 3
    confirm: str | None = None
    bug: str | None = None
    network: bool = False
    processes: int = 2
    clients: int = 6
    pause: float = 0.01
    slice_seconds: float = 5.0


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        referee: it has found violations and lost writes.
        faults: how often each took place.
        steps: how often nodes were stopped at each step, and how often other rare events happened.
        gaps: for each change of the primary or the standby, its name and the seconds until all nodes
            had written again.
        broken: other broken promises.
        slow: broken promises about time, which may be due to a busy machine.
    """

    judge: Judge
    referee: Referee
    faults: Mapping[str, int]
    steps: Mapping[str, int]
    gaps: Sequence[tuple[str, float]]
    broken: Sequence[str]
    slow: Sequence[str]


def run(plan: Plan, log: Callable[[str], object] = lambda line: None) -> Result:
    """Carry out a plan.

    Args:
        log: called with each line of the run's log.
    """
    # Spawned, not forked: a process with threads and an event loop is not copied safely.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return interrupts.run(_run(plan, pool, log))


async def _run(plan: Plan, pool: ProcessPoolExecutor, log: Callable[[str], object]) -> Result:
    async with AsyncExitStack() as stack:
        network = stack.enter_context(Network()) if plan.network else None
        cluster = await stack.enter_async_context(
            Cluster(plan.nodes, *_options(plan), bug=plan.bug, network=network)
        )
        excuses = Excuses()
        judge = Judge(excuses, _SLOWEST_SECONDS)
        begin = time.monotonic() + 0.5
        referee = Referee(judge.hear, int(begin * 1e9), plan.slice_seconds, pool)
        scene = Scene(cluster, excuses, referee, log)
        faults: Counter[str] = Counter()
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as background:
            background.create_task(check_slices(referee, cluster.ports, stop))
            async with asyncio.TaskGroup() as group:
                for number in range(plan.processes):
                    group.create_task(run_clients(_config(plan, cluster, number, begin), referee))
                for faults_of_lane in NETWORK_LANES.values():
                    events = [event for event in plan.events if event.fault in faults_of_lane]
                    group.create_task(_lane(plan, scene, events, begin, faults, log))
            stop.set()
        if await cluster.serves(_HEAL_SECONDS) is None:
            scene.broken.append(f"not all nodes wrote within {_HEAL_SECONDS:g} s at the end")
            for member in cluster.members:
                log(f"port {member.port} said: ... {member.node.stderr[-_SAID_CHARACTERS:]}")
        for number in referee.known():
            await referee.check(number, cluster.ports)
        await referee.look_back(cluster.ports)
    broken = [*judge.broken, *scene.broken]
    return Result(judge, referee, faults, scene.steps, scene.gaps, broken, judge.slow)


def _options(plan: Plan) -> Sequence[str]:
    return [] if plan.confirm is None else ["--store-confirm", plan.confirm]


def _config(plan: Plan, cluster: Cluster, number: int, begin: float) -> Config:
    return Config(
        name="abcdefgh"[number],
        ports=cluster.ports,
        seed=plan.seed,
        clients=plan.clients,
        readers=plan.clients // 6,
        begin=begin,
        seconds=plan.seconds,
        slice_seconds=plan.slice_seconds,
        pause=plan.pause,
        patience=_PATIENCE_SECONDS,
    )


async def _lane(
    plan: Plan,
    scene: Scene,
    events: Sequence[Event],
    begin: float,
    faults: Counter[str],
    log: Callable[[str], object],
) -> None:
    """Run the faults of one lane, one after the other."""
    every = {name: fault for lane in NETWORK_LANES.values() for name, fault in lane.items()}
    for event in events:
        await asyncio.sleep(max(0, begin + event.at - time.monotonic()))
        if time.monotonic() - begin > plan.seconds:
            return  # earlier faults in the lane took longer than planned
        faults[event.fault] += 1
        log(f"{time.monotonic() - begin:8.1f} s  {event.fault} for {event.seconds:.1f} s")
        try:
            async with every[event.fault](scene, random.Random(event.seed)):
                await asyncio.sleep(event.seconds)
        except Exception as error:
            # The run continues, so that it ends with a verdict.
            scene.broken.append(f"{event.fault} failed: {error!r}")
            log(traceback.format_exc())
