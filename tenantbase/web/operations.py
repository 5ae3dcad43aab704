"""Every route, as its description has it: what it takes and what it answers.

``openapi.py`` makes the document of it. A test compares it with the routes of the application,
and another one sends requests made from it, whose answers must be as it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from tenantbase.entry import JSON, OCTETS
from tenantbase.web import shapes
from tenantbase.web.bulk import DeleteValues, GetValues, SetValues
from tenantbase.web.changes import SetValue
from tenantbase.web.counters import IncrementValue
from tenantbase.web.lists import MAX_LIMIT, NDJSON
from tenantbase.web.values import DeleteValue, GetValue
from tenantbase.web.watch import EVENT_STREAM

Schema = Mapping[str, Any]
Shape = type[msgspec.Struct]


@dataclass(frozen=True)
class Parameter:
    """A parameter: in ``query``, ``path`` or ``header``."""

    name: str
    place: str
    schema: Schema
    text: str
    required: bool = False


@dataclass(frozen=True)
class Reply:
    """A success. ``content``: media type, and shapes or a schema of what comes in it.

    Headers are always there, unless they are named in ``sometimes``.
    """

    status: int
    text: str
    content: Mapping[str, tuple[Shape, ...] | Schema] = field(default_factory=dict)
    headers: tuple[str, ...] = ("Cache-Control",)
    sometimes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """One method of one path.

    Attributes:
        problems: the names of the problems it can answer with, besides those of every request.
        example: a command that shows it, to be run as it stands.
    """

    method: str
    path: str
    name: str
    tag: str
    summary: str
    text: str
    replies: tuple[Reply, ...]
    example: str
    parameters: tuple[Parameter, ...] = ()
    body: Mapping[str, Shape | Schema] = field(default_factory=dict)
    body_required: bool = True
    problems: tuple[str, ...] = ()


KEY: Final = {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": r"^[^\u0000]+$"}
_TEXT: Final = {"type": "string", "pattern": r"^[^\u0000]*$"}
_VERSION: Final = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_BYTES: Final[Schema] = {}
_TAG_EXAMPLE: Final = {"type": "string", "examples": ['"7"', '"7", "8"', "*"]}

_IN_QUERY: Final = Parameter("key", "query", KEY, "The key; or it is in the body.")
_IN_PATH: Final = Parameter(
    "key", "path", KEY, "The key, percent-encoded; a slash may stay as it is.", True
)
_PREFIX: Final = Parameter("prefix", "query", _TEXT, "Literal text that the keys begin with.")
_LIST: Final = (
    _PREFIX,
    Parameter(
        "limit",
        "query",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT},
        "Entries of a page. Without it all entries come, however many.",
    ),
    Parameter("cursor", "query", {"type": "string"}, "The `cursor` of the page before."),
    Parameter("fields", "query", {"enum": ["key"]}, "`key`: without the values."),
)
_IF_MATCH: Final = Parameter(
    "If-Match", "header", _TAG_EXAMPLE, "Only if the entry has one of these versions, or exists."
)
_IF_NONE_MATCH: Final = Parameter(
    "If-None-Match", "header", _TAG_EXAMPLE, "Only if it has none of these versions; `*`: is absent."
)
_CONDITIONS: Final = (_IF_MATCH, _IF_NONE_MATCH)
_EXPIRY: Final = (
    Parameter(
        "ttl",
        "query",
        {"type": "number", "exclusiveMinimum": 0},
        "Seconds until the entry expires.",
    ),
    Parameter(
        "expires_at",
        "query",
        {"type": "number", "exclusiveMinimum": 0},
        "When the entry expires, in Unix seconds.",
    ),
)
_RANGE: Final = (
    Parameter("Range", "header", {"type": "string"}, "One range of bytes, such as `bytes=0-99`."),
    Parameter("If-Range", "header", {"type": "string"}, "The `ETag` for which `Range` counts."),
)

_ENTRY_HEADERS: Final = ("ETag", "X-Cache", "Cache-Control")
_RAW_HEADERS: Final = (*_ENTRY_HEADERS, "Accept-Ranges", "X-Content-Type-Options")
_NOT_MODIFIED: Final = Reply(304, "It still has one of these versions.", headers=_ENTRY_HEADERS)
_WRITTEN_HEADERS: Final = ("ETag", "Cache-Control")
_MANY_HEADERS: Final = ("Cache-Control", "Vary")
_DELETED: Final = Reply(204, "It is gone, or was absent.")

_WRITE: Final = (
    "cross-origin-write",
    "condition-failed",
    "overloaded",
    "store-unavailable",
    "outcome-unknown",
    "disk-full",
)
_BODY: Final = ("request-timeout", "too-large")

OPERATIONS: Final = (
    Operation(
        "post",
        "/set-value",
        "setValue",
        "One value",
        "Store a JSON value",
        "It comes back exactly as its text was. What is no JSON may be given in base64, with"
        " `encoding` and `content_type`. A key that exists keeps its id.",
        (Reply(200, "Stored.", {JSON: (shapes.Written,)}, _WRITTEN_HEADERS),),
        "curl -s localhost:8000/set-value -d '{\"key\": \"code\", \"value\": \"test\", \"ttl\": 3600}'",
        _CONDITIONS,
        {JSON: SetValue},
        problems=(*_BODY, *_WRITE),
    ),
    Operation(
        "get",
        "/get-value",
        "getValue",
        "One value",
        "Read an entry",
        "The key is in the query, or in a JSON body, which proxies may drop.",
        (
            Reply(200, "The entry.", {JSON: (shapes.Entry,)}, _ENTRY_HEADERS),
            _NOT_MODIFIED,
        ),
        "curl -s 'localhost:8000/get-value?key=code'",
        (_IN_QUERY, *_CONDITIONS),
        {JSON: GetValue},
        body_required=False,
        problems=("no-such-key", "condition-failed", *_BODY, "store-unavailable"),
    ),
    Operation(
        "delete",
        "/delete-value",
        "deleteValue",
        "One value",
        "Remove a key",
        "The key is in the query, or in a JSON body. Removing an absent key is no error.",
        (_DELETED,),
        "curl -s -X DELETE 'localhost:8000/delete-value?key=code'",
        (
            _IN_QUERY,
            Parameter("if_version", "query", _VERSION, "Only if the entry has this version."),
            *_CONDITIONS,
        ),
        {JSON: DeleteValue},
        body_required=False,
        problems=(*_BODY, *_WRITE),
    ),
    Operation(
        "get",
        "/get-values",
        "getValues",
        "Many values",
        "List entries",
        "In byte order of keys. It is no snapshot, but a key that exists all the time is in it"
        " exactly once.",
        (
            Reply(
                200,
                "The entries.",
                {JSON: (shapes.Page, shapes.KeyPage)},
                _MANY_HEADERS,
            ),
        ),
        "curl -s 'localhost:8000/get-values?prefix=c&limit=100'",
        _LIST,
        problems=("store-unavailable",),
    ),
    Operation(
        "post",
        "/get-values",
        "getManyValues",
        "Many values",
        "Read many entries",
        "",
        (Reply(200, "Those that exist.", {JSON: (shapes.Found,)}, _MANY_HEADERS),),
        "curl -s localhost:8000/get-values -d '{\"keys\": [\"code\", \"nope\"]}'",
        body={JSON: GetValues},
        problems=("cross-origin-write", *_BODY, "store-unavailable"),
    ),
    Operation(
        "post",
        "/set-values",
        "setManyValues",
        "Many values",
        "Store many values, all or none",
        "Each may have its own conditions. If one of them fails, nothing is stored.",
        (Reply(200, "Stored.", {JSON: (shapes.WrittenMany,)}, _MANY_HEADERS),),
        "curl -s localhost:8000/set-values -d"
        " '{\"values\": [{\"key\": \"a/1\", \"value\": 1}, {\"key\": \"a/2\", \"value\": 2}]}'",
        _CONDITIONS,
        {JSON: SetValues},
        problems=(*_BODY, *_WRITE),
    ),
    Operation(
        "post",
        "/delete-values",
        "deleteManyValues",
        "Many values",
        "Remove many keys, or all with a prefix",
        "All or none. An empty prefix removes everything.",
        (Reply(200, "Removed.", {JSON: (shapes.Deleted,)}, _MANY_HEADERS),),
        "curl -s localhost:8000/delete-values -d '{\"prefix\": \"a/\"}'",
        _CONDITIONS,
        {JSON: DeleteValues},
        problems=(*_BODY, *_WRITE),
    ),
    Operation(
        "post",
        "/increment-value",
        "incrementValue",
        "One value",
        "Add to an integer",
        "Atomic. The first call stores `initial + by`. The integers are exact, however large.",
        (Reply(200, "The sum.", {JSON: (shapes.Counted,)}, _WRITTEN_HEADERS),),
        "curl -s localhost:8000/increment-value -d '{\"key\": \"visits\", \"by\": 5}'",
        _CONDITIONS,
        {JSON: IncrementValue},
        problems=("wrong-type", *_BODY, *_WRITE),
    ),
    Operation(
        "get",
        "/v1/values/{key}",
        "getRawValue",
        "Raw values",
        "Read a value's own bytes",
        "",
        (
            Reply(
                200,
                "The value, with the `Content-Type` it was stored with.",
                {"*/*": _BYTES},
                _RAW_HEADERS,
                ("Content-Disposition",),
            ),
            Reply(
                206,
                "The bytes that were asked for.",
                {"*/*": _BYTES},
                (*_RAW_HEADERS, "Content-Range"),
                ("Content-Disposition",),
            ),
            _NOT_MODIFIED,
        ),
        "curl -s localhost:8000/v1/values/notes/today",
        (_IN_PATH, *_CONDITIONS, *_RANGE),
        problems=("no-such-key", "condition-failed", "range-not-satisfiable", "store-unavailable"),
    ),
    Operation(
        "put",
        "/v1/values/{key}",
        "putRawValue",
        "Raw values",
        "Store bytes",
        "Any bytes, and their `Content-Type`; what is called JSON must be JSON.",
        (
            Reply(200, "Replaced.", {JSON: (shapes.Written,)}, _WRITTEN_HEADERS),
            Reply(201, "Made.", {JSON: (shapes.Written,)}, (*_WRITTEN_HEADERS, "Location")),
        ),
        "printf hello | curl -s -X PUT -H 'Content-Type: text/plain' --data-binary @-"
        " localhost:8000/v1/values/notes/today",
        (_IN_PATH, *_EXPIRY, *_CONDITIONS),
        {OCTETS: _BYTES, "text/plain": _BYTES, JSON: _BYTES},
        problems=(*_BODY, *_WRITE),
    ),
    Operation(
        "delete",
        "/v1/values/{key}",
        "deleteRawValue",
        "Raw values",
        "Remove a key",
        "Removing an absent key is no error.",
        (_DELETED,),
        "curl -s -X DELETE localhost:8000/v1/values/notes/today",
        (_IN_PATH, *_CONDITIONS),
        problems=_WRITE,
    ),
    Operation(
        "get",
        "/v1/values",
        "listValues",
        "Many values",
        "List entries, as JSON or a line an entry",
        f"As `/get-values`; with `Accept: {NDJSON}` one entry a line, without a cursor.",
        (
            Reply(
                200,
                "The entries.",
                {JSON: (shapes.Page, shapes.KeyPage), NDJSON: {"type": "string"}},
                _MANY_HEADERS,
            ),
        ),
        f"curl -s -H 'Accept: {NDJSON}' 'localhost:8000/v1/values?fields=key'",
        _LIST,
        problems=("store-unavailable",),
    ),
    Operation(
        "get",
        "/v1/watch",
        "watch",
        "Changes",
        "Watch keys",
        "Server-sent events without end: `set`, `delete` and `expire` with"
        ' `{"key": ..., "version": ...}`, and `reset` with `{"prefix": ..., "version": ...}`, which'
        " says that everything under the prefix is to be read anew. The id of an event is its"
        " version. Given as `Last-Event-ID`, all that happened since comes first.",
        (
            Reply(
                200,
                "Events, and a comment about every 15 seconds.",
                {EVENT_STREAM: {"type": "string"}},
                ("Cache-Control", "X-Accel-Buffering"),
            ),
        ),
        "curl -sN --max-time 1 'localhost:8000/v1/watch?prefix=a/&last_event_id=0' || true",
        (
            _PREFIX,
            Parameter("last_event_id", "query", _VERSION, "Instead of the header."),
            Parameter("Last-Event-ID", "header", _VERSION, "Begin after this event, not now."),
        ),
        problems=("store-unavailable",),
    ),
    Operation(
        "get",
        "/health-check",
        "healthCheck",
        "Service",
        "Whether it can serve",
        "Cheap enough for a load balancer to ask every second.",
        (
            Reply(200, "It can.", {JSON: (shapes.HealthReport,)}),
            Reply(
                503,
                "It cannot, or is about to stop.",
                {JSON: (shapes.HealthReport,)},
                ("Cache-Control", "Retry-After"),
            ),
        ),
        "curl -s localhost:8000/health-check",
    ),
    Operation(
        "get",
        "/livez",
        "alive",
        "Service",
        "Whether it lives",
        "",
        (Reply(200, "It does.", {JSON: (shapes.Alive,)}),),
        "curl -s localhost:8000/livez",
    ),
    Operation(
        "get",
        "/openapi.json",
        "openapi",
        "Service",
        "This description",
        "",
        (Reply(200, "OpenAPI 3.1.", {JSON: {"type": "object"}}),),
        "curl -s localhost:8000/openapi.json",
    ),
    Operation(
        "get",
        "/docs",
        "docs",
        "Service",
        "This description as a page",
        "",
        (
            Reply(
                200,
                "A page without scripts that loads nothing.",
                {"text/html": {"type": "string"}},
                ("Cache-Control", "Content-Security-Policy", "X-Content-Type-Options"),
            ),
        ),
        "curl -s localhost:8000/docs",
    ),
)
