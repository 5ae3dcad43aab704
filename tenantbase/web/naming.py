"""The id of a request in its answer, for both HTTP paths.

An answer has the id if the client sent one, or if it is an error, so that the client can quote the id
to the server's operator.
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
"""The header fields that name a request. Their values differ from request to request."""

CONTEXT: Final = web.RequestKey("context", RequestContext)
"""Where aiohttp's request keeps its id and trace."""

_HEAD_END: Final = b"\r\n\r\n"
_ID_AND_END: Final = b"\r\n%b: %%b\r\n\r\n" % X_REQUEST_ID.encode()


def context_of(headers: CIMultiDictProxy[str]) -> RequestContext:
    """The id and trace of aiohttp's request, from its header fields."""
    if not any(name in headers for name in NAMING):
        return RequestContext()
    ids, traceparents, tracestates = (headers.getall(name, ()) for name in NAMING)
    return RequestContext(
        [each.strip() for each in ids],
        [each.strip() for each in traceparents],
        ",".join(tracestates),
    )


def context_from(fields: Iterable[tuple[str, str]]) -> RequestContext:
    """The id and trace in these header fields, whose names must be in lower case."""
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
    """The rendered answer with the id added as its last header field."""
    return rendered.replace(_HEAD_END, _ID_AND_END % context.id.encode(), 1)
