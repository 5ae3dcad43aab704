"""Tortures the service, and checks everything that its clients have seen.

    scripts/torture [--seed N] [--seconds N] [--fault NAME]... [--images N]

Real servers with several workers, on one database and one memcached, get requests from processes of
clients, while faults come and go by a schedule that the seed decides. Every history is checked for
linearizability, and the promises on time and memory are measured. Then the power is cut, many times.
Exit status 1: something was found.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.faults import planted, power_loss, run
from tests.faults.faults import LANES
from tests.faults.schedule import drawn, known


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
    parser.add_argument("--longest", type=float, default=30.0, help="seconds a fault lasts at most")
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="of each server")
    parser.add_argument("--images", type=int, default=2_000, help="of disks after a loss of power")
    parser.add_argument(
        "--break", dest="bug", choices=planted.BUGS, help="plant a bug, to see it found"
    )
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    given = parser.parse_args()
    if given.list:
        print("\n".join(fault for lane in LANES.values() for fault in lane))
        return
    names = given.fault or [f"{lane}-" for lane in LANES]
    events = drawn(given.seed, given.seconds, names, min(given.longest, given.seconds / 4))
    plan = run.Plan(
        seed=given.seed,
        seconds=given.seconds,
        events=events,
        servers=given.servers,
        workers=given.workers,
        bug=given.bug,
    )
    began = time.monotonic()
    result = run.run(plan, _log)
    images, lost = power_loss.run(
        seed=given.seed, count=given.images, rounds=150, processes=2, bug=given.bug
    )
    _log("")
    for line in _summary(result):
        _log(line)
    _log(f"power loss           {images:,} images, {len(lost)} broken")
    _log(f"took                 {time.monotonic() - began:,.0f} s, seed {given.seed}")
    found = [*result.violations, *result.broken, *result.slow, *map(str, lost)]
    for each in found[:50]:
        _log(f"FOUND: {each}")
    _log("nothing was found" if not found else f"{len(found)} FOUND")
    sys.exit(bool(found))


def _summary(result: run.Result) -> list[str]:
    judge, vitals = result.judge, result.vitals

    def counts(of: dict[str, int]) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in sorted(of.items()))

    lines = [
        f"operations           {counts(judge.operations)}",
        f"outcomes             {counts(judge.outcomes)}; {judge.excused:,} failures excused",
        f"checked              {result.checked:,} operations, {len(result.violations)} violations",
        f"reads by source      {counts(judge.sources)}",
    ]
    for name, latencies in (("reads", judge.reads), ("writes", judge.writes)):
        quantiles = "  ".join(
            f"p{share * 100:g} {latencies.quantile(share):.1f}" for share in (0.5, 0.99, 0.999)
        )
        lines.append(f"{name} (ms)".ljust(21) + f"{quantiles}  max {latencies.longest / 1e6:.1f}")
    stalls = vitals.stalls()
    lines.append(
        f"longest stall        {stalls[0] * 1000 if stalls else 0:.0f} ms of {len(stalls)}"
    )
    lines.append(f"hits back after      {vitals.slowest_return():.1f} s at most")
    for early, late in vitals.growth():
        lines.append(f"memory of a worker   {early >> 20} MiB early, {late >> 20} MiB late")
    for what in sorted(set(result.done)):
        lines.append(f"{what.ljust(21)}{result.done.count(what)} times")
    return lines


if __name__ == "__main__":
    main()
