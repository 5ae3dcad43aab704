"""The metrics of all workers together, in the Prometheus text format, by ``prometheus_client``.

Every metric is defined here, with its name, help and type.
"""

from __future__ import annotations

import math
import platform
import resource
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import reduce
from itertools import accumulate
from operator import or_
from typing import Final, NamedTuple

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tenantbase import __version__
from tenantbase import figures as f
from tenantbase.access import Tenant
from tenantbase.figures import SECOND, CacheFailure, CacheState, Histogram
from tenantbase.interfaces.store import ServerState, StoreSize
from tenantbase.metrics.board import Board
from tenantbase.metrics.processes import Usage, started_at, usage
from tenantbase.metrics.pulse import lag
from tenantbase.troubles import Trouble

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_PREFIX: Final = "tenantbase_"
_ONCE: Final = 1


class Scraped(NamedTuple):
    """What a scrape shows besides the board.

    Attributes:
        requests: method, route, status, and number of requests.
        durations: the histogram of each route.
        serves: whether the database can serve.
        size: of the database; None if unknown.
        tenants: those to show one by one.
        cache_servers: the addresses in ``--memcached``, in that order.
    """

    requests: Iterable[tuple[str, str, int, int]]
    durations: Mapping[str, Histogram]
    serves: bool
    size: StoreSize | None
    troubles: Sequence[Trouble]
    tenants: Sequence[Tenant]
    cache_servers: Sequence[str] = ()


def exposition(board: Board, cells: list[int], scraped: Scraped) -> bytes:
    """The metrics as text. ``cells``: the sums over all workers."""
    return generate_latest(_Collected([*_families(board, cells, scraped)]))


def in_cache_state(board: Board) -> CacheState:
    """The worst state of memcached that any worker sees."""
    states = [state for state in board.of_each(f.CACHE_STATE) if state != CacheState.OFF]
    return CacheState(min(states, default=CacheState.OFF))


def cache_away(board: Board) -> Set[int]:
    """The servers of memcached that do not answer some worker, by their number."""
    bits = reduce(or_, board.of_each(f.CACHE_AWAY), 0)
    return {server for server in range(bits.bit_length()) if bits >> server & 1}


class _Collected(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(board: Board, cells: list[int], scraped: Scraped) -> Iterator[Metric]:
    yield from _http(cells, scraped)
    yield from _cache(board, cells, scraped.cache_servers)
    yield from _store(cells, scraped)
    yield from _shared(board, cells, scraped.size)
    yield from _tenants(scraped.tenants)
    yield _counter("rate_limited", "Requests refused by a tenant's rate.", cells[f.RATE_LIMITED])
    workers = board.of_each(f.PID)
    yield _gauge("event_loop_lag_seconds", "Longest recent delay of an event loop.", lag(board))
    yield _gauge("workers", "Running workers.", len(workers))
    yield _counter("worker_restarts", "Workers that died or hung, replaced.", board.restarts)
    build = {
        "version": __version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    yield _labelled(GaugeMetricFamily, "build_info", "What runs.", [(build, _ONCE)])
    yield from _processes(board, workers)


def _http(cells: list[int], scraped: Scraped) -> Iterator[Metric]:
    requests = [
        ({"method": method, "route": route, "status": str(status)}, count)
        for method, route, status, count in scraped.requests
    ]
    yield _labelled(CounterMetricFamily, "http_requests", "Requests that have ended.", requests)
    refused = sum(count for labels, count in requests if labels["status"] == "401")
    yield _counter("unauthenticated", "Requests without a valid token.", refused)
    durations = HistogramMetricFamily(
        _PREFIX + "http_request_duration_seconds",
        "From the head of a request to the end of its answer.",
        labels=["route"],
    )
    for route, histogram in scraped.durations.items():
        if any(cells[histogram.first : histogram.sum]):
            buckets, total = _buckets(cells, histogram, SECOND)
            durations.add_metric([route], buckets, total)
    yield durations
    yield _gauge("http_connections", "Open connections.", cells[f.CONNECTIONS])
    yield _gauge("watchers", "Watches that last.", cells[f.WATCHERS])


def _cache(board: Board, cells: list[int], servers: Sequence[str]) -> Iterator[Metric]:
    reads = [
        ({"result": "hit"}, cells[f.HITS]),
        ({"result": "miss"}, cells[f.MISSES]),
        ({"result": "bypass"}, cells[f.BYPASSES]),
        ({"result": "stale"}, cells[f.STALE_HITS]),
    ]
    yield _labelled(CounterMetricFamily, "cache_reads", "Keys read, by cache status.", reads)
    rejected = cells[f.REJECTED_ITEMS]
    yield _counter("cache_items_rejected", "Items that memcached had, not valid.", rejected)
    failures = [({"reason": str(why)}, cells[f.CACHE_FAILURES[why]]) for why in CacheFailure]
    help = "Operations of memcached that failed."
    yield _labelled(CounterMetricFamily, "cache_failures", help, failures)
    state = in_cache_state(board)
    yield _gauge("cache_configured", "Whether there is a memcached.", state != CacheState.OFF)
    available = state == CacheState.AVAILABLE
    yield _gauge("cache_available", "Whether memcached answers every worker.", available)
    away = cache_away(board)
    each = [({"server": server}, number not in away) for number, server in enumerate(servers)]
    help = "Whether each server in --memcached answers every worker."
    yield _labelled(GaugeMetricFamily, "cache_server_available", help, each)


def _store(cells: list[int], scraped: Scraped) -> Iterator[Metric]:
    yield _gauge("store_available", "Whether the database can serve.", scraped.serves)
    troubles = [({"kind": str(each)}, each in scraped.troubles) for each in Trouble]
    yield _labelled(GaugeMetricFamily, "trouble", "Troubles of the database.", troubles)
    yield _counter("commits", "Groups of writes that changed something.", cells[f.COMMITS])
    yield _histogram(
        "commit_duration_seconds",
        "From the wait for the write lock to the end of a commit.",
        cells,
        f.COMMIT_DURATION,
        SECOND,
    )
    yield _histogram("commit_writes", "Writes in a commit.", cells, f.COMMIT_WRITES, 1)
    yield _histogram(
        "checkpoint_duration_seconds",
        "Copying the write-ahead log into the database; writes wait for it.",
        cells,
        f.CHECKPOINT_DURATION,
        SECOND,
    )
    yield _counter("expired", "Expired entries that were removed.", cells[f.EXPIRED])
    if size := scraped.size:
        yield _gauge("entries", "Entries of all tenants.", size.entries)
        yield _gauge("entry_bytes", "Keys and values of all tenants.", size.bytes)
        yield _gauge("database_bytes", "Size of the database's file.", size.database_bytes)
        yield _gauge("log_bytes", "Size of the write-ahead log.", size.log_bytes)
        if size.free_bytes is not None:
            yield _gauge("disk_free_bytes", "Space left for the database.", size.free_bytes)


def _shared(board: Board, cells: list[int], size: StoreSize | None) -> Iterator[Metric]:
    """Of a database that several machines share; nothing if it is a file."""
    asked_at = [each for each in board.of_each(f.STORE_CONFIRMED_AT) if each]
    if not asked_at:
        return
    yield _histogram(
        "store_question_duration_seconds",
        "From a question to the shared database to its confirmed answer.",
        cells,
        f.QUESTION_DURATION,
        SECOND,
    )
    help = "Keys whose cached copies were judged by such an answer."
    yield _counter("store_question_keys", help, cells[f.QUESTION_READS])
    positions = [each for each in board.of_each(f.STORE_POSITION) if each]
    help = "Every worker knows which keys have changed up to this change."
    yield _gauge("store_position", help, min(positions, default=0))
    help = "Changes that some worker knows of and another does not."
    yield _gauge("store_position_lag", help, max(positions, default=0) - min(positions, default=0))
    help = "Promotions that the database has seen, plus one for its start."
    yield _gauge("store_term", help, max(board.of_each(f.STORE_TERM)))
    help = "The longest time since a worker's last confirmed question."
    age = max(0.0, time.monotonic() - min(asked_at) / SECOND)
    yield _gauge("store_confirmed_age_seconds", help, age)
    yield from _sessions(cells)
    replicated = any(board.of_each(f.STORE_REPLICATED))
    yield from _server(size.server if size else None, replicated)


def _sessions(cells: list[int]) -> Iterator[Metric]:
    lost = [({"reason": str(loss)}, cells[cell]) for loss, cell in f.SESSIONS_LOST.items()]
    help = "Sessions with the database that were given up."
    yield _labelled(CounterMetricFamily, "store_sessions_lost", help, lost)
    doubts = [({"outcome": str(end)}, cells[cell]) for end, cell in f.DOUBTS.items()]
    help = "Groups of writes whose COMMIT was not answered, by their outcome."
    yield _labelled(CounterMetricFamily, "store_doubts", help, doubts)
    help = "Wait of a group of writes for the lock of the shared database."
    yield _histogram("store_lock_wait_seconds", help, cells, f.LOCK_WAIT, SECOND)


def _server(server: ServerState | None, replicated: bool) -> Iterator[Metric]:
    """Of the database's server. None: it does not answer."""
    if server:
        help = "Age of the server's oldest transaction id."
        yield _gauge("store_oldest_xid_age", help, server.oldest_xid_age)
    if replicated:
        present = server is not None and server.standby_present
        help = "Whether the primary answers and has its synchronous standby."
        yield _gauge("store_standby_present", help, present)
    if server and server.standby:
        info = [({"standby": server.standby}, _ONCE)]
        help = "The synchronous standby."
        yield _labelled(GaugeMetricFamily, "store_standby_info", help, info)


def _tenants(tenants: Sequence[Tenant]) -> Iterator[Metric]:
    if not tenants:
        return
    for name, help, values in (
        ("tenant_entries", "Entries.", [(each, each.entries) for each in tenants]),
        ("tenant_bytes", "Keys and values.", [(each, each.bytes) for each in tenants]),
        ("tenant_max_entries", "Limit.", [(each, each.limits.max_entries) for each in tenants]),
        ("tenant_max_bytes", "Limit.", [(each, each.limits.max_bytes) for each in tenants]),
    ):
        shown = [({"tenant": each.name}, value) for each, value in values if value is not None]
        yield _labelled(GaugeMetricFamily, name, help, shown)


def _processes(board: Board, workers: list[int]) -> Iterator[Metric]:
    """The usual metrics of a process, for all processes together."""
    pids = {board.supervisor, *workers}
    used, ended = usage(pids), board.ended_cpu
    if used is None:
        return
    while ended != (ended_since := board.ended_cpu):  # a worker ended meanwhile
        used, ended = usage({board.supervisor, *board.of_each(f.PID)}) or used, ended_since
    yield from _process(used, ended, len(pids))
    name = "process_start_time_seconds"
    yield GaugeMetricFamily(name, "When the server started.", started_at(board.uptime))


def _process(used: Usage, ended: float, processes: int) -> Iterator[Metric]:
    yield CounterMetricFamily("process_cpu_seconds", "Processor time.", used.cpu + ended)
    name, help = "process_resident_memory_bytes", "Resident memory of each process, summed."
    yield GaugeMetricFamily(name, help, used.resident)
    name, help = "process_virtual_memory_bytes", "Virtual memory of each process, summed."
    yield GaugeMetricFamily(name, help, used.virtual)
    yield GaugeMetricFamily("process_open_fds", "Open descriptors.", used.descriptors)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    name, help = "process_max_fds", "Descriptors that all processes may have."
    unlimited = limit == resource.RLIM_INFINITY
    yield GaugeMetricFamily(name, help, math.inf if unlimited else limit * processes)


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, help, value)


def _counter(name: str, help: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, help, value)


def _labelled(
    family: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    help: str,
    samples: Sequence[tuple[Mapping[str, str], float]],
) -> Metric:
    names = list(samples[0][0]) if samples else ["none"]
    made = family(_PREFIX + name, help, labels=names)
    for labels, value in samples:
        made.add_metric([*labels.values()], value)
    return made


def _histogram(name: str, help: str, cells: list[int], histogram: Histogram, unit: int) -> Metric:
    buckets, total = _buckets(cells, histogram, unit)
    return HistogramMetricFamily(_PREFIX + name, help, buckets=buckets, sum_value=total)


def _buckets(
    cells: list[int], histogram: Histogram, unit: int
) -> tuple[list[tuple[str, float]], float]:
    bounds = [f"{bound / unit:g}" for bound in histogram.bounds] + ["+Inf"]
    counts = accumulate(cells[histogram.first : histogram.sum])
    return [*zip(bounds, map(float, counts), strict=True)], cells[histogram.sum] / unit
