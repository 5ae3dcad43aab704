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


class SharedStats(msgspec.Struct, frozen=True):
    """A database that several machines share, as the node that answered sees it.

    Attributes:
        node: its host name and process.
        primary: the address of the primary server; None while there is none.
        standby: the name of the synchronous standby; None: there is none, or it is not known.
        standby_present: it is connected to the primary.
        standby_lag_bytes: how much of the write-ahead log it has yet to apply; None: unknown.
        oldest_xid_age: age of the server's oldest transaction id; None: unknown.
        term: how many promotions the database has seen, plus one for its start.
        position: every worker knows all changes up to this one.
        position_lag: changes that only some workers know of.
        confirmed_age_seconds: the longest time since a worker's last confirmed question.
        questions: how many were asked of the database.
        question_mean_ms, lock_wait_mean_ms: means since the server started; None: there were none.
        keys_per_question: the average number of keys whose cached copies one answer judged.
        sessions_lost: sessions with the database that were given up, by reason.
        doubts: groups of writes whose COMMIT was not answered, by their outcome.
    """

    node: str
    primary: str | None
    standby: str | None
    standby_present: bool
    standby_lag_bytes: int | None
    oldest_xid_age: int | None
    term: int
    position: int
    position_lag: int
    confirmed_age_seconds: float
    questions: int
    question_mean_ms: float | None
    keys_per_question: float | None
    lock_wait_mean_ms: float | None
    sessions_lost: dict[str, int]
    doubts: dict[str, int]


class StoreStats(msgspec.Struct, frozen=True):
    """The database. Figures are None while it does not answer.

    Attributes:
        bytes: of keys and values.
        database_bytes, log_bytes: sizes of its file and of its write-ahead log.
        commits: since the server started.
        shared: None if the database is a file.
    """

    entries: int | None
    bytes: int | None
    database_bytes: int | None
    log_bytes: int | None
    commits: int
    shared: SharedStats | None = None


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
