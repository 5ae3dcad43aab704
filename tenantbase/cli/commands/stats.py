"""``tenantbase stats``: figures for people and, in a pipe, for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from tenantbase.cli.backend import WHERE, run
from tenantbase.cli.options import command
from tenantbase.cli.output import standard_output
from tenantbase.process.config import Config

_UNKNOWN: Final = "unknown"
_NAME_COLUMNS: Final = 13


@command("stats", *WHERE)
def stats(config: Config) -> None:
    """Print the figures of a server or, without --url, those of the database.

    In a pipe, they are one line of JSON, as GET /v1/stats has them.
    """
    figures = run(config, lambda backend: backend.stats(), read_only=True)
    if sys.stdout is not None and sys.stdout.isatty():
        text = "".join(f"{name:<{_NAME_COLUMNS}}{value}\n" for name, value in lines(figures))
    else:
        text = msgspec.json.encode(figures).decode() + "\n"
    with standard_output() as output:
        output.write(text.encode())


def lines(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values for people, of those figures that are known."""
    yield "version", figures["version"]
    if "uptime_seconds" in figures:
        yield "uptime", _duration(figures["uptime_seconds"])
        yield "workers", f"{figures['workers']:,}"
        requests = figures["requests"]
        yield "requests", f"{requests['total']:,}"
        yield "  now", (
            f"{requests['per_second']:,.1f}/s, {requests['errors_per_second']:,.1f} errors/s,"
            f" p50 {_milliseconds(requests['p50_ms'])}, p99 {_milliseconds(requests['p99_ms'])}"
        )
        cache = figures["cache"]
        ratio = "" if cache["hit_ratio"] is None else f", {cache['hit_ratio']:.1%} hits"
        yield "cache", f"{'available' if cache['available'] else 'not available'}{ratio}"
        read = f"{cache['hits']:,} hits, {cache['misses']:,} misses, {cache['bypasses']:,} bypasses"
        yield "  keys read", f"{read}, {cache['stale']:,} stale"
    store = figures["store"]
    yield "entries", _UNKNOWN if store["entries"] is None else f"{store['entries']:,}"
    yield "  size", _bytes(store["bytes"])
    yield "database", _bytes(store["database_bytes"])
    yield "  log", _bytes(store["log_bytes"])
    if store["shared"] is not None:
        yield from _shared(store["shared"])
    if "commits" in store:
        yield "commits", f"{store['commits']:,}"
        yield "watchers", f"{figures['watchers']:,}"
        yield "connections", f"{figures['connections']:,}"


def _shared(shared: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Figures of a shared database. If no tenantbase server was asked, only what PostgreSQL says."""
    if "node" in shared:
        yield "node", shared["node"]
    yield "primary", shared["primary"] or "none can be used"
    if standby := shared["standby"]:
        lag = shared["standby_lag_bytes"]
        behind = "" if lag is None else f", {_bytes(lag)} behind"
        yield "  standby", standby + (behind if shared["standby_present"] else ", not connected")
    if "node" not in shared:
        return
    yield "  term", f"{shared['term']:,}"
    lag = f", {shared['position_lag']:,} behind in some worker"
    yield "  position", f"{shared['position']:,}{lag if shared['position_lag'] else ''}"
    age = shared["confirmed_age_seconds"]
    yield "  confirmed", f"{age:,.1f} s ago; {_milliseconds(shared['question_mean_ms'])} on average"
    yield "  lock", f"{_milliseconds(shared['lock_wait_mean_ms'])} on average"
    yield "sessions", f"{_counts(shared['sessions_lost'])} lost"
    yield "in doubt", _counts(shared["doubts"])


def _counts(of: Mapping[str, int]) -> str:
    """A total, and its parts."""
    parts = ", ".join(
        f"{name.replace('_', ' ')} {number:,}" for name, number in of.items() if number
    )
    return f"{sum(of.values()):,}" + (f" ({parts})" if parts else "")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    while len(parts) > 1 and not parts[0][0]:
        parts.pop(0)
    return " ".join(f"{number} {unit}" for number, unit in parts[:2])


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} ms"


def _bytes(size: int | None) -> str:
    if size is None:
        return _UNKNOWN
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{size:,} B" if units[0] == "B" else f"{value:.1f} {units[0]}"
