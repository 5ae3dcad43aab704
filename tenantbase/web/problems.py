"""Errors as HTTP answers: one table, RFC 9457 ``application/problem+json``.

The ``type`` of a problem is stable and meant for programs, the ``detail`` for people. No answer
reveals a traceback, a path of this machine, or SQL.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
from aiohttp import hdrs, web

from tenantbase.errors import (
    ConditionFailed,
    Forbidden,
    InvalidRequest,
    NoSuchKey,
    NoSuchTenant,
    OutcomeUnknown,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    StoreError,
    StoreFull,
    TenantbaseError,
    TenantRequired,
    TooLarge,
    Unauthenticated,
    WrongType,
)
from tenantbase.problem_types import MEDIA_TYPE, ProblemType
from tenantbase.request_context import RequestContext
from tenantbase.web.answer import Answer

log = logging.getLogger("tenantbase.web")


class HttpError(TenantbaseError):
    """An error that exists only in HTTP.

    Args:
        detail: what is wrong, in one sentence.
        headers: additional headers of the answer.
    """

    def __init__(self, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.headers = headers


class NoSuchRoute(HttpError):
    """No route has this path."""


class TooSlow(HttpError):
    """The body did not arrive in time."""


class OverLimit(HttpError):
    """The server is at one of its limits. Nothing was done.

    Args:
        limit: the name of the option that sets the limit.
    """

    def __init__(self, detail: str, limit: str) -> None:
        super().__init__(detail)
        self.limit = limit


class TargetTooLong(HttpError):
    """The request target is longer than accepted."""


class HeaderTooLong(HttpError):
    """A header field is longer than accepted."""


class ContentEncoded(HttpError):
    """The body is compressed, or has another content encoding."""


class TransferEncoded(HttpError):
    """The request has a transfer coding other than chunked."""


class RangeNotSatisfiable(HttpError):
    """The value has no byte in the requested range."""


class Misdirected(HttpError):
    """The request is for another host."""


class CrossOrigin(HttpError):
    """A page of another origin tried to write."""


class Row(NamedTuple):
    """A type of problem. ``retry``: the answer has a ``Retry-After`` header."""

    status: int
    type: ProblemType
    title: str
    retry: bool = False


NO_SUCH_KEY: Final = Row(404, ProblemType.NO_SUCH_KEY, "No such key")
_INTERNAL: Final = Row(500, ProblemType.INTERNAL_ERROR, "Internal error")

# The first class of an error's MRO that is listed here counts.
_TABLE: Final[dict[type[BaseException], Row]] = {
    InvalidRequest: Row(400, ProblemType.INVALID_REQUEST, "Invalid request"),
    Unauthenticated: Row(401, ProblemType.UNAUTHENTICATED, "A token is required"),
    Forbidden: Row(403, ProblemType.FORBIDDEN, "The token does not allow this"),
    CrossOrigin: Row(403, ProblemType.CROSS_ORIGIN_WRITE, "Write from another origin"),
    NoSuchKey: NO_SUCH_KEY,
    NoSuchRoute: Row(404, ProblemType.NO_SUCH_ROUTE, "No such route"),
    NoSuchTenant: Row(404, ProblemType.NO_SUCH_TENANT, "No such tenant"),
    web.HTTPNotFound: Row(404, ProblemType.NO_SUCH_ROUTE, "No such route"),
    web.HTTPMethodNotAllowed: Row(405, ProblemType.METHOD_NOT_ALLOWED, "Method not allowed"),
    TooSlow: Row(408, ProblemType.REQUEST_TIMEOUT, "Request timeout"),
    WrongType: Row(409, ProblemType.WRONG_TYPE, "Wrong type of value"),
    TenantRequired: Row(409, ProblemType.TENANT_REQUIRED, "The tenant is required"),
    ConditionFailed: Row(412, ProblemType.CONDITION_FAILED, "Condition failed"),
    TooLarge: Row(413, ProblemType.TOO_LARGE, "Too large"),
    TargetTooLong: Row(414, ProblemType.URI_TOO_LONG, "URI too long"),
    ContentEncoded: Row(
        415, ProblemType.UNSUPPORTED_CONTENT_ENCODING, "Unsupported content encoding"
    ),
    RangeNotSatisfiable: Row(416, ProblemType.RANGE_NOT_SATISFIABLE, "Range not satisfiable"),
    web.HTTPExpectationFailed: Row(417, ProblemType.EXPECTATION_FAILED, "Expectation failed"),
    Misdirected: Row(421, ProblemType.MISDIRECTED_REQUEST, "Misdirected request"),
    Overloaded: Row(429, ProblemType.OVERLOADED, "Too many requests", retry=True),
    RateLimited: Row(429, ProblemType.RATE_LIMITED, "Too many requests of a tenant", retry=True),
    HeaderTooLong: Row(431, ProblemType.HEADER_TOO_LARGE, "Header too large"),
    OverLimit: Row(503, ProblemType.OVER_LIMIT, "The server is at one of its limits", retry=True),
    TransferEncoded: Row(
        501, ProblemType.UNSUPPORTED_TRANSFER_CODING, "Unsupported transfer coding"
    ),
    StoreError: Row(503, ProblemType.STORE_UNAVAILABLE, "The database cannot serve", retry=True),
    OutcomeUnknown: Row(
        503, ProblemType.OUTCOME_UNKNOWN, "The outcome of the write is unknown", retry=True
    ),
    QuotaExceeded: Row(507, ProblemType.QUOTA_EXCEEDED, "The tenant's quota is used up"),
    StoreFull: Row(507, ProblemType.DISK_FULL, "The disk is full"),
}

KINDS: Final[dict[str, Row]] = {row.type: row for row in (_INTERNAL, *_TABLE.values())}

_ROUTER_DETAILS: Final[dict[type[BaseException], str]] = {
    web.HTTPNotFound: "there is nothing at this path",
    web.HTTPMethodNotAllowed: "the path exists, but not for this method; see the Allow header",
    web.HTTPExpectationFailed: "the only known expectation is 100-continue",
}


def problem(
    row: Row,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **members: str | int | None,
) -> Answer:
    """An answer with a problem document, to which ``members`` other than None are added."""
    document: dict[str, str | int] = {
        "type": row.type.uri,
        "title": row.title,
        "status": row.status,
        "detail": detail,
    }
    document.update((name, value) for name, value in members.items() if value is not None)
    every = {**(headers or {}), hdrs.CONTENT_TYPE: MEDIA_TYPE}
    if row.retry:
        every.setdefault(hdrs.RETRY_AFTER, "1")
    return Answer(row.status, every, msgspec.json.encode(document))


def error_answer(error: BaseException, context: RequestContext | None = None) -> Answer:
    """The answer to a request that failed with this error; 500 and a log line if it is not listed.

    Args:
        context: the request's id and trace for the log line; None: those of the running task.
    """
    row = next((_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE), None)
    if row is None:
        log.error("unexpected error", exc_info=error, extra={"request": context})
        return problem(_INTERNAL, "an unexpected error occurred; it has been logged")
    if isinstance(error, ConditionFailed):
        return problem(row, str(error), key=error.key, version=error.version)
    if isinstance(error, InvalidRequest):
        return problem(row, error.detail, field=error.field)
    if isinstance(error, QuotaExceeded):
        return problem(row, str(error), limit=error.limit)
    if isinstance(error, Unauthenticated):
        return problem(row, str(error), {hdrs.WWW_AUTHENTICATE: 'Bearer realm="tenantbase"'})
    if isinstance(error, RateLimited):
        return problem(row, str(error), _rate_headers(error))
    if isinstance(error, OverLimit):
        answer = problem(row, str(error), limit=error.limit)
        answer.closes = True  # the request's body may not have arrived
        return answer
    if isinstance(error, HttpError):
        answer = problem(row, str(error), error.headers)
        # The rest of its body could be taken for a request.
        answer.closes = isinstance(error, TooSlow | TransferEncoded)
        return answer
    if isinstance(error, web.HTTPMethodNotAllowed):
        allow = ", ".join(sorted(error.allowed_methods))
        return problem(row, _ROUTER_DETAILS[type(error)], {hdrs.ALLOW: allow})
    return problem(row, _ROUTER_DETAILS.get(type(error)) or str(error))


def _rate_headers(error: RateLimited) -> dict[str, str]:
    """When to try again, and the limit (IETF draft "RateLimit header fields for HTTP")."""
    seconds = max(1, math.ceil(error.retry_after))
    return {
        hdrs.RETRY_AFTER: str(seconds),
        "RateLimit-Policy": f'"requests";q={error.rate};w=1',
        "RateLimit": f'"requests";r=0;t={seconds}',
    }
