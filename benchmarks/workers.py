"""What a second worker costs: the processor time of a cached get, with one worker and with two.

Two workers need a core each, memcached and the load generator some more. Where there are not as many,
throughput says nothing, but processor time does: whatever the workers do to each other, such as smaller
batches or waits for shared memory, takes some. So all processes run on one core, each worker has
its own 64 connections, and the rate that workers with a core each would reach is calculated.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from statistics import median
from typing import Final

from benchmarks import throughput
from benchmarks.client import check
from benchmarks.launch import MEMCACHED_MEGABYTES, PEERS, Site, serving, start_tenantbase
from benchmarks.markdown import table
from benchmarks.part import Part, Place, Results
from benchmarks.processes import free_port, settle
from benchmarks.summary import OURS, warning
from benchmarks.work import CACHED_GET, SMALL

GOAL: Final = 1.9

_COUNTS: Final = (1, 2)
_CHECKED: Final = 50


def measure(rounds: int, seconds: int, place: Place) -> Results:
    """Load one worker, then two, in alternating order.

    Returns: ``loads``: for each round and number of workers, the processor time of an answer in seconds
        (``cost``), and the share of the server's core that other programs used (``others``).
    """
    loads = []
    for number in range(rounds):
        for workers in _COUNTS[:: -1 if number % 2 else 1]:
            place.progress(f"round {number + 1}: {workers} workers")
            measured = _load(workers, seconds, place)
            loads.append(
                {
                    "round": number,
                    "workers": workers,
                    "cost": measured.cost,
                    "others": measured.others,
                }
            )
    return {"settings": {"rounds": rounds, "seconds": seconds}, "loads": loads}


def _load(workers: int, seconds: int, place: Place) -> throughput.Throughput:
    setup = PEERS[OURS](CACHED_GET.needs)
    assert setup is not None
    options = ["--memcached-memory", str(MEMCACHED_MEGABYTES), "--workers", str(workers)]
    setup = replace(setup, start=partial(start_tenantbase, options=options))
    directory = place.directory / str(len(list(place.directory.iterdir())))
    directory.mkdir()
    site = Site(directory, place.cores.server, free_port(), SMALL)
    with serving(setup, site) as server:
        exchanges = CACHED_GET.exchanges(server.dialect, SMALL.entries())
        check(site.port, exchanges[:_CHECKED])
        path = directory / "requests"
        throughput.write(path, [exchange.request for exchange in exchanges])
        connections = throughput.CONNECTIONS * workers
        # Each worker has to meet each key once before it remembers it.
        throughput.measure(site.port, path, 200, seconds, place.cores, connections)
        settle()
        measured = throughput.measure(site.port, path, 200, seconds, place.cores, connections)
        check(site.port, exchanges[:_CHECKED])
        return measured


def scaling(results: Results) -> list[float]:
    """For each round: how many times the rate of one worker two would reach, with a core each."""
    costs = {(each["round"], each["workers"]): each["cost"] for each in results["loads"]}
    rounds = range(results["settings"]["rounds"])
    return [2 * costs[number, 1] / costs[number, 2] for number in rounds]


def render(results: Results) -> str:
    """The results as Markdown."""
    rows = []
    for workers in _COUNTS:
        costs = [each["cost"] * 1e6 for each in results["loads"] if each["workers"] == workers]
        spread = f"{min(costs):.1f} to {max(costs):.1f}"
        rows.append([str(workers), f"{median(costs):.1f} µs", spread])
    found = scaling(results)
    settings = results["settings"]
    verdict = "reached" if median(found) >= GOAL else "missed"
    text = (
        f"With a core each, two workers would answer {median(found):.2f} times as many requests as one"
        f" ({min(found):.2f} to {max(found):.2f}, median of {settings['rounds']} rounds with loads of"
        f" {settings['seconds']} s; goal: {GOAL}, {verdict})."
    )
    lines = [table(["workers", "processor time of a cached get", "least and most"], rows), "", text]
    lines += warning(max(each["others"] for each in results["loads"]))
    return "\n".join(lines)


PART: Final = Part(
    name="workers",
    about="Measure the processor time of a cached get with one worker, and with two.",
    measure=lambda options, place: measure(options.rounds, options.seconds, place),
    render=render,
)


def main() -> None:
    """Measure, and print the table."""
    parser = PART.parser()
    parser.add_argument("--rounds", type=int, default=6, metavar="N", help="default: 6")
    parser.add_argument("--seconds", type=int, default=3, metavar="N", help="of a load; default: 3")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds are at least 1")
    PART.run(options)


if __name__ == "__main__":
    main()
