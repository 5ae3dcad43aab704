"""Nodes on PostgreSQL beside one node on SQLite, and beside a service that asks PostgreSQL every time.

    scripts/bench --cluster [--rounds N] [--seconds N] [--connections N] [--json FILE]

All of it runs on one machine, so only the ratios mean something. The services and their memcacheds share
one core; the primary, its synchronous standby and the load generator share the other. So a service
that keeps PostgreSQL busy also takes time from the load generator, and the ratio to such a service is
an estimate. The primary's processor time is not affected.

Two nodes share the core that one has otherwise. What they reach together, compared with one, shows what
a second node costs the first: with 1, two machines carry twice as much.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import dialect, launch, machine, throughput
from benchmarks.client import check, drive
from benchmarks.launch import Server, Setup, Site, Started, serving
from benchmarks.processes import (
    BenchmarkError,
    Cores,
    Disturbance,
    busy_seconds,
    choose_cores,
    cpu_seconds,
    free_port,
    settle,
    tree,
    used_seconds,
    wait_for,
)
from benchmarks.results import write_json
from benchmarks.summary import BUSY, warning
from benchmarks.work import CACHED_GET, DURABLE_SET, SMALL, Needs, Work
from tests.cluster import engine
from tests.postgres import make_directory, programs

SQLITE: Final = "SQLite node"
STANDBY: Final = "node, standby"
NONE: Final = "node, none"
NAIVE: Final = "naive on PostgreSQL"
TWO: Final = "two nodes, standby"

_CHECKED: Final = 50
_WORK: Final = (CACHED_GET, DURABLE_SET)


@dataclass(frozen=True)
class Comparison:
    """A ratio of two services, taken within a round.

    Attributes:
        figure: a key of the records: ``rate``, ``cost`` or ``primary``.
        goal: the wanted ratio, at least, or at most if less is better; None: there is no goal.
    """

    work: str
    service: str
    other: str
    figure: str = "rate"
    goal: float | None = None


COMPARISONS: Final = (
    Comparison(CACHED_GET.name, STANDBY, SQLITE, goal=0.7),
    Comparison(CACHED_GET.name, NONE, SQLITE, goal=0.8),
    Comparison(CACHED_GET.name, STANDBY, SQLITE, "cost"),
    Comparison(CACHED_GET.name, NONE, SQLITE, "cost"),
    Comparison(CACHED_GET.name, STANDBY, NAIVE, goal=4.0),
    Comparison(CACHED_GET.name, NONE, NAIVE),
    Comparison(CACHED_GET.name, STANDBY, NAIVE, "primary", goal=0.1),
    Comparison(CACHED_GET.name, NONE, NAIVE, "primary"),
    Comparison(CACHED_GET.name, TWO, STANDBY),
    Comparison(DURABLE_SET.name, STANDBY, NAIVE, goal=5.0),
    Comparison(DURABLE_SET.name, STANDBY, SQLITE, goal=0.5),
    Comparison(DURABLE_SET.name, STANDBY, SQLITE, "cost"),
    Comparison(DURABLE_SET.name, TWO, STANDBY),
)
_FIGURES: Final = {
    "rate": "throughput",
    "cost": "processor time",
    "primary": "the primary's processor time",
}


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        seconds: the duration of a load.
        connections: those of a load, shared by the nodes that it goes to.
        directory: for all files, on a real disk.
    """

    rounds: int
    seconds: int
    connections: int
    cores: Cores
    directory: Path


class Bench:
    """The services, running and filled.

    Args:
        services: the servers of each; a load goes to all of them at once.
        primary, standby: the main processes of PostgreSQL.
    """

    def __init__(
        self, plan: Plan, services: Mapping[str, Sequence[Server]], primary: int, standby: int
    ) -> None:
        self._plan = plan
        self._services = services
        self._primary = primary
        self._standby = standby

    def measure(self) -> Iterator[dict[str, Any]]:
        """Measure all rounds. Yields: a record for each load; see `_load`."""
        for number in range(self._plan.rounds):
            for work in _WORK:
                # The order alternates, so that none always goes first.
                for name in list(self._services)[:: -1 if number % 2 else 1]:
                    about = {"round": number, "work": work.name, "service": name}
                    yield {**about, **self._load(self._services[name], work)}

    def _load(self, servers: Sequence[Server], work: Work) -> dict[str, float]:
        """Measure one load.

        Returns: answers a second (``rate``); for one answer, in seconds, the processor time of the
            service and its memcached (``cost``), and of the primary (``primary``); the share of
            time that the load generator's core was busy (``load_busy``), and the share of both
            cores that other programs used (``others``).
        """
        files = [self._prepare(number, server, work) for number, server in enumerate(servers)]
        settle()
        before, disturbance = self._clocks(), Disturbance(self._plan.cores)
        with ThreadPoolExecutor(len(servers)) as pool:
            found = list(pool.map(self._generate, servers, files, repeat(len(servers))))
        share = disturbance.share()
        used = {name: after - before[name] for name, after in self._clocks().items()}
        answers = sum(each.answers for each in found)
        return {
            "rate": sum(each.rate for each in found),
            "cost": (used["run"] - used["primary"] - used["standby"]) / answers,
            "primary": used["primary"] / answers,
            "load_busy": used["load core"] / used["time"],
            "others": share,
        }

    def _clocks(self) -> dict[str, float]:
        """What has been used so far, in seconds. Only differences mean something."""
        return {
            "time": time.monotonic(),
            "run": cpu_seconds(),  # all services and PostgreSQL
            "primary": _used(self._primary),
            "standby": _used(self._standby),
            "load core": busy_seconds(self._plan.cores.load),
        }

    def _prepare(self, number: int, server: Server, work: Work) -> Path:
        """Check a server's answers. Returns: a file with the requests of a load."""
        if work is CACHED_GET:
            # Sets that met each other have left items in memcached that are no longer valid.
            found = [server.dialect.get(*entry).request for entry in SMALL.entries().items()]
            drive(server.port, found)
        exchanges = work.exchanges(server.dialect, SMALL.entries())
        check(server.port, exchanges[:_CHECKED])
        path = self._plan.directory / f"requests-{number}"
        throughput.write(path, [exchange.request for exchange in exchanges])
        return path

    def _generate(self, server: Server, requests: Path, shares: int) -> throughput.Throughput:
        plan = self._plan
        connections = plan.connections // shares
        return throughput.measure(server.port, requests, 200, plan.seconds, plan.cores, connections)


def _used(pid: int) -> float:
    """The processor time of a process and of its descendants, in seconds."""
    total = 0.0
    for each in tree(pid):
        with suppress(OSError):  # it has just ended
            total += used_seconds([each])
    return total


@contextmanager
def running(plan: Plan) -> Iterator[Bench]:
    """Run all services on their data."""
    with ExitStack() as stack:
        # PostgreSQL's own user reaches its files. Its processes stay on this process's core.
        plan.directory.chmod(0o711)
        members = list(engine.plain(make_directory(plan.directory), stack))
        hosts = ",".join(member.address for member in members)
        database = f"postgresql://tenantbase@{hosts}/tenantbase"
        primary = f"postgresql://tenantbase@{members[0].address}/tenantbase"
        cache = stack.enter_context(launch.memcached(_site(plan, "memcached")))

        def start(setup: Setup, name: str) -> Server:
            return stack.enter_context(serving(setup, _site(plan, name)))

        sqlite = launch.tenantbase(Needs.DURABLE)
        first = start(_node(database, cache, "standby"), "first")
        second = start(_node(database, cache, "standby"), "second")
        services = {
            SQLITE: [start(sqlite, "sqlite")],
            STANDBY: [first],
            NONE: [start(_node(database, cache, "none"), "none")],
            NAIVE: [start(_naive(primary), "naive")],
            TWO: [first, second],
        }
        yield Bench(plan, services, *(member.pid for member in members))


def _site(plan: Plan, name: str) -> Site:
    directory = plan.directory / name
    directory.mkdir()
    return Site(directory, plan.cores.server, free_port(), SMALL)


def _node(database: str, cache: str, confirm: str) -> Setup:
    """A node, confirmed as ``--store-confirm`` says, with a memcached at this port."""
    options = ["--memcached", f"127.0.0.1:{cache}", "--store-confirm", confirm]
    return Setup(
        f"node {confirm}",
        lambda port: dialect.Tenantbase(port, "HIT"),
        lambda site: launch.start_tenantbase(site, options, database=database),
        load=True,
        warm=True,
    )


def _naive(database: str) -> Setup:
    @contextmanager
    def start(site: Site) -> Iterator[Started]:
        command = [sys.executable, "-m", "benchmarks.peers.naive_postgres"]
        command += ["--port", str(site.port), "--database", database]
        with site.run("naive", command) as process:
            wait_for(process, site.log("naive"), port=site.port)
            yield Started(process)

    return Setup("naive", dialect.Routes, start, load=True, warm=False)


def ratios(records: Sequence[Mapping[str, Any]], wanted: Comparison) -> list[float]:
    """A comparison's ratio in each round, in ascending order."""
    rounds: dict[int, dict[str, float]] = {}
    for record in records:
        if record["work"] == wanted.work:
            found = rounds.setdefault(record["round"], {})
            found[record["service"]] = record[wanted.figure]
    return sorted(each[wanted.service] / each[wanted.other] for each in rounds.values())


def render(records: Sequence[Mapping[str, Any]]) -> str:
    """The results as Markdown."""
    lines = ["| request | service | a second | its processor time | the primary's |"]
    lines.append("|---|---|---|---|---|")
    for work in _WORK:
        for service in dict.fromkeys(record["service"] for record in records):
            found = [
                each for each in records if each["work"] == work.name and each["service"] == service
            ]
            rate, cost, primary = (median(each[figure] for each in found) for figure in _FIGURES)
            asked = "" if service == SQLITE else f"{primary * 1e6:.1f} µs"
            times = f"{cost * 1e6:.1f} µs | {asked}"
            lines.append(f"| {work.name} | {service} | {rate:,.0f} | {times} |")
    lines += ["", "| request | compared | ratio | rounds | goal |", "|---|---|---|---|---|"]
    lines += [_compared(wanted, ratios(records, wanted)) for wanted in COMPARISONS]
    return "\n".join([*lines, *_warnings(records)])


def _compared(wanted: Comparison, found: Sequence[float]) -> str:
    goal = "" if wanted.goal is None else f"{wanted.goal:g}"
    what = f"{_FIGURES[wanted.figure]} of {wanted.service} / {wanted.other}"
    span = f"{found[0]:.3f} to {found[-1]:.3f}"
    return f"| {wanted.work} | {what} | {median(found):.3f} | {span} | {goal} |"


def _warnings(records: Sequence[Mapping[str, Any]]) -> Sequence[str]:
    if disturbed := warning(max(each["others"] for each in records)):
        return disturbed
    full = {each["service"]: None for each in records if each["load_busy"] > BUSY}
    if full:
        text = "The core of PostgreSQL and the load generator was the limit for"
        return ["", f"{text}: {', '.join(full)}. On machines of their own, they may do more."]
    return []


def _versions() -> dict[str, str]:
    said = subprocess.run([programs() / "postgres", "--version"], capture_output=True, text=True)
    packages = {name: metadata.version(name) for name in ("tenantbase", "asyncpg", "aiohttp")}
    return {"postgresql": said.stdout.strip(), **packages}


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench --cluster", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--seconds", type=int, default=3, metavar="N", help="of a load; default: 3")
    parser.add_argument(
        "--connections", type=int, default=256, metavar="N", help="of a load; default: 256"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file")
    parser.add_argument(
        "--directory", metavar="PATH", help="for the databases, on a real disk, or fsync is free"
    )
    options = parser.parse_args()
    cores = choose_cores()
    os.sched_setaffinity(0, {cores.load})
    with tempfile.TemporaryDirectory(prefix="tenantbase-bench-", dir=options.directory) as base:
        plan = Plan(options.rounds, options.seconds, options.connections, cores, Path(base))
        try:
            with running(plan) as bench:
                records = list(bench.measure())
        except BenchmarkError as error:
            sys.exit(f"bench: {error}")
        about = machine.describe(plan.directory)
    print(render(records))
    if options.json:
        settings = {"rounds": plan.rounds, "seconds": plan.seconds, "connections": plan.connections}
        results = {"machine": about, "versions": _versions(), "settings": settings}
        write_json({**results, "loads": records}, options.json)


if __name__ == "__main__":
    main()
