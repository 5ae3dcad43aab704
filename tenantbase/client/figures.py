"""The figures of a server, as ``Client.stats`` returns them."""

from __future__ import annotations

import msgspec


class RequestStats(msgspec.Struct, frozen=True):
    """Requests; watches do not count.

    Attributes:
        total: since the server started.
        per_second, errors_per_second: in the last ten seconds; errors are those with a status from 500.
        p50_ms, p99_ms: percentiles of durations in the last ten seconds; None: no requests.
    """

    total: int
    per_second: float
    errors_per_second: float
    p50_ms: float | None
    p99_ms: float | None


class CacheStats(msgspec.Struct, frozen=True):
    """Keys read since the server started, by where they were found.

    Attributes:
        available: memcached answers every worker.
        stale: hits that ``max-stale`` permitted.
        bypasses: read from the database, without memcached.
        hit_ratio: hits, stale or not, among all keys read; None: no key was read.
        away: the addresses in ``--memcached`` that do not answer some worker.
    """

    available: bool
    hits: int
    misses: int
    bypasses: int
    hit_ratio: float | None
    away: tuple[str, ...] = ()
    stale: int = 0


class StoreStats(msgspec.Struct, frozen=True):
    """The database. Figures are None while it does not answer.

    Attributes:
        bytes: of keys and values.
        database_bytes, log_bytes: sizes of its file and of its write-ahead log.
        commits: since the server started.
    """

    entries: int | None
    bytes: int | None
    database_bytes: int | None
    log_bytes: int | None
    commits: int


class Stats(msgspec.Struct, frozen=True):
    """The figures of a server, of all its workers together."""

    version: str
    uptime_seconds: float
    workers: int
    requests: RequestStats
    cache: CacheStats
    store: StoreStats
    watchers: int
    connections: int
