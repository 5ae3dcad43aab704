"""What cached gets and durable sets wait for beside other requests of the same tenant.

    scripts/bench --mixed-load [--rounds N] [--seconds N] [--keys N] [--json FILE] [--publish]

The whole mix is 80 % cached gets, 10 % durable sets, 5 % bulk reads of 100 keys and 5 % lists of 1,000
entries, and in between the deletion of a prefix with 100,000 keys. Its maximum rate is measured once,
without the deletion. Then an open loop sends the mix at half that rate: requests are due at even
intervals. So that the gets and sets of all cases are the same and due at the same times, a case
without lists leaves their places empty.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

from benchmarks import throughput
from benchmarks.client import check, drive, percentiles
from benchmarks.dialect import Exchange, Tenantbase
from benchmarks.launch import PEERS, Server, Site, serving
from benchmarks.markdown import milliseconds, table
from benchmarks.part import Part, Place, Results
from benchmarks.processes import Disturbance, ahead_of_others, free_port, settle
from benchmarks.summary import OURS, warning
from benchmarks.work import BULK_GET, CACHED_GET, DURABLE_SET, LIST, SMALL, Work, value

MIX: Final = {CACHED_GET: 80, DURABLE_SET: 10, BULK_GET: 5, LIST: 5}  # per cent
GOAL: Final = 3.0  # times the p99 of a cached get beside nothing

_CHECKED: Final = 50
_PREPARED: Final = 10_000  # requests for the measurement of the rate
_PREFIX: Final = "old/"  # sorts after the keys that are listed
_STORED_AT_ONCE: Final = 1_000
_DELETE_AFTER: Final = 0.3  # of the time, so that what follows a deletion is measured, too
_REMOVED_SECONDS: Final = 120.0  # within which the service removes the rows of a deleted prefix
_DURING: Final = ", during the deletion"


@dataclass(frozen=True)
class Case:
    """Gets, and what is sent beside them.

    Attributes:
        name: what is beside the gets.
        deletes: whether the prefix is deleted.
    """

    name: str
    work: Sequence[Work]
    deletes: bool = False


_ALONE: Final = Case("nothing", (CACHED_GET,))
_SETS: Final = Case("sets", (CACHED_GET, DURABLE_SET))
CASES: Final = (
    _ALONE,
    _SETS,
    Case("sets, bulk reads", (*_SETS.work, BULK_GET)),
    Case("sets, lists", (*_SETS.work, LIST)),
    Case("sets, a prefix deletion", _SETS.work, deletes=True),
    Case("all of these", tuple(MIX), deletes=True),
)
# What is shown, and the case that the p99 is compared with.
_SHOWN: Final = {CACHED_GET.name: _ALONE.name, DURABLE_SET.name: _SETS.name}


@dataclass(frozen=True)
class Schedule:
    """Requests, and when they are due: in seconds from the start, in ascending order.

    Attributes:
        names: of each request, the workload's name; "" for the deletion.
    """

    requests: list[bytes]
    dues: list[float]
    names: list[str]


class Mix:
    """The requests of the mix, in a random order that is the same on every call."""

    def __init__(self, exchanges: Mapping[str, Sequence[Exchange]]) -> None:
        self._exchanges = exchanges

    def requests(self) -> Iterator[tuple[str, bytes]]:
        """The requests with their workload's name, without end."""
        chance = random.Random("mixed load")
        names, shares = [work.name for work in MIX], list(MIX.values())
        number = 0
        while True:
            for name in chance.choices(names, shares, k=1_000):
                prepared = self._exchanges[name]
                yield name, prepared[number % len(prepared)].request
                number += 1

    def schedule(self, case: Case, rate: float, seconds: float, delete: bytes) -> Schedule:
        """The requests of a case, at their places in the mix at this rate."""
        included = {work.name for work in case.work}
        found = [
            (number / rate, name, request)
            for number, (name, request) in zip(range(int(rate * seconds)), self.requests())
            if name in included
        ]
        if case.deletes:
            found.append((_DELETE_AFTER * seconds, "", delete))
            found.sort(key=lambda each: each[0])
        return Schedule(
            requests=[request for _, _, request in found],
            dues=[due for due, _, _ in found],
            names=[name for _, name, _ in found],
        )


def latencies(
    schedule: Schedule, numbers: Sequence[int], taken: Sequence[float]
) -> tuple[dict[tuple[str, bool], list[float]], float]:
    """Sort the latencies of a load.

    Args:
        numbers, taken: of each answer, the place of its request in the schedule, and its latency.

    Returns: the latencies by workload, all of them (False) and those of requests that were due during
        the deletion (True); and the seconds that the deletion took, 0 without one.
    """
    begun = ended = float("inf")
    for number, latency in zip(numbers, taken, strict=True):
        if not schedule.names[number]:
            begun, ended = schedule.dues[number], schedule.dues[number] + latency
    found: dict[tuple[str, bool], list[float]] = {}
    for number, latency in zip(numbers, taken, strict=True):
        name = schedule.names[number]
        if name:
            found.setdefault((name, False), []).append(latency)
            if begun <= schedule.dues[number] < ended:
                found.setdefault((name, True), []).append(latency)
    return found, ended - begun if begun < ended else 0.0


class _Bench:
    """A running server, and the requests of the mix."""

    def __init__(self, server: Server, place: Place, seconds: float, keys: int) -> None:
        self._server = server
        self._place = place
        self._seconds = seconds
        self._keys = keys
        entries = SMALL.entries()
        self._every = [server.dialect.get(*entry).request for entry in entries.items()]
        self._exchanges = {work.name: work.exchanges(server.dialect, entries) for work in MIX}
        self._mix = Mix(self._exchanges)

    def rate(self) -> float:
        """The maximum rate of the mix, without the deletion."""
        self._check()
        path = self._place.directory / "requests"
        sent = [request for _, (_, request) in zip(range(_PREPARED), self._mix.requests())]
        throughput.write(path, sent)
        seconds = max(1, int(self._seconds))
        found = throughput.measure(self._server.port, path, 200, seconds, self._place.cores)
        return found.rate

    def measure(self, case: Case, rate: float) -> Iterator[dict[str, Any]]:
        """Measure a case. Yields: a record for each workload that is shown, of the whole time and
        of the deletion."""
        dialect = Tenantbase(self._server.port, "")
        if case.deletes:
            self._fill(dialect)
        schedule = self._mix.schedule(
            case, rate, self._seconds, dialect.delete_prefix(_PREFIX, self._keys).request
        )
        drive(self._server.port, self._every)  # so that all are cached
        self._check()
        settle()
        disturbance = Disturbance(self._place.cores)
        with ahead_of_others():
            driven = drive(self._server.port, schedule.requests, dues=schedule.dues)
        others = disturbance.share()
        settle(_REMOVED_SECONDS)
        self._check(cached=not case.deletes)
        if case.deletes:
            check(self._server.port, [dialect.count(_PREFIX, 0)])
        found, deleting = latencies(schedule, driven.numbers, driven.latencies)
        for (name, during), taken in found.items():
            if name in _SHOWN:
                yield {
                    "beside": case.name + (_DURING if during else ""),
                    "work": name,
                    "requests": len(taken),
                    **percentiles(taken),
                    "late": driven.late,
                    "deletion": deleting,
                    "others": others,
                }

    def _fill(self, dialect: Tenantbase) -> None:
        """Store the keys that will be deleted."""
        keys = [f"{_PREFIX}{number:07d}" for number in range(self._keys)]
        batches = [
            {key: value(key, SMALL.value_bytes) for key in keys[at : at + _STORED_AT_ONCE]}
            for at in range(0, len(keys), _STORED_AT_ONCE)
        ]
        check(self._server.port, [dialect.set_many(batch) for batch in batches])
        check(self._server.port, [dialect.count(_PREFIX, self._keys)])

    def _check(self, *, cached: bool = True) -> None:
        """Check answers.

        Args:
            cached: whether gets must come from the cache, all of which a deletion makes invalid.
        """
        for exchanges in self._exchanges.values():
            checked = exchanges[:_CHECKED]
            if not cached:
                checked = [replace(each, source=None) for each in checked]
            check(self._server.port, checked)


def measure(options: argparse.Namespace, place: Place) -> Results:
    """Measure all cases in each round, in alternating order."""
    setup = PEERS[OURS](DURABLE_SET.needs)
    assert setup is not None
    site_directory = place.directory / "service"
    site_directory.mkdir()
    loads = []
    with serving(setup, Site(site_directory, place.cores.server, free_port(), SMALL)) as server:
        bench = _Bench(server, place, options.seconds, options.keys)
        place.progress("rate of the whole mix")
        rate = bench.rate() / 2
        for number in range(options.rounds):
            for case in CASES[:: -1 if number % 2 else 1]:
                place.progress(f"round {number + 1}: beside {case.name}")
                loads += [{"round": number, **each} for each in bench.measure(case, rate)]
    settings = {"rounds": options.rounds, "seconds": options.seconds, "keys": options.keys}
    return {"settings": settings, "rate": rate, "loads": loads}


def ratios(loads: Sequence[Mapping[str, Any]], work: str, beside: str) -> list[float]:
    """The p99 of a workload compared with the case that it is compared with, in each round."""
    found: dict[str, dict[int, float]] = {}
    for each in loads:
        if each["work"] == work:
            found.setdefault(each["beside"], {})[each["round"]] = each["p99"]
    alone = found[_SHOWN[work]]
    return sorted(p99 / alone[number] for number, p99 in found.get(beside, {}).items())


def render(results: Results) -> str:
    """The results as Markdown."""
    loads, settings = results["loads"], results["settings"]
    shown = [name + end for name in (case.name for case in CASES) for end in ("", _DURING)]
    rows = []
    worst = (0.0, "")
    for work in _SHOWN:
        for beside in shown:
            found = [each for each in loads if (each["work"], each["beside"]) == (work, beside)]
            if not found:
                continue
            times = median(ratios(loads, work, beside))
            if work == CACHED_GET.name:
                worst = max(worst, (times, beside))
            middle = {
                field: median(each[field] for each in found)
                for field in ("requests", "p50", "p99", "p99.9", "late")
            }
            columns = [milliseconds(middle[field]) for field in ("p50", "p99", "p99.9")]
            rows.append(
                [work.replace("-", " "), beside, f"{middle['requests']:,.0f}", *columns]
                + [f"{times:.1f}", milliseconds(middle["late"])]
            )
    header = ["request", "beside", "requests", "p50", "p99", "p99.9", "times alone"]
    deletions = [each["deletion"] for each in loads if each["deletion"]]
    reached = "Reached" if worst[0] <= GOAL else "Not reached"
    notes = [
        f"{results['rate']:,.0f} places a second, half of the maximum rate of the whole mix; the"
        f" medians over {settings['rounds']} rounds of {settings['seconds']:g} s. The p99 of a get is"
        " compared with that beside nothing, that of a set with that beside gets alone.",
        f"Deleting {settings['keys']:,} keys by their prefix took"
        f" {milliseconds(median(deletions))} ({milliseconds(max(deletions))} at most).",
        f"**{reached}: the goal is that nothing multiplies the p99 of a cached get by more than"
        f" {GOAL:g}. At most, it was {worst[0]:.1f} times as long, beside: {worst[1]}.**",
    ]
    text = "\n\n".join([table([*header, "generator late (p99)"], rows), *notes])
    return "\n".join([text, *warning(max(each["others"] for each in loads), loads)])


PART: Final = Part(
    "mixed-load",
    "Measure what cached gets and durable sets wait for beside other requests.",
    measure,
    render,
)


def main() -> None:
    """Measure, and print the table."""
    parser = PART.parser()
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument(
        "--seconds", type=float, default=10.0, metavar="N", help="of a load; default: 10"
    )
    parser.add_argument(
        "--keys", type=int, default=100_000, metavar="N", help="to delete; default: 100,000"
    )
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds < 1 or options.keys < 1:
        parser.error("--rounds, --seconds and --keys are at least 1")
    PART.run(options)


if __name__ == "__main__":
    main()
