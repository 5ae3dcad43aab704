"""Renders the results as Markdown, for the terminal and for the section of README.md.

``python -m benchmarks.report`` regenerates the section and the plot from results.json.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.markdown import megabytes, milliseconds, table, write_section
from benchmarks.plot import plot
from benchmarks.results import write_json
from benchmarks.summary import BUSY, GOALS, GOALS_P99_SECONDS, OURS, Loads
from benchmarks.waits import LONG_SECONDS, SLOWEST
from benchmarks.work import DATA, SMALL

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results.json"

_MODULES: Final = 12  # how much of a profile is shown
_PLOT: Final = "throughput.svg"

_COST_NOTE: Final = (
    "Processor time for one answer (bulk get: one key) on the server's core, memcached and Redis"
    " included. Other programs on the machine disturb it less than they disturb the throughput."
)
_SIZES: Final = {data.name: data.title for data in DATA}


def render(results: dict[str, Any]) -> str:
    """The tables of all results."""
    loads = Loads(results["loads"])
    parts = []
    if results["loads"]:
        parts += ["### Throughput", _throughput(loads), *_notes(loads)]
        parts += ["### Processor time", _COST_NOTE, _costs(loads)]
        parts += ["### Goals", _goals(loads)]
        parts += ["### Latency at half the maximum rate", _latency(loads)]
    if results["profile"]:
        parts += ["### Where tenantbase spends its time", _profile(results["profile"])]
        parts += [_steps(results["steps"])]
        parts += ["### What the slowest durable sets wait for", *_waits(results["waits"])]
    if results["memory"]:
        parts += ["### Memory of the server process", _memory(results["memory"])]
    if results["growth"]:
        parts += ["### A thousand entries and a million", _growth(results["growth"])]
    if results["loads"] and results["growth"]:
        parts += ["### Questions and answers", _questions(loads, results["growth"])]
    parts += ["### Machine", _machine(results)]
    return "\n\n".join(parts)


def publish(results: dict[str, Any]) -> None:
    """Write results.json, the plot, and the section of README.md."""
    write_json(results, RESULTS)
    plot(Loads(results["loads"]), HERE / _PLOT)
    image = f"![Throughput of each service at each work]({_PLOT})"
    write_section("results", "scripts/bench --publish", f"{image}\n\n{render(results)}")


def _throughput(loads: Loads) -> str:
    peers = loads.peers()
    others = [peer for peer in peers if peer != OURS] if OURS in peers else []
    rows = []
    for data, work in loads.lines():
        row = [_title(work), _SIZES[data]]
        for peer in peers:
            rate = loads.median(data, work, peer)
            mark = "*" if loads.most_busy(data, work, peer) > BUSY else ""
            row.append("" if rate is None else f"{rate:,.0f}{mark}")
        for peer in others:
            ratios = loads.ratios(data, work, peer)
            row.append(f"{statistics.median(ratios):.2f}" if ratios else "")
        rows.append(row)
    ratios_to = [f"{OURS} / {peer}" for peer in others]
    return table(["work", "data", *peers, *ratios_to], rows)


def _notes(loads: Loads) -> list[str]:
    notes = [
        "Answers a second (bulk get: keys a second), medians over the rounds; the ratios are medians"
        " of the ratios in each round."
    ]
    if any(
        loads.most_busy(data, work, peer) > BUSY
        for data, work in loads.lines()
        for peer in loads.peers()
    ):
        notes.append(
            "\\* The core of the load generator was full: the service may be able to do more."
        )
    if disturbed := loads.disturbed():
        shares = ", ".join(f"{share:.0%} ({_title(work)})" for work, share in disturbed.items())
        again = " ".join(f'--only "{_title(work)}"' for work in disturbed)
        notes.append(
            f"**Something else used the server's core: {shares}. These figures are noise; measure them"
            f" again with `scripts/bench {again}`.**"
        )
    return notes


def _costs(loads: Loads) -> str:
    peers = loads.peers()
    rows = []
    for data, work in loads.lines():
        costs = [loads.median(data, work, peer, "cost") for peer in peers]
        texts = ["" if cost is None else f"{cost * 1e6:,.1f} µs" for cost in costs]
        rows.append([_title(work), _SIZES[data], *texts])
    return table(["work", "data", *peers], rows)


def _goals(loads: Loads) -> str:
    rows = []
    for goal in GOALS:
        ratios = loads.ratios(goal.data, goal.work, goal.peer, goal.base)
        if ratios:
            reached = statistics.median(ratios)
            rows.append(
                [
                    f"{_title(goal.work)} / {_title(goal.base) if goal.base else goal.peer}",
                    _SIZES[goal.data],
                    f"≥ {goal.wanted}",
                    f"{reached:.2f}",
                    f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
                    "yes" if reached >= goal.wanted else "no",
                ]
            )
    for work, most in GOALS_P99_SECONDS.items():
        p99 = loads.median(SMALL.name, work, OURS, "p99")
        if p99 is not None:
            wanted = f"< {milliseconds(most)}"
            reached_ = "yes" if p99 < most else "no"
            title = f"{_title(work)}, p99"
            rows.append([title, _SIZES[SMALL.name], wanted, milliseconds(p99), "", reached_])
    return table(["goal", "data", "wanted", "median", "rounds", "reached"], rows)


def _latency(loads: Loads) -> str:
    rows = []
    for data, work in loads.lines():
        for peer in loads.peers():
            rate = loads.median(data, work, peer, "open_rate")
            if rate is not None:
                fields = ("p50", "p99", "p99.9", "late")
                found = [loads.median(data, work, peer, field) or 0.0 for field in fields]
                rows.append([_title(work), peer, f"{rate:,.0f}", *map(milliseconds, found)])
    header = ["work", "service", "requests/s", "p50", "p99", "p99.9", "generator late (p99)"]
    return table(header, rows)


def _profile(records: list[dict[str, Any]]) -> str:
    rows = []
    for each in records:
        threads = [f"{name} {spent * 1e6:.1f} µs" for name, spent in each["threads"]]
        modules = [f"{module} {share:.0%}" for module, share in each["modules"][:_MODULES]]
        rows.append([_title(each["work"]), "<br>".join(threads), ", ".join(modules)])
    header = ["work", "processor time for one key, by thread", "Python, by module"]
    return table(header, rows)


def _steps(records: list[dict[str, Any]]) -> str:
    rows = [[each["step"], f"{each['seconds'] * 1e6:.2f} µs"] for each in records]
    return table(["step of reading one key", "processor time"], rows)


def _waits(record: dict[str, Any]) -> list[str]:
    rows = [
        [
            each["name"],
            f"{each['share']:.0%}",
            f"{each['a_second']:.1f}",
            milliseconds(each["median"]),
            milliseconds(each["longest"]),
        ]
        for each in record["causes"]
    ]
    rows.append(["none of these", f"{record['other']:.0%}", "", "", ""])
    header = ["at the same time as", "of the slowest", "a second", "median", "longest"]
    text = (
        f"The slowest {SLOWEST:.0%} of {record['rate']:,.0f} durable sets a second took"
        f" {milliseconds(record['slow'])} or more in the server. A commit, or storing items in"
        f" memcached, counts as long from {milliseconds(LONG_SECONDS)} on. A set may wait for"
        " several of these."
    )
    return [text, table(header, rows)]


def _memory(records: list[dict[str, Any]]) -> str:
    rows = []
    for each in records:
        answers, held = each["samples"][-1]
        later = next(size for count, size in each["samples"] if count >= answers * 3 / 4)
        sizes = [each["rest"], each["peak"], held, held - later]
        rows.append([each["peer"], *map(megabytes, sizes)])
    answers = records[-1]["samples"][-1][0]
    header = ["service", "at rest", "peak under load", f"after {answers:,} requests"]
    return table([*header, "growth in the last quarter"], rows)


def _growth(records: list[dict[str, Any]]) -> str:
    small, large = records
    ratios = [b / a for a, b in zip(small["cold_rates"], large["cold_rates"], strict=True)]

    def both(name: str, text: Callable[[dict[str, Any]], str]) -> list[str]:
        return [name, text(small), text(large), ""]

    def compared(name: str, field: str) -> list[str]:
        texts = [milliseconds(each[field]) for each in records]
        return [name, *texts, f"{large[field] / small[field]:.2f}"]

    cold = both("cold reads", lambda each: f"{statistics.median(each['cold_rates']):,.0f} /s")
    return table(
        ["entries", f"{small['entries']:,}", f"{large['entries']:,}", "ratio"],
        [
            [*cold[:-1], f"{statistics.median(ratios):.2f}"],
            compared("start until the first answer", "start_seconds"),
            ["import", "", f"{large['import_rate']:,.0f} /s", ""],
            both("database", lambda each: megabytes(each["database_bytes"])),
            both("listing everything", lambda each: f"{each['listing_rate']:,.0f} /s"),
            both("memory for a listing", lambda each: megabytes(each["listing_bytes"])),
            compared("p99 of other requests, no listing", "p99_alone"),
            compared("p99 of other requests, while listing", "p99_listing"),
        ],
    )


def _questions(loads: Loads, growth: list[dict[str, Any]]) -> str:
    small, large = growth
    ratio = statistics.median(large["cold_rates"]) / statistics.median(small["cold_rates"])

    def rate(work: str) -> str:
        return f"{loads.median('small', work, OURS) or 0:,.0f}"

    size = large["database_bytes"] / large["entries"]
    return table(
        ["question", "answer"],
        [
            [
                "Does the database support fast key access?",
                "Yes: the key is the primary key. Without any cache, reads at"
                f" {large['entries']:,} entries run at {ratio:.2f} of the rate at"
                f" {small['entries']:,}.",
            ],
            [
                "How much data?",
                f"{large['entries']:,} entries with values of 100 bytes take"
                f" {megabytes(large['database_bytes'])}, {size:,.0f} bytes each. The disk is the"
                f" limit: a server starts in {large['start_seconds'] * 1e3:,.0f} ms on them, in"
                f" {small['start_seconds'] * 1e3:,.0f} ms on {small['entries']:,}.",
            ],
            [
                "How many reads and writes does a node take?",
                f"On one core, which memcached shares: {rate('cached-get')}"
                f" cached reads, {rate('cold-get')} reads past the cache, {rate('durable-set')}"
                " writes a second, each on the disk before it is acknowledged.",
            ],
            [
                "How does it scale?",
                "`--workers auto` uses every core for reads. Writes go through one commit at a time"
                " and so do not multiply with cores. Beyond one machine: several nodes on"
                " PostgreSQL, or several services with a part of the keys each. [How to"
                " scale](../docs/scaling.md) compares all ways.",
            ],
            [
                "What maintenance does it need?",
                "None to keep running: expired entries are removed and the log is"
                " checkpointed by the service itself.",
            ],
        ],
    )


def _machine(results: dict[str, Any]) -> str:
    rows = [[name, text] for name, text in results["machine"].items()]
    rows.append(["versions", ", ".join(f"{k} {v}" for k, v in results["versions"].items())])
    rows.append(["run", ", ".join(f"{k} {v}" for k, v in results["settings"].items())])
    return table(["", ""], rows)


def _title(work: str) -> str:
    return work.replace("-", " ")


if __name__ == "__main__":
    publish(json.loads(RESULTS.read_text()))
