"""Tortures the service, and checks everything that its clients have seen.

    scripts/torture [--seed N] [--seconds N] [--fault NAME]... [--images N] [--plan]

Real servers with several workers, on one database and one memcached or a ring of several, get
requests from client processes, while faults come and go by a schedule that the seed determines.
Every history is checked for linearizability, and time and memory are compared with the promises.
Then power losses are simulated. The exit status is 1 if something was found.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Mapping

from tests.faults import machine, planted, power_loss, run
from tests.faults.faults import LANES
from tests.faults.schedule import Event, drawn, known
from tests.faults.stalls import WORTH_TELLING


def _fault(name: str) -> str:
    if not known(name):
        raise argparse.ArgumentTypeError(f"there is no fault {name}; see --list")
    return name


def _log(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/torture", description=(__doc__ or "").partition("\n")[0]
    )
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
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="of each server")
    parser.add_argument("--memcacheds", type=int, default=1, help="a ring of this many")
    parser.add_argument(
        "--images", type=int, default=2_000, help="disk images after a loss of power"
    )
    parser.add_argument(
        "--break", dest="bug", choices=planted.BUGS, help="plant a bug, to see whether it is found"
    )
    parser.add_argument("--plan", action="store_true", help="print the schedule and exit")
    parser.add_argument("--list", action="store_true", help="list the faults and exit")
    given = parser.parse_args()
    if given.list:
        print("\n".join(fault for lane in LANES.values() for fault in lane))
        return
    names = given.fault or [f"{lane}-" for lane in LANES]
    events = drawn(given.seed, given.seconds, names, min(given.longest, given.seconds / 4))
    if given.plan:
        print("\n".join(f"{each.at:10.3f} s  {_told(each)}" for each in events))
        return
    plan = run.Plan(
        seed=given.seed,
        seconds=given.seconds,
        events=events,
        servers=given.servers,
        workers=given.workers,
        memcacheds=given.memcacheds,
        bug=given.bug,
    )
    _log(f"seed {given.seed}, {given.seconds:g} s, {len(events)} faults: {' '.join(names)}")
    _log(
        f"{given.servers} servers of {given.workers} workers, {given.memcacheds} memcacheds,"
        f" {plan.processes} processes of {plan.clients} clients"
    )
    for line in machine.description():
        _log(line)
    began = time.monotonic()
    # Before and after the run, which handles signals itself: it ends all processes in order.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    result = run.run(plan, _log)
    images, lost = power_loss.run(
        seed=given.seed, count=given.images, rounds=150, processes=2, bug=given.bug
    )
    _log("")
    for line in _summary(result):
        _log(line)
    _log(_row("power loss", f"{images:,} images, {len(lost)} broken"))
    _log(_row("this program", f"{machine.peak_memory() >> 20} MiB at most"))
    _log(_row("took", f"{time.monotonic() - began:,.0f} s, seed {given.seed}"))
    found = [*result.violations, *result.lost, *result.broken, *result.slow, *map(str, lost)]
    for each in found[:50]:
        _log(f"FOUND: {each}")
    _log("nothing was found" if not found else f"{len(found)} FOUND")
    sys.exit(bool(found))


def _told(event: Event) -> str:
    return f"{event.fault} for {event.seconds:.1f} s"


def _summary(result: run.Result) -> Iterator[str]:
    judge, vitals, administrator = result.judge, result.vitals, result.administrator
    for name in sorted(result.faults):
        yield _row(name, f"{result.faults[name]:,} times")
    for what in sorted(set(result.done)):
        yield _row("", f"{what}: {result.done.count(what):,} times")
    kinds = sorted({kind for kind, _ in judge.operations})
    for kind in kinds:
        outcomes = {o: n for (k, o), n in sorted(judge.operations.items()) if k == kind}
        yield _row(kind, f"{sum(outcomes.values()):,}: {_counts(outcomes)}")
    yield _row("failed with excuse", f"{judge.excused:,}, on servers that were tortured")
    yield _row("read from", _counts(judge.sources))
    yield _row(
        "checked",
        f"{result.checked:,} operations on {result.keys:,} keys,"
        f" {len(result.violations)} violations",
    )
    yield _row("lost writes", f"{len(result.lost)}, of {result.kept:,} keys read at the end")
    yield _row(
        "tokens",
        f"{administrator.revoked:,} revoked; effective after {administrator.slowest:.2f} s at most",
    )
    yield _row("quota", f"{administrator.refused:,} writes refused")
    for name, latencies in (
        ("reads", judge.reads),
        ("writes", judge.writes),
        ("while cache faulty", judge.disturbed),
    ):
        quantiles = "  ".join(
            f"p{share * 100:g} {latencies.quantile(share):.1f}" for share in (0.5, 0.99, 0.999)
        )
        most = f"max {latencies.longest / 1e6:.1f} ms"
        yield _row(name, f"{quantiles}  {most}, of {len(latencies):,} without excuse")
    longest = max(result.stalls, default=0.0)
    if longest >= WORTH_TELLING:
        yield _row("longest stall", f"{longest * 1000:.0f} ms")
    else:
        yield _row("longest stall", f"below {WORTH_TELLING * 1000:.0f} ms")
    returns = vitals.returns()
    slowest = max(returns, default=0.0)
    yield _row("hits back", f"after {slowest:.1f} s at most, {len(returns):,} times")
    for life in vitals.memory()[:4]:
        yield _row(
            f"worker {life.pid}",
            f"{life.early / 2**20:.1f} MiB early, {life.late / 2**20:.1f} MiB late,"
            f" {life.most / 2**20:.1f} MiB at most in {life.seconds:,.0f} s",
        )


def _counts(of: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(of.items()))


def _row(name: str, text: str) -> str:
    return f"{name:24}{text}"


if __name__ == "__main__":
    main()
