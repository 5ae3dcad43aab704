"""What many connections cost: idle ones, watchers, and ones that ask once a second.

    scripts/bench --connections [--connections N] [--watchers N] [--events N] [--rounds N]
        [--seconds N] [--json FILE] [--publish]

One worker with its private memcached, started afresh in each round; the connections are this
process's, on the other core. Memory is that of the worker, without what the kernel keeps for a
socket. Processor time is that of the service, its memcached included.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

from benchmarks.client import Connection, check, drive, percentile, percentiles
from benchmarks.dialect import Exchange, Tenantbase
from benchmarks.launch import PEERS, Server, Site, serving, start_tenantbase
from benchmarks.markdown import milliseconds, table
from benchmarks.part import Part, Place, Results
from benchmarks.processes import (
    Disturbance,
    ahead_of_others,
    allow_open_files,
    free_port,
    resident,
    settle,
    tree,
    used_seconds,
    worker_of,
)
from benchmarks.summary import OURS, warning
from benchmarks.watchers import Watchers
from benchmarks.work import CACHED_GET, SMALL, name, value

GOAL_SECONDS: Final = 8e-6  # of processor time, for an event and watcher

_SPARE: Final = 200  # connections and files beside those that are measured
_BESIDE_RATE: Final = 1_000.0  # cached gets per second beside idle connections
_SINGLE_EVENTS: Final = 20
_BATCHES: Final = 5
_CHECKED: Final = 50
_KEEPALIVE_SECONDS: Final = 600  # idle connections stay open meanwhile


@dataclass(frozen=True)
class _Counts:
    """How much to measure; see the options."""

    connections: int
    watchers: int
    events: int
    seconds: float


class _Bench:
    """A server, and what is measured with it."""

    def __init__(self, server: Server, place: Place, counts: _Counts) -> None:
        self._server = server
        self._place = place
        self._counts = counts
        self._worker = worker_of(server.started.process.pid)
        self._pids = tree(server.started.process.pid)
        exchanges = CACHED_GET.exchanges(server.dialect, SMALL.entries())
        self._checked: Sequence[Exchange] = exchanges[:_CHECKED]
        self._gets = [exchange.request for exchange in exchanges]

    def idle(self) -> dict[str, float]:
        """Idle connections, each after one request.

        Returns: the additional memory of one in bytes (``memory``), the processor time to open it
            and answer its request (``opening``), and the p99 of cached gets on other connections,
            before and meanwhile.
        """
        count = self._counts.connections
        with self._measured() as (result, used), ExitStack() as stack:
            result["p99_alone"] = self._p99()
            settle()
            memory, before = resident(self._worker), used()
            for number in range(count):
                connection = Connection(self._server.port, number)
                stack.enter_context(connection.socket)
                connection.send(self._gets[number % len(self._gets)])
                while not connection.receive(b"200"):
                    pass
            result["opening"] = (used() - before) / count
            settle()
            result["memory"] = (resident(self._worker) - memory) / count
            result["p99_beside"] = self._p99()
        return result

    def watch(self) -> Iterator[dict[str, Any]]:
        """Watchers of one prefix. Yields: for each way to send events, its name (``sent``), the processor
        time for one event and watcher (``cost``), how long after the last request all watchers had
        everything (``behind``), the p99 of the sets, and the additional memory of a watcher.
        """
        counts = self._counts
        dialect = Tenantbase(self._server.port, "")
        settle()
        memory = resident(self._worker)
        with Watchers(self._server.port, counts.watchers, dialect.watch("key-")) as watchers:
            settle()
            memory = (resident(self._worker) - memory) // counts.watchers
            keys = [name(number) for number in range(max(counts.events, SMALL.keys))]
            entries = {key: value(key, SMALL.value_bytes) for key in keys}
            sets = [dialect.set(*entry).request for entry in entries.items()]
            batch = {key: entries[key] for key in keys[: counts.events]}
            total = int(counts.events * counts.seconds)
            several = [sets[number % len(sets)] for number in range(total)]
            batches = [dialect.set_many(batch).request] * _BATCHES
            ways = (
                ("one at a time", sets[:_SINGLE_EVENTS], 1, None),
                (f"{counts.events} a second", several, 1, float(counts.events)),
                (f"{counts.events} in one request", batches, counts.events, None),
            )
            for sent, requests, events, rate in ways:
                with self._measured() as (result, used):
                    before = used()
                    watchers.sets.clear()
                    watchers.lates.clear()
                    behind = watchers.send(requests, events, rate)
                    received = len(requests) * events * counts.watchers
                    result |= {
                        "sent": sent,
                        "events": len(requests) * events,
                        "cost": (used() - before) / received,
                        "behind": behind,
                        "set_p99": percentile(watchers.sets, 0.99),
                        "late": percentile(watchers.lates, 0.99),
                        "memory": memory,
                    }
                yield result

    def ask(self) -> dict[str, float]:
        """Connections that each ask once a second.

        Returns: answers per second (``rate``), the processor time of one (``cost``), percentiles.
        """
        count, used_before = self._counts.connections, 0.0
        with self._measured() as (result, used):

            def begin() -> None:
                nonlocal used_before
                used_before = used()

            driven = drive(
                self._server.port,
                self._gets,
                rate=float(count),
                seconds=self._counts.seconds,
                connections=count,
                when_open=begin,
            )
            answers = len(driven.latencies)
            result |= {
                "rate": answers / driven.seconds,
                "cost": (used() - used_before) / answers,
                **percentiles(driven.latencies),
                "late": driven.late,
            }
        return result

    @contextmanager
    def _measured(self) -> Iterator[tuple[dict[str, Any], Callable[[], float]]]:
        """Yields: a result, to which ``others`` is added at the end; and the processor time that the
        service has used. The answers are checked before and after.
        """
        check(self._server.port, self._checked)
        settle()
        disturbance = Disturbance(self._place.cores)
        result: dict[str, Any] = {}
        with ahead_of_others():
            yield result, lambda: used_seconds(self._pids)
        result["others"] = disturbance.share()
        check(self._server.port, self._checked)

    def _p99(self) -> float:
        driven = drive(
            self._server.port, self._gets, rate=_BESIDE_RATE, seconds=self._counts.seconds
        )
        return percentile(driven.latencies, 0.99)


def measure(options: argparse.Namespace, place: Place) -> Results:
    """Measure everything in each round."""
    counts = _Counts(options.connections, options.watchers, options.events, options.seconds)
    most = max(counts.connections, counts.watchers) + _SPARE
    allow_open_files(most + _SPARE)
    found = PEERS[OURS](CACHED_GET.needs)
    assert found is not None
    # After a pause of a second, all connections ask at once.
    arguments = ["--max-connections", str(most), "--max-requests", str(most)]
    arguments += ["--keepalive-timeout", str(_KEEPALIVE_SECONDS)]
    setup = replace(found, start=lambda site: start_tenantbase(site, arguments))
    results: Results = {
        "settings": {"rounds": options.rounds, **vars(counts)},
        "idle": [],
        "watch": [],
        "ask": [],
    }
    for number in range(options.rounds):
        directory = place.directory / f"round-{number}"
        directory.mkdir()
        with serving(setup, Site(directory, place.cores.server, free_port(), SMALL)) as server:
            bench = _Bench(server, place, counts)
            place.progress(f"round {number + 1}: idle connections")
            results["idle"].append(bench.idle())
            place.progress(f"round {number + 1}: watchers")
            results["watch"] += bench.watch()
            place.progress(f"round {number + 1}: connections that ask once a second")
            results["ask"].append(bench.ask())
    return results


def render(results: Results) -> str:
    """The results as Markdown."""
    settings = results["settings"]
    idle, ask = _medians(results["idle"]), _medians(results["ask"])
    connections, watchers = f"{settings['connections']:,}", f"{settings['watchers']:,}"
    measured = [
        [f"memory of an idle connection, of {connections}", _kibibytes(idle["memory"])],
        ["to open it, and answer a cached get: processor time", _microseconds(idle["opening"])],
        [
            "p99 of other cached gets: alone, beside them",
            f"{milliseconds(idle['p99_alone'])}, {milliseconds(idle['p99_beside'])}",
        ],
        [f"{connections} connections that ask once a second: reached", f"{ask['rate']:,.0f} /s"],
        ["p50, p99, p99.9", ", ".join(milliseconds(ask[each]) for each in ("p50", "p99", "p99.9"))],
        ["processor time of a request", _microseconds(ask["cost"])],
        ["generator late (p99)", milliseconds(ask["late"])],
        [f"memory of a watcher, of {watchers}", _kibibytes(results["watch"][0]["memory"])],
    ]
    rows = []
    for sent in dict.fromkeys(each["sent"] for each in results["watch"]):
        found = _medians([each for each in results["watch"] if each["sent"] == sent])
        reached = "yes" if found["cost"] <= GOAL_SECONDS else "no"
        times = [milliseconds(found[each]) for each in ("behind", "set_p99", "late")]
        rows.append(
            [sent, f"{found['events']:,.0f}", _microseconds(found["cost"]), reached, *times]
        )
    goal = f"at most {_microseconds(GOAL_SECONDS)}"
    header = ["events", "in all", "processor time, an event and watcher", goal]
    header += ["all have the last after", "p99 of the sets", "generator late (p99)"]
    events = table(header, rows)
    note = (
        f"Events that {watchers} watchers receive; medians over {settings['rounds']} rounds. The"
        " processor time includes that of the sets. Events that come faster than they can be sent are"
        " sent together, so that one costs less."
    )
    others = [each["others"] for part in ("idle", "watch", "ask") for each in results[part]]
    text = "\n\n".join([table(["connections", ""], measured), note, events])
    return "\n".join([text, *warning(max(others), results["ask"])])


def _medians(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    numbers = [key for key, each in records[0].items() if not isinstance(each, str)]
    return {key: median(each[key] for each in records) for key in numbers}


def _kibibytes(size: float) -> str:
    return f"{size / 1024:.1f} KiB"


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs"


PART: Final = Part(
    "connections",
    "Measure what idle connections, watchers and connections that ask once a second cost.",
    measure,
    render,
)


def main() -> None:
    """Measure, and print the tables."""
    parser = PART.parser()
    numbers = {
        "connections": (10_000, "idle ones, and ones that ask once a second"),
        "watchers": (5_000, "connections that watch"),
        "events": (100, "events a second, and in one request"),
        "rounds": (3, "with a new server each"),
        "seconds": (10, "of a load"),
    }
    for option, (default, text) in numbers.items():
        parser.add_argument(
            f"--{option}",
            type=int,
            default=default,
            metavar="N",
            help=f"{text}; default: {default:,}",
        )
    options = parser.parse_args()
    if min(getattr(options, option) for option in numbers) < 1:
        parser.error("all numbers are at least 1")
    PART.run(options)


if __name__ == "__main__":
    main()
