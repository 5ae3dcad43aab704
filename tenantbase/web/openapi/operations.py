"""The description of every route: what it accepts and how it answers.

``document.py`` generates the OpenAPI document from it. One test compares it with the application's
routes; another generates requests from it and checks the answers against it.
"""

from __future__ import annotations

from typing import Final

from tenantbase.entry import JSON, OCTETS
from tenantbase.json_requests import GetValues, SetValue
from tenantbase.web.handlers.bulk import DeleteValues, SetValues
from tenantbase.web.handlers.changing import RenameValue, TouchValue
from tenantbase.web.handlers.increment import IncrementValue
from tenantbase.web.handlers.lists import NDJSON
from tenantbase.web.handlers.values import DeleteValue, GetValue
from tenantbase.web.openapi import schemas as shapes
from tenantbase.web.openapi.administration import ADMINISTRATION
from tenantbase.web.openapi.console import CONSOLE
from tenantbase.web.openapi.figures import FIGURES
from tenantbase.web.openapi.model import (
    BODY,
    BYTES,
    CONDITIONS,
    CURSOR,
    DELETED,
    ENTRY_HEADERS,
    EVENT_ID,
    EXPIRY,
    FRESH,
    IN_PATH,
    IN_QUERY,
    KEEP_TTL,
    LIST,
    MANY_HEADERS,
    NOT_MODIFIED,
    PREFIX,
    RANGE,
    RAW_HEADERS,
    UNCHANGED,
    VERSION,
    WRITE,
    WRITTEN_HEADERS,
    Operation,
    Parameter,
    Reply,
)
from tenantbase.web.responses import EVENT_STREAM

OPERATIONS: Final = (
    Operation(
        "post",
        "/set-value",
        "setValue",
        "One value",
        "Store a JSON value",
        "The JSON text is preserved exactly. Other values are strings, with `encoding` and"
        " `content_type`. An existing key keeps its id.",
        (Reply(200, "Stored.", {JSON: (shapes.Written,)}, WRITTEN_HEADERS),),
        'curl -s localhost:8000/set-value -d \'{"key": "code", "value": "test", "ttl": 3600}\'',
        CONDITIONS,
        {JSON: SetValue},
        problems=(*BODY, *WRITE),
    ),
    Operation(
        "get",
        "/get-value",
        "getValue",
        "One value",
        "Read an entry",
        "The key is in the query, or in a JSON body, which some proxies drop.",
        (
            Reply(200, "The entry.", {JSON: (shapes.Entry,)}, ENTRY_HEADERS),
            NOT_MODIFIED,
        ),
        "curl -s 'localhost:8000/get-value?key=code'",
        (IN_QUERY, FRESH, *CONDITIONS),
        {JSON: GetValue},
        body_required=False,
        problems=("no-such-key", "condition-failed", *BODY, "store-unavailable"),
    ),
    Operation(
        "delete",
        "/delete-value",
        "deleteValue",
        "One value",
        "Remove a key",
        "The key is in the query, or in a JSON body. Removing an absent key succeeds.",
        (DELETED,),
        "curl -s -X DELETE 'localhost:8000/delete-value?key=code'",
        (
            IN_QUERY,
            Parameter("if_version", "query", VERSION, "Only if the entry has this version."),
            *CONDITIONS,
        ),
        {JSON: DeleteValue},
        body_required=False,
        problems=(*BODY, *WRITE),
    ),
    Operation(
        "get",
        "/get-values",
        "getValues",
        "Many values",
        "List entries",
        "In byte order of keys. The list is not a snapshot, but a key that exists throughout is"
        " listed exactly once.",
        (
            Reply(
                200,
                "The entries.",
                {JSON: (shapes.Page, shapes.KeyPage, shapes.MetaPage)},
                MANY_HEADERS,
            ),
        ),
        "curl -s 'localhost:8000/get-values?prefix=c&limit=100'",
        LIST,
        problems=("store-unavailable",),
    ),
    Operation(
        "post",
        "/get-values",
        "getManyValues",
        "Many values",
        "Read many entries",
        "",
        (Reply(200, "The entries that exist.", {JSON: (shapes.Found,)}, MANY_HEADERS),),
        'curl -s localhost:8000/get-values -d \'{"keys": ["code", "nope"]}\'',
        (FRESH,),
        {JSON: GetValues},
        problems=("cross-origin-write", *BODY, "store-unavailable"),
    ),
    Operation(
        "post",
        "/set-values",
        "setManyValues",
        "Many values",
        "Store many values, all or none",
        "Each entry may have its own conditions. If any of them fails, nothing is stored.",
        (Reply(200, "Stored.", {JSON: (shapes.WrittenMany,)}, MANY_HEADERS),),
        "curl -s localhost:8000/set-values -d"
        ' \'{"values": [{"key": "a/1", "value": 1}, {"key": "a/2", "value": 2}]}\'',
        CONDITIONS,
        {JSON: SetValues},
        problems=(*BODY, *WRITE),
    ),
    Operation(
        "post",
        "/delete-values",
        "deleteManyValues",
        "Many values",
        "Remove many keys, or all keys with a prefix",
        "All or none. Each of `entries` may have its own condition. An empty prefix removes every"
        " key. With `return_values`, the answer also has the entries that were removed, of at most"
        " 8 MiB together; it does not work with `prefix`.",
        (Reply(200, "Removed.", {JSON: (shapes.Deleted,)}, MANY_HEADERS),),
        'curl -s localhost:8000/delete-values -d \'{"prefix": "a/"}\'',
        CONDITIONS,
        {JSON: DeleteValues},
        problems=(*BODY, *WRITE),
    ),
    Operation(
        "post",
        "/increment-value",
        "incrementValue",
        "One value",
        "Add to an integer",
        "Atomic. An absent key counts as `initial`. Integers are exact, however large.",
        (Reply(200, "The new value.", {JSON: (shapes.Counted,)}, WRITTEN_HEADERS),),
        'curl -s localhost:8000/increment-value -d \'{"key": "visits", "by": 5}\'',
        CONDITIONS,
        {JSON: IncrementValue},
        problems=("wrong-type", *BODY, *WRITE),
    ),
    Operation(
        "post",
        "/touch-value",
        "touchValue",
        "One value",
        "Change when an entry expires",
        "The value stays as it is. Give `ttl` or `expires_at`; an `expires_at` of null means never.",
        (Reply(200, "Changed.", {JSON: (shapes.Written,)}, WRITTEN_HEADERS),),
        'curl -s localhost:8000/touch-value -d \'{"key": "visits", "ttl": 3600}\'',
        CONDITIONS,
        {JSON: TouchValue},
        problems=("no-such-key", *BODY, *WRITE),
    ),
    Operation(
        "post",
        "/rename-value",
        "renameValue",
        "One value",
        "Move or copy an entry to another key",
        "Atomic. The value, its type and its expiry stay as they are. Conditions are on `key`.",
        (Reply(200, "The entry at `to`.", {JSON: (shapes.Written,)}, WRITTEN_HEADERS),),
        "curl -s localhost:8000/rename-value -d"
        ' \'{"key": "visits", "to": "visits/2026", "copy": true, "replace": true}\'',
        CONDITIONS,
        {JSON: RenameValue},
        problems=("no-such-key", *BODY, *WRITE),
    ),
    Operation(
        "put",
        "/v1/values/{key}",
        "putRawValue",
        "Raw values",
        "Store bytes",
        "Any bytes, with their `Content-Type`. If that is JSON, the bytes must be valid JSON.",
        (
            Reply(200, "Replaced.", {JSON: (shapes.Written,)}, WRITTEN_HEADERS),
            Reply(201, "Created.", {JSON: (shapes.Written,)}, (*WRITTEN_HEADERS, "Location")),
        ),
        "printf hello | curl -s -X PUT -H 'Content-Type: text/plain' --data-binary @-"
        " localhost:8000/v1/values/notes/today",
        (IN_PATH, *EXPIRY, KEEP_TTL, *CONDITIONS),
        {OCTETS: BYTES, "text/plain": BYTES, JSON: BYTES},
        problems=(*BODY, *WRITE),
    ),
    Operation(
        "get",
        "/v1/values/{key}",
        "getRawValue",
        "Raw values",
        "Read a value as bytes",
        "",
        (
            Reply(
                200,
                "The value, with the `Content-Type` it was stored with.",
                {"*/*": BYTES},
                RAW_HEADERS,
                ("Content-Disposition",),
            ),
            Reply(
                206,
                "The requested bytes.",
                {"*/*": BYTES},
                (*RAW_HEADERS, "Content-Range"),
                ("Content-Disposition",),
            ),
            NOT_MODIFIED,
        ),
        "curl -s localhost:8000/v1/values/notes/today",
        (IN_PATH, FRESH, *CONDITIONS, *RANGE),
        problems=("no-such-key", "condition-failed", "range-not-satisfiable", "store-unavailable"),
    ),
    Operation(
        "delete",
        "/v1/values/{key}",
        "deleteRawValue",
        "Raw values",
        "Remove a key",
        "Removing an absent key succeeds.",
        (DELETED,),
        "curl -s -X DELETE localhost:8000/v1/values/notes/today",
        (IN_PATH, *CONDITIONS),
        problems=WRITE,
    ),
    Operation(
        "get",
        "/v1/values",
        "listValues",
        "Many values",
        "List entries, as JSON or NDJSON",
        f"As `/get-values`. With `Accept: {NDJSON}`, one entry or prefix per line. If `limit` ended"
        " the list, `Link` has the next page.",
        (
            Reply(
                200,
                "The entries.",
                {
                    JSON: (shapes.Page, shapes.KeyPage, shapes.MetaPage),
                    NDJSON: {"type": "string"},
                },
                MANY_HEADERS,
                ("Link",),
            ),
        ),
        f"curl -s -H 'Accept: {NDJSON}' 'localhost:8000/v1/values?fields=key'",
        LIST,
        problems=("store-unavailable",),
    ),
    Operation(
        "get",
        "/v1/count",
        "countValues",
        "Many values",
        "Count entries",
        "For at most a second. If time is up, the answer has `at_least`, and a cursor with which the"
        " count continues: add the results.",
        (Reply(200, "The count.", {JSON: (shapes.Count,)}, MANY_HEADERS),),
        "curl -s 'localhost:8000/v1/count?prefix=a/'",
        (PREFIX, CURSOR),
        problems=("store-unavailable",),
    ),
    Operation(
        "get",
        "/v1/watch",
        "watch",
        "Changes",
        "Watch keys",
        "An endless stream of server-sent events: `set`, `delete` and `expire` with"
        ' `{"key": ..., "version": ...}`, where `set` also has `size`, `content_type` and'
        ' `expires_at`, and `reset` with `{"prefix": ..., "version": ...}`, after'
        " which every key with the prefix must be read again. The id of an event is its version."
        " With `Last-Event-ID`, the stream begins with the events since that one, or with `reset`"
        " if the id is unknown.",
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
            PREFIX,
            Parameter("last_event_id", "query", EVENT_ID, "Instead of the header."),
            Parameter("lastEventId", "query", EVENT_ID, "The same, for polyfills of EventSource."),
            Parameter(
                "Last-Event-ID", "header", EVENT_ID, "Begin after this event instead of now."
            ),
        ),
        problems=("store-unavailable",),
    ),
    *ADMINISTRATION,
    *FIGURES,
    Operation(
        "get",
        "/health-check",
        "healthCheck",
        "Service",
        "Whether the server can serve",
        "Cheap enough for a load balancer to ask every second.",
        (
            Reply(200, "It can serve.", {JSON: (shapes.HealthReport,)}),
            Reply(
                503,
                "It cannot serve, or is shutting down.",
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
        "Whether the process is alive",
        "",
        (Reply(200, "It is alive.", {JSON: (shapes.Alive,)}),),
        "curl -s localhost:8000/livez",
    ),
    Operation(
        "get",
        "/openapi.json",
        "openapi",
        "Service",
        "This document",
        "",
        (
            Reply(200, "OpenAPI 3.1.", {JSON: {"type": "object"}}, (*MANY_HEADERS, "ETag")),
            UNCHANGED,
        ),
        "curl -s localhost:8000/openapi.json",
    ),
    Operation(
        "get",
        "/docs",
        "docs",
        "Service",
        "This document as a page",
        "",
        (
            Reply(
                200,
                "A page without scripts or external resources.",
                {"text/html": {"type": "string"}},
                (*MANY_HEADERS, "ETag", "Content-Security-Policy", "X-Content-Type-Options"),
            ),
            UNCHANGED,
        ),
        "curl -s localhost:8000/docs",
    ),
    *CONSOLE,
)
