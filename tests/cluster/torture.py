"""Tortures a cluster, and checks everything that its clients have seen.

    scripts/torture --cluster [--seed N] [--seconds N] [--fault NAME]... [--nodes N] [--plan]

Nodes on PostgreSQL, with a promoter that replaces primaries and standbys, and a ring of memcacheds get
requests from client processes, while faults come and go by a schedule that the seed determines. Every
history is checked for linearizability over all nodes. The exit status is 1 if something was found.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping

from tests.cluster import run_torture
from tests.cluster.faults import LANES, NETWORK_LANES
from tests.cluster.network import isolated
from tests.cluster.planted import BUGS
from tests.cluster.run_torture import Plan, Result
from tests.faults import machine
from tests.faults.schedule import drawn, known


def _fault(name: str) -> str:
    if not known(name, NETWORK_LANES):
        raise argparse.ArgumentTypeError(f"there is no fault {name}; see --list")
    return name


def _log(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/torture", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--cluster", action="store_true", help="several nodes on PostgreSQL")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        metavar="NAME",
        help="only this one, or all that begin with NAME if it ends in a dash; may be repeated",
    )
    parser.add_argument(
        "--longest", type=float, default=30.0, help="longest duration of a fault, in seconds"
    )
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--clients", type=int, default=10, help="in each of two processes")
    parser.add_argument("--confirm", choices=("commit", "standby"), help="--store-confirm of nodes")
    parser.add_argument(
        "--break", dest="bug", choices=BUGS, help="plant a bug, to see whether it is found"
    )
    parser.add_argument("--plan", action="store_true", help="print the schedule and exit")
    parser.add_argument("--list", action="store_true", help="list the faults and exit")
    given = parser.parse_args()
    if given.list:
        print("\n".join(fault for lane in NETWORK_LANES.values() for fault in lane))
        return
    refused = "" if given.plan else isolated(__spec__.name)
    lanes = LANES if refused else NETWORK_LANES
    names = given.fault or [f"{lane}-" for lane in lanes]
    missing = [name for name in names if not known(name, lanes)]
    if missing:
        sys.exit(f"{', '.join(missing)}: there are no namespaces here: {refused}")
    longest = min(given.longest, given.seconds / 4)
    events = drawn(given.seed, given.seconds, names, longest, lanes)
    if given.plan:
        for each in events:
            print(f"{each.at:10.3f} s  {each.fault} for {each.seconds:.1f} s")
        return
    plan = Plan(
        given.seed,
        given.seconds,
        events,
        given.nodes,
        given.confirm,
        given.bug,
        not refused,
        clients=given.clients,
    )
    _log(f"seed {given.seed}, {given.seconds:g} s, {len(events)} faults: {' '.join(names)}")
    if refused:
        _log(f"without a network of machines: there are no namespaces here: {refused}")
    _log(f"{plan.nodes} nodes, {plan.processes} processes of {plan.clients} clients")
    for line in machine.description():
        _log(line)
    began = time.monotonic()
    result = run_torture.run(plan, _log)
    _log("")
    for line in _summary(result):
        _log(line)
    _log(_row("took", f"{time.monotonic() - began:,.0f} s, seed {given.seed}"))
    found = [*result.referee.violations, *result.referee.lost, *result.broken, *result.slow]
    for line in found[:50]:
        _log(f"FOUND: {line}")
    _log("nothing was found" if not found else f"{len(found)} FOUND")
    sys.exit(bool(found))


def _summary(result: Result) -> Iterator[str]:
    judge, referee = result.judge, result.referee
    for fault in sorted(result.faults):
        yield _row(fault, f"{result.faults[fault]:,} times")
    for kind in sorted({each for each, _ in judge.operations}):
        outcomes = {o: n for (k, o), n in sorted(judge.operations.items()) if k == kind}
        yield _row(kind, f"{sum(outcomes.values()):,}: {_counts(outcomes)}")
    yield _row("failed with excuse", f"{judge.excused:,}, during faults")
    yield _row("read from", _counts(judge.sources))
    yield _row(
        "checked",
        f"{referee.checked:,} operations on {referee.keys:,} keys,"
        f" {len(referee.violations)} violations",
    )
    given_up = f"{referee.given_up:,} acknowledged writes given up by an operator"
    yield _row("declared losses", f"{len(referee.losses)}, {given_up}")
    yield _row("lost writes", f"{len(referee.lost)}, of {referee.kept:,} keys read at the end")
    for what, latencies in (("reads", judge.reads), ("writes", judge.writes)):
        quantiles = "  ".join(
            f"p{share * 100:g} {latencies.quantile(share):.1f}" for share in (0.5, 0.99, 0.999)
        )
        most = f"max {latencies.longest / 1e6:.1f} ms"
        yield _row(what, f"{quantiles}  {most}, of {len(latencies):,} without excuse")
    if result.steps:
        yield _row("reached", _counts(result.steps))
    for name in sorted({each for each, _ in result.gaps}):
        seconds = [gap for what, gap in result.gaps if what == name]
        yield _row(
            name, f"all nodes wrote after {max(seconds):.1f} s at most, {len(seconds)} times"
        )


def _counts(of: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(of.items()))


def _row(name: str, text: str) -> str:
    return f"{name:24}{text}"


if __name__ == "__main__":
    main()
