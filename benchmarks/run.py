"""The command line of the benchmarks. See README.md."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks import against, growth, machine, memory, profiling, report, rounds, steps, waits
from benchmarks.launch import PEERS
from benchmarks.processes import BenchmarkError, Cores, choose_cores
from benchmarks.progress import Progress
from benchmarks.results import write_json
from benchmarks.throughput import CONNECTIONS
from benchmarks.work import DATA, SMALL, WORK

_MEMORY_REQUESTS: Final = 1_000_000


def main() -> None:
    """Measure, and print the tables."""
    options = _options()
    # Let the context managers end all processes.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    directory = Path(tempfile.mkdtemp(prefix="tenantbase-bench-", dir=options.directory))
    try:
        if options.against or options.against_options:
            print(_compare(options, directory))
            return
        results = _measure(options, directory)
    except BenchmarkError as error:
        sys.exit(f"\nbench: {_progress.last}: {error}")
    except KeyboardInterrupt:
        sys.exit("\nbench: interrupted")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(report.render(results))
    if options.json:
        write_json(results, options.json)
    if options.publish:
        report.publish(results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure tenantbase side by side with its peers. Takes about half an hour.",
    )
    parts = [*(work.name for work in WORK), "profile", "memory", "growth"]
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--seconds", type=int, default=3, metavar="N", help="duration of a load; default: 3"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=parts,
        type=lambda name: name.replace(" ", "-"),
        help="only this line of the tables, such as 'durable set'; repeatable",
    )
    parser.add_argument(
        "--data", action="append", choices=[data.name for data in DATA], help="likewise"
    )
    parser.add_argument("--peer", action="append", choices=list(PEERS), help="likewise")
    parser.add_argument(
        "--against",
        metavar="REV",
        help="compare this work tree with a commit instead, both in one run; at least"
        f" {against.MIN_ROUNDS} rounds",
    )
    parser.add_argument(
        "--against-options",
        metavar="OPTIONS",
        help="as --against, but with the same work tree, started with these options",
    )
    parser.add_argument(
        "--quick", action="store_true", help="only two rounds of one second, on small values"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="write results.json, the plot and the section of README.md in benchmarks/",
    )
    parser.add_argument(
        "--directory",
        metavar="PATH",
        help="a directory for the databases, on a real disk, or fsync does nothing",
    )
    options = parser.parse_args()
    options.only = options.only or parts
    options.data = options.data or [data.name for data in DATA]
    options.peer = options.peer or list(PEERS)
    if options.quick:
        options.rounds, options.seconds = 2, 1
        options.data = [SMALL.name]
        options.only = [
            part for part in options.only if part not in ("profile", "memory", "growth")
        ]
    if options.against or options.against_options:
        options.rounds = max(options.rounds, against.MIN_ROUNDS)
        if options.publish or options.json:
            parser.error("a comparison prints a table; do not combine it with --json or --publish")
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds are at least 1")
    return options


def _plan(options: argparse.Namespace, directory: Path, cores: Cores) -> rounds.Plan:
    return rounds.Plan(
        rounds=options.rounds,
        seconds=options.seconds,
        work=[work for work in WORK if work.name in options.only],
        data=[data for data in DATA if data.name in options.data],
        peers=[peer for peer in PEERS if peer in options.peer],
        cores=cores,
        directory=directory,
    )


def _compare(options: argparse.Namespace, directory: Path) -> str:
    """The table of ``--against`` and ``--against-options``."""
    cores = choose_cores()
    os.sched_setaffinity(0, {cores.load})
    different = (options.against_options or "").split()
    with ExitStack() as stack:
        tree = against.ROOT
        if options.against:
            tree = stack.enter_context(against.checked_out(options.against, directory))
        setups = {
            against.BEFORE: partial(against.setup, against.BEFORE, tree, different),
            against.AFTER: partial(against.setup, against.AFTER, against.ROOT, ()),
        }
        plan = replace(_plan(options, directory, cores), peers=list(setups), setups=setups)
        loads = rounds.measure(plan, _progress)
    _progress("")
    return against.table(against.compare(loads), options.against_options or options.against)


def _measure(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    cores = choose_cores()
    os.sched_setaffinity(0, {cores.load})
    plan = _plan(options, directory, cores)
    results: dict[str, Any] = {
        "machine": machine.describe(directory),
        "versions": machine.versions(),
        "settings": {
            "rounds": plan.rounds,
            "seconds a load": plan.seconds,
            "connections": CONNECTIONS,
            "server core": cores.server,
            "load core": cores.load,
        },
        "loads": rounds.measure(plan, _progress),
        "profile": [],
        "steps": [],
        "waits": {},
        "memory": [],
        "growth": [],
    }
    if "profile" in options.only:
        results["profile"] = profiling.measure(plan.seconds, cores, directory, _progress)
        results["steps"] = steps.measure(directory)
        results["waits"] = waits.measure(plan.seconds, cores, directory, _progress)
    if "memory" in options.only:
        results["memory"] = memory.measure(_MEMORY_REQUESTS, cores, directory, _progress)
    if "growth" in options.only:
        results["growth"] = growth.measure(plan.rounds, plan.seconds, cores, directory, _progress)
    _progress("")
    return results


_progress: Final = Progress()


if __name__ == "__main__":
    main()
