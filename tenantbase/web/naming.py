"""The id of a request in its answer, for both HTTP paths.

An answer has the id if the client sent one, or if the answer is an error: then the client can name
the request to those who read the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiohttp import web
from multidict import CIMultiDictProxy

from tenantbase.request_context import RequestContext

X_REQUEST_ID: Final = "X-Request-ID"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
NAMING: Final = (X_REQUEST_ID, TRACEPARENT, TRACESTATE)
"""The header fields that name a request, which have another value in each."""

CONTEXT: Final = web.RequestKey("context", RequestContext)
"""Where aiohttp's request keeps its name."""

_HEAD_END: Final = b"\r\n\r\n"


def context_of(headers: CIMultiDictProxy[str]) -> RequestContext:
    """The name that aiohttp's request has by its header fields."""
    if not any(name in headers for name in NAMING):
        return RequestContext()
    ids, traceparents, tracestates = (headers.getall(name, ()) for name in NAMING)
    return RequestContext(
        [each.strip() for each in ids],
        [each.strip() for each in traceparents],
        ",".join(tracestates),
    )


def context_from(fields: Iterable[tuple[str, str]]) -> RequestContext:
    """The name that these header fields give, whose names are in lower case."""
    ids: list[str] = []
    traceparents: list[str] = []
    tracestates: list[str] = []
    for name, value in fields:
        if name == "x-request-id":
            ids.append(value)
        elif name == TRACEPARENT:
            traceparents.append(value)
        elif name == TRACESTATE:
            tracestates.append(value)
    return RequestContext(ids, traceparents, ",".join(tracestates))


def with_id(rendered: bytes, context: RequestContext) -> bytes:
    """A rendered answer, with the id as its last header field."""
    end = rendered.index(_HEAD_END)
    field = f"\r\n{X_REQUEST_ID}: {context.id}".encode()
    return b"".join((rendered[:end], field, rendered[end:]))
