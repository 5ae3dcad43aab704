"""One run of the torture test: servers, clients, faults by a plan, and the result."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from tests.faults import beside, interrupts, observing, tenants
from tests.faults.client import Config, keys_of
from tests.faults.cluster import CACHE_SECONDS, Cluster
from tests.faults.excuses import Excuses
from tests.faults.faults import LANES
from tests.faults.history import Operation
from tests.faults.judge import Judge
from tests.faults.referee import Given, Referee
from tests.faults.scene import Scene
from tests.faults.schedule import Event
from tests.faults.tenants import FIRST, TENANTS, Administrator
from tests.faults.vitals import Vitals

# The timeouts of the cache and of a database read, for an overloaded machine.
SLOWEST: Final = CACHE_SECONDS + 0.9
_DISTURBING: Final = ("cache", "net")
_LONGEST_SECONDS: Final = 60.0  # of a plan that is repeated for longer


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    Attributes:
        events: the faults, by time.
        servers, workers: the number of servers, and of workers in each.
        memcacheds: their number; several are a ring.
        processes, clients: the number of client processes, which belong to the tenants in turn,
            and of clients in each.
        pause: average seconds between two operations of a client.
        slice_seconds: after this long clients move on to new keys.
        dawdling: delays during the whole run: the probability that a step of the protocol is
            delayed, the longest delay in seconds, and the steps.
        bug: planted in the servers.
    """

    seed: int
    seconds: float
    events: Sequence[Event] = ()
    servers: int = 2
    workers: int = 2
    memcacheds: int = 1
    processes: int = 2
    clients: int = 6
    pause: float = 0.01
    slice_seconds: float = 5.0
    dawdling: tuple[float, float, Collection[str]] = (0.0, 0.0, ())
    bug: str | None = None


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        referees: of each tenant, by its name; they have found violations and lost writes.
        administrator: of the tenants and their tokens.
        faults: how often each took place.
        done: observations that some of the faults made.
        stalls: of the servers' event loops, the longest first, in seconds.
        broken: other broken promises.
        slow: broken promises about time.
    """

    judge: Judge
    vitals: Vitals
    referees: Mapping[str, Referee]
    administrator: Administrator
    faults: Mapping[str, int]
    done: Sequence[str]
    stalls: Sequence[float]
    broken: Sequence[str]
    slow: Sequence[str]

    @property
    def violations(self) -> list[str]:
        """The violations in the histories of all tenants."""
        return self._of_tenants(lambda referee: referee.violations)

    @property
    def lost(self) -> list[str]:
        """The lost writes of all tenants."""
        return self._of_tenants(lambda referee: referee.lost)

    @property
    def checked(self) -> int:
        """The number of operations checked."""
        return sum(referee.checked for referee in self.referees.values())

    @property
    def keys(self) -> int:
        """The number of keys with a history."""
        return sum(referee.keys for referee in self.referees.values())

    @property
    def kept(self) -> int:
        """The number of keys that were read again at the end."""
        return sum(referee.kept for referee in self.referees.values())

    def _of_tenants(self, found: Callable[[Referee], Iterable[str]]) -> list[str]:
        return [
            f"{tenant}: {line}"
            for tenant, referee in self.referees.items()
            for line in found(referee)
        ]


def run_enough(plan: Plan, enough: Callable[[Result], bool]) -> Result:
    """Carry out a plan, then longer ones, until something is found or enough has been done.

    On a busy machine, less is done in a second.

    Returns: the last result.
    """
    while True:
        result = run(plan)
        found = result.violations or result.lost or result.broken
        if found or enough(result) or plan.seconds > _LONGEST_SECONDS:
            return result
        plan = replace(plan, seconds=2 * plan.seconds)


def run(plan: Plan, log: Callable[[str], object] = lambda line: None) -> Result:
    """Carry out a plan.

    Args:
        log: called with each line of the run's log.

    Raises:
        SystemExit: SIGTERM or SIGINT has ended it, and everything that it started.
    """
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="tenantbase-torture-"))
        )
        # Spawned, not forked: a process with threads and an event loop is not copied safely.
        pool = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn")))
        return interrupts.run(_run(plan, directory.resolve(), pool, log))


async def _run(
    plan: Plan, directory: Path, pool: ProcessPoolExecutor, log: Callable[[str], object]
) -> Result:
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(
            Cluster(
                directory,
                servers=plan.servers,
                workers=plan.workers,
                memcacheds=plan.memcacheds,
                bug=plan.bug,
            )
        )
        cluster.control.dawdle(*plan.dawdling)
        excuses = Excuses()
        begin = time.monotonic()

        def keys() -> dict[str, list[str]]:
            return keys_of(max(0, int((time.monotonic() - begin) / plan.slice_seconds)))

        chance = random.Random(f"{plan.seed} administrator")
        administrator = Administrator(cluster, excuses, chance, keys)
        await administrator.close_database()
        begin = time.monotonic() + 0.5
        judge = Judge(excuses, SLOWEST)
        vitals = Vitals(cluster, excuses)
        foreign: list[str] = []

        def hear(tenant: str, operation: Operation) -> None:
            judge.hear(operation, disturbed=vitals.disturbed(operation.start, operation.heard))
            vitals.hear(operation)
            if tenants.foreign(operation, tenant):
                foreign.append(tenants.told(operation, tenant))

        given = Given()
        referees = {
            tenant: Referee(
                partial(hear, tenant),
                int(begin * 1e9),
                plan.slice_seconds,
                pool,
                administrator.tokens[tenant],
                given,
            )
            for tenant in TENANTS
        }
        others = [referee for tenant, referee in referees.items() if tenant != FIRST]
        scene = Scene(cluster, excuses, keys, referees[FIRST], others)
        if plan.dawdling[0]:
            stack.enter_context(excuses.slowness())
        stop = asyncio.Event()
        faults: Counter[str] = Counter()
        async with asyncio.TaskGroup() as background:
            sampling = background.create_task(vitals.sample())
            for referee in referees.values():
                background.create_task(observing.check_slices(referee, cluster.ports, stop))
            async with asyncio.TaskGroup() as group:
                command_line = group.create_task(
                    beside.use(scene, random.Random(f"{plan.seed} beside"), 1.0, stop)
                )
                administering = group.create_task(administrator.administer(stop))
                for number in range(plan.processes):
                    tenant = TENANTS[number % len(TENANTS)]
                    name = tenants.client_name(tenant, "abcdefgh"[number])
                    token = administrator.tokens[tenant]
                    group.create_task(_clients(plan, cluster, referees[tenant], name, token, begin))
                for lane in LANES:
                    events = [event for event in plan.events if event.fault in LANES[lane]]
                    group.create_task(_lane(plan, scene, vitals, lane, events, begin, faults, log))
                await asyncio.sleep(max(0, begin + plan.seconds - time.monotonic()))
                stop.set()
                await command_line
                await administering
            vitals.ended()
            sampling.cancel()
        for referee in referees.values():
            for number in referee.known():
                await referee.check(number, cluster.ports)
            await referee.look_back(cluster.ports)
        administrator.recount()
        broken = [*judge.broken, *scene.broken, *vitals.broken(), *foreign, *administrator.broken]
        stalls = vitals.stalls()  # read now, because the directory with the stalls is removed
        slow = [*judge.slow, *vitals.slow(stalls)]
    return Result(judge, vitals, referees, administrator, faults, scene.done, stalls, broken, slow)


async def _lane(
    plan: Plan,
    scene: Scene,
    vitals: Vitals,
    lane: str,
    events: Sequence[Event],
    begin: float,
    faults: Counter[str],
    log: Callable[[str], object],
) -> None:
    """Run the faults of one lane, one after the other."""
    for event in events:
        await asyncio.sleep(max(0, begin + event.at - time.monotonic()))
        if time.monotonic() - begin > plan.seconds:
            return  # earlier faults in the lane took longer than planned
        faults[event.fault] += 1
        log(f"{time.monotonic() - begin:8.1f} s  {event.fault} for {event.seconds:.1f} s")
        if lane in _DISTURBING:
            vitals.disturb()
        try:
            async with LANES[lane][event.fault](scene, random.Random(event.seed)):
                await asyncio.sleep(event.seconds)
        finally:
            if lane in _DISTURBING:
                vitals.calm()


def _clients(
    plan: Plan, cluster: Cluster, referee: Referee, name: str, token: str, begin: float
) -> Coroutine[None, None, None]:
    config = Config(
        name=name,
        ports=cluster.ports,
        seed=plan.seed,
        clients=plan.clients,
        readers=plan.clients // 6,
        begin=begin,
        seconds=plan.seconds,
        slice_seconds=plan.slice_seconds,
        pause=plan.pause,
        token=token,
    )
    return observing.run_clients(config, referee)
