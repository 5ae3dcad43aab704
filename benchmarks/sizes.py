"""Databases of several sizes: what grows with the number of entries, and how fast.

Values have 100 bytes. All files fit into the memory of the machine, so reads past memcached find their
pages in the system's cache.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any, Final

from benchmarks import throughput
from benchmarks.client import check, drive, percentiles
from benchmarks.dialect import Exchange, Tenantbase
from benchmarks.grown import Done, Grown
from benchmarks.launch import MEMCACHED_MEGABYTES, start_tenantbase
from benchmarks.markdown import megabytes, milliseconds, table
from benchmarks.part import Place, Results
from benchmarks.processes import BenchmarkError, Disturbance, ahead_of_others, settle
from benchmarks.summary import warning
from benchmarks.work import CACHED_GET, COLD_GET, DURABLE_SET, Work, name

GOAL_BYTES: Final = 250  # of the database, for an entry
GOAL_P99_SECONDS: Final = 0.008  # of durable sets at half their maximum rate

_CHECKED: Final = 50
_COLD_KEYS: Final = 100_000
_CACHED_KEYS: Final = 5_000
_SET_KEYS: Final = 50_000
_LISTED_AT_ONCE: Final = 1_000  # entries whose keys differ in the last three digits
_LISTS: Final = 50


def measure(sizes: Sequence[int], rounds: int, seconds: int, place: Place) -> Results:
    """Fill a database of each size, then measure it: the loads of each round in turn, and at last the
    commands, without a server.

    Returns: ``sizes``, for each the durations in seconds, rates in entries a second and sizes in bytes;
        ``loads``, for each round and size.
    """
    filled = []
    for size in sizes:
        place.progress(f"importing {size:,} entries")
        filled.append(_Sized(size, place))
    loads = []
    for number in range(rounds):
        for each in filled:
            place.progress(f"round {number + 1}: {each.size:,} entries")
            loads.append({"round": number, "entries": each.size, **each.load(seconds)})
    for each in filled:
        place.progress(f"checking and copying {each.size:,} entries")
        each.maintain()
    settings = {"rounds": rounds, "seconds": seconds}
    return {"settings": settings, "sizes": [each.record for each in filled], "loads": loads}


class _Sized:
    """A database of one size, and what is known about it."""

    def __init__(self, size: int, place: Place) -> None:
        self.size = size
        self._place = place
        self._directory = place.directory / f"size-{size}"
        self._grown = Grown(size, place.cores, self._directory)
        self._port = self._grown.site.port
        imported = self._grown.fill()
        self.record: dict[str, Any] = {
            "entries": size,
            "import_rate": size / imported.seconds,
            "import_peak": imported.peak,
            "database_bytes": self._grown.database.stat().st_size,
            "start_seconds": self._grown.start_seconds(),
        }

    def load(self, seconds: int) -> dict[str, float]:
        """One round.

        Returns: answers per second of each load, percentiles of sets at half their rate in seconds,
            and the share of both cores that other programs used.
        """
        disturbance = Disturbance(self._place.cores)
        result: dict[str, float] = {}
        with self._serving("off"):
            dialect = Tenantbase(self._port, "BYPASS")
            cold = self._exchanges(COLD_GET, dialect, _COLD_KEYS)
            result["cold"] = self._rate(cold, seconds)
            result["lists"] = self._rate(self._lists(dialect), seconds)
        with self._serving("auto", "--memcached-memory", str(MEMCACHED_MEGABYTES)):
            dialect = Tenantbase(self._port, "HIT")
            cached = self._exchanges(CACHED_GET, dialect, _CACHED_KEYS)
            drive(self._port, [exchange.request for exchange in cached])
            settle()
            result["cached"] = self._rate(cached, seconds)
            sets = self._exchanges(DURABLE_SET, dialect, _SET_KEYS)
            result["sets"] = self._rate(sets, seconds)
            requests = [exchange.request for exchange in sets]
            with ahead_of_others():
                driven = drive(self._port, requests, rate=result["sets"] / 2, seconds=seconds)
            result |= {**percentiles(driven.latencies), "late": driven.late}
        result["others"] = disturbance.share()
        return result

    def maintain(self) -> None:
        """Run ``check`` and ``backup``, and delete the database."""
        checked = self._grown.command("check")
        if f"ok: {self.size:,} entries" not in checked.output:
            raise BenchmarkError(f"check does not say that all is well:\n{checked.output}")
        copy = self._directory / "copy.db"
        copied = self._grown.command("backup", copy)
        if copy.stat().st_size < self.record["database_bytes"] / 2:
            raise BenchmarkError("the backup is too small to hold the entries")
        self.record |= {**_costs("check", checked), **_costs("backup", copied)}
        shutil.rmtree(self._directory)

    @contextmanager
    def _serving(self, *memcached: str) -> Iterator[None]:
        with start_tenantbase(self._grown.site, ["--memcached", *memcached]):
            yield

    def _exchanges(self, work: Work, dialect: Tenantbase, count: int) -> list[Exchange]:
        return work.exchanges(dialect, self._grown.entries, count)

    def _lists(self, dialect: Tenantbase) -> list[Exchange]:
        """Lists of all entries under a prefix, anywhere among the others."""
        chance = random.Random("lists")
        exchanges = []
        for _ in range(_LISTS):
            first = _LISTED_AT_ONCE * chance.randrange(self.size // _LISTED_AT_ONCE)
            keys = [name(number) for number in range(first, first + _LISTED_AT_ONCE)]
            entries = {key: self._grown.entries[key] for key in keys}
            exchanges.append(dialect.list_prefix(name(first)[:-3], entries))
        return exchanges

    def _rate(self, exchanges: Sequence[Exchange], seconds: int) -> float:
        """The maximum rate of these requests, whose answers are checked before and after."""
        check(self._port, exchanges[:_CHECKED])
        path = self._directory / "requests"
        throughput.write(path, [exchange.request for exchange in exchanges])
        settle()
        found = throughput.measure(self._port, path, 200, seconds, self._place.cores)
        settle()
        check(self._port, exchanges[:_CHECKED])
        return found.rate


def _costs(name: str, done: Done) -> dict[str, float]:
    return {f"{name}_seconds": done.seconds, f"{name}_peak": done.peak}


def combined(results: Results) -> list[dict[str, float]]:
    """For each size, its figures and the medians of its loads."""
    found = []
    for record in results["sizes"]:
        loads = [each for each in results["loads"] if each["entries"] == record["entries"]]
        middle = {field: median(each[field] for each in loads) for field in loads[0]}
        bytes_each = record["database_bytes"] / record["entries"]
        found.append({**middle, **record, "bytes_each": bytes_each})
    return found


def render(results: Results) -> str:
    """The results as Markdown."""
    found = combined(results)
    smallest, largest = found[0], found[-1]

    def row(text: str, field: str, show: Callable[[float], str]) -> list[str]:
        shown = [show(each[field]) for each in found]
        return [text, *shown, f"{largest[field] / smallest[field]:,.2f}"]

    sizes = [f"{each['entries']:,}" for each in found]
    settings = results["settings"]
    rows = [
        row("import", "import_rate", _a_second),
        row("import: most memory", "import_peak", megabytes),
        row("database", "database_bytes", megabytes),
        row("database, for an entry", "bytes_each", lambda size: f"{size:,.0f} bytes"),
        row("start until the first answer", "start_seconds", milliseconds),
        row("cold get", "cold", _a_second),
        row("cached get", "cached", _a_second),
        row("durable set", "sets", _a_second),
        row("durable set at half that rate: p50", "p50", milliseconds),
        row("p99", "p99", milliseconds),
        row("p99.9", "p99.9", milliseconds),
        row("list of a prefix with 1,000 entries", "lists", _a_second),
        row("`tenantbase check`", "check_seconds", _seconds),
        row("`tenantbase check`: most memory", "check_peak", megabytes),
        row("`tenantbase backup`", "backup_seconds", _seconds),
        row("`tenantbase backup`: most memory", "backup_peak", megabytes),
    ]
    note = (
        f"Medians over {settings['rounds']} rounds with loads of {settings['seconds']} s. Goals: under"
        f" {GOAL_BYTES} bytes for an entry ({_said(found, 'bytes_each', GOAL_BYTES)}), and a p99 of"
        f" durable sets under {milliseconds(GOAL_P99_SECONDS)}"
        f" ({_said(found, 'p99', GOAL_P99_SECONDS)})."
    )
    text = "\n\n".join([table(["entries", *sizes, "largest / smallest"], rows), note])
    others = max(each["others"] for each in results["loads"])
    return "\n".join([text, *warning(others, results["loads"])])


# The curves of the picture: their titles, fields, and how many of a unit there are in one.
_CURVES: Final = (
    ("import (entries/s)", "import_rate", 1),
    ("bytes for an entry", "bytes_each", 1),
    ("start (ms)", "start_seconds", 1e3),
    ("cold get (/s)", "cold", 1),
    ("cached get (/s)", "cached", 1),
    ("durable set (/s)", "sets", 1),
    ("durable set, p99 (ms)", "p99", 1e3),
    ("list of 1,000 (/s)", "lists", 1),
    ("check (s)", "check_seconds", 1),
    ("check, memory (MB)", "check_peak", 1e-6),
    ("backup (s)", "backup_seconds", 1),
    ("backup, memory (MB)", "backup_peak", 1e-6),
)


def curves(results: Results) -> dict[str, list[tuple[int, float]]]:
    """Each figure by its title: pairs of a number of entries and the value there."""
    found = combined(results)
    return {
        title: [(int(each["entries"]), each[field] * factor) for each in found]
        for title, field, factor in _CURVES
    }


def _said(found: Sequence[Mapping[str, float]], field: str, goal: float) -> str:
    missed = [f"{each['entries']:,}" for each in found if each[field] >= goal]
    return f"missed at {', '.join(missed)}" if missed else "reached at all sizes"


def _a_second(rate: float) -> str:
    return f"{rate:,.0f} /s"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.1f} s"
