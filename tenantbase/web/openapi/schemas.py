"""The shapes of answers, for the OpenAPI document. ``documents.py`` renders them."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from tenantbase.access import TokenScope
from tenantbase.troubles import Trouble

_ORDER: Final = "In byte order of keys, or the opposite one."
_Prefixes = (
    Annotated[list[str], Meta(description="What keys were folded into; only with `delimiter`.")]
    | msgspec.UnsetType
)


class Entry(msgspec.Struct):
    """One entry. A value that is not JSON is a string: text, or bytes in base64."""

    key: str
    value: msgspec.Raw
    id: str
    version: int
    expires_at: float | None
    encoding: Literal["base64", "utf-8"] | msgspec.UnsetType = msgspec.UNSET
    content_type: str | msgspec.UnsetType = msgspec.UNSET


class Key(msgspec.Struct):
    """The key of an entry."""

    key: str


class EntryMeta(msgspec.Struct):
    """An entry without its value."""

    key: str
    id: str
    version: int
    expires_at: float | None
    content_type: str
    size: int


class Written(msgspec.Struct):
    """The result of a write."""

    key: str
    id: str
    version: int
    created: bool
    expires_at: float | None


class Counted(msgspec.Struct):
    """A counter after an increment."""

    key: str
    value: Annotated[int, Meta(description="The new value.")]
    id: str
    version: int
    created: bool
    expires_at: float | None


class Page(msgspec.Struct):
    """Entries, and the cursor of the next page."""

    values: Annotated[list[Entry], Meta(description=_ORDER)]
    cursor: str | None
    prefixes: _Prefixes = msgspec.UNSET


class KeyPage(msgspec.Struct):
    """Keys, and the cursor of the next page."""

    values: Annotated[list[Key], Meta(description=_ORDER)]
    cursor: str | None
    prefixes: _Prefixes = msgspec.UNSET


class MetaPage(msgspec.Struct):
    """Entries without their values, and the cursor of the next page."""

    values: Annotated[list[EntryMeta], Meta(description=_ORDER)]
    cursor: str | None
    prefixes: _Prefixes = msgspec.UNSET


class Count(msgspec.Struct):
    """How many entries there are."""

    count: Annotated[int, Meta(description="How many.")]
    bytes: Annotated[int, Meta(description="Their keys and values.")]
    at_least: (
        Annotated[bool, Meta(description="There may be more: time was up.")] | msgspec.UnsetType
    ) = msgspec.UNSET
    cursor: Annotated[str, Meta(description="Where the count continues.")] | msgspec.UnsetType = (
        msgspec.UNSET
    )


class Found(msgspec.Struct):
    """The entries that exist, and the keys that do not."""

    values: Annotated[list[Entry], Meta(description="In the order of the request.")]
    missing: list[str]


class WrittenMany(msgspec.Struct):
    """The results of a write, in the order of the request."""

    values: Annotated[list[Written], Meta(description="One for each entry of the request.")]


class Deleted(msgspec.Struct):
    """The result of a deletion."""

    deleted: int
    values: Annotated[
        list[Entry] | msgspec.UnsetType,
        Meta(description="With `return_values`: the entries as they were, in the order asked for."),
    ] = msgspec.UNSET


class HealthReport(msgspec.Struct):
    """The state of the server. ``degraded``: it serves, but memcached or the database has a problem."""

    status: Literal["ok", "degraded", "unavailable"]
    store: Literal["ok", "degraded", "unavailable"]
    troubles: Annotated[
        list[Trouble],
        Meta(description="Current problems of the database."),
    ]
    cache: Annotated[
        Literal["ok", "degraded", "unavailable", "off"],
        Meta(description="`degraded`: some of several memcacheds are away."),
    ]
    cache_away: Annotated[
        list[int],
        Meta(description="The memcacheds that are away, by their places in `--memcached`, from 1."),
    ]
    draining: Annotated[bool, Meta(description="Shutting down; send new connections elsewhere.")]
    version: Annotated[str, Meta(description="The version of tenantbase.")]


class CallersToken(msgspec.Struct):
    """The token that a request was made with."""

    id: Annotated[str, Meta(description="The token's id.")]
    name: str
    expires_at: float | None


class Caller(msgspec.Struct):
    """What a caller may do."""

    scope: TokenScope
    tenant: str | None
    prefix: str | None
    max_value_bytes: Annotated[int, Meta(description="The largest value, in bytes.")]
    token: CallersToken | None


class Tenant(msgspec.Struct):
    """A tenant, its usage and its limits; null: no limit."""

    name: str
    entries: Annotated[int, Meta(description="How many it has.")]
    bytes: Annotated[int, Meta(description="Its keys and values.")]
    max_entries: int | None
    max_bytes: int | None
    max_requests_per_second: int | None


class Tenants(msgspec.Struct):
    """All tenants."""

    tenants: Annotated[list[Tenant], Meta(description="In order of their names.")]


class Token(msgspec.Struct):
    """A token, without its secret."""

    id: Annotated[str, Meta(description="A UUID.")]
    name: str
    scope: TokenScope
    tenant: str | None
    prefix: str | None
    created_at: Annotated[float, Meta(description="In Unix seconds.")]
    expires_at: float | None


class NewToken(Token):
    """A token with its secret, which is shown only once."""

    token: Annotated[str, Meta(description="The secret: `tb_` and 43 characters of base64url.")]


class Tokens(msgspec.Struct):
    """All tokens."""

    tokens: Annotated[list[Token], Meta(description="In order of their creation.")]


class RequestStats(msgspec.Struct):
    """Requests, watches aside; times are null if there were none in the last ten seconds."""

    total: Annotated[int, Meta(description="Since the server started.")]
    per_second: float
    errors_per_second: Annotated[float, Meta(description="Those with a status from 500.")]
    p50_ms: float | None
    p99_ms: float | None


class CacheStats(msgspec.Struct):
    """Keys read, by where they were found."""

    available: Annotated[
        bool, Meta(description="Whether memcached answers every worker; of several, at least one.")
    ]
    away: Annotated[
        list[str],
        Meta(description="The addresses in `--memcached` that do not answer some worker."),
    ]
    hits: int
    stale: Annotated[int, Meta(description="Hits that `max-stale` permitted.")]
    misses: int
    bypasses: int
    hit_ratio: Annotated[float | None, Meta(description="Null before the first read.")]


class SessionsLost(msgspec.Struct):
    """Sessions with the database that were given up, by reason."""

    connection: int
    timeout: int
    term: int
    standby: int
    warning: int


class Doubts(msgspec.Struct):
    """Groups of writes whose COMMIT was not answered, by their outcome."""

    made: int
    not_made: int
    unknown: int


class SharedStats(msgspec.Struct):
    """A database that several machines share, as this node sees it."""

    node: Annotated[str, Meta(description="Host name and process.")]
    primary: Annotated[str | None, Meta(description="Its address; null while there is none.")]
    standby: Annotated[str | None, Meta(description="The name of the synchronous standby.")]
    standby_present: Annotated[bool, Meta(description="It is connected to the primary.")]
    standby_lag_bytes: Annotated[
        int | None, Meta(description="How much of the log it has yet to apply; null if unknown.")
    ]
    oldest_xid_age: int | None
    term: Annotated[
        int, Meta(description="Promotions that the database has seen, plus one for its start.")
    ]
    position: Annotated[int, Meta(description="Every worker knows all changes up to this one.")]
    position_lag: Annotated[int, Meta(description="Changes that only some workers know of.")]
    confirmed_age_seconds: float
    questions: Annotated[int, Meta(description="Asked of the primary and its standby.")]
    question_mean_ms: float | None
    keys_per_question: float | None
    lock_wait_mean_ms: float | None
    sessions_lost: SessionsLost
    doubts: Doubts


class StoreStats(msgspec.Struct):
    """The database; null while it cannot say."""

    entries: int | None
    bytes: Annotated[int | None, Meta(description="Keys and values of all tenants.")]
    database_bytes: int | None
    log_bytes: Annotated[int | None, Meta(description="Of the write-ahead log; 0 on PostgreSQL.")]
    commits: int
    shared: Annotated[SharedStats | None, Meta(description="Null if the database is a file.")]


class Stats(msgspec.Struct):
    """The service's figures."""

    version: str
    uptime_seconds: float
    workers: Annotated[int, Meta(description="Those that run.")]
    requests: RequestStats
    cache: CacheStats
    store: StoreStats
    watchers: int
    connections: int


class Alive(msgspec.Struct):
    """The process is alive."""

    status: Literal["ok"]


class Problem(msgspec.Struct):
    """Why a request failed (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    field: str | msgspec.UnsetType = msgspec.UNSET
    key: str | msgspec.UnsetType = msgspec.UNSET
    version: int | msgspec.UnsetType = msgspec.UNSET
    limit: Annotated[str, Meta(description="The limit that was reached.")] | msgspec.UnsetType = (
        msgspec.UNSET
    )
