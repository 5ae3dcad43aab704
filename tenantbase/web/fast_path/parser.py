"""Parses the plain requests that make up nearly all traffic, and nothing else.

A match is strict and complete: the request has exactly one meaning, and none of HTTP's rarer rules
apply to it. A request that does not match may still be valid; aiohttp's parser decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, Generic, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from multidict import CIMultiDict

from tenantbase.entry import MAX_KEY_BYTES
from tenantbase.request_context import RequestContext
from tenantbase.web.naming import NAMING, context_from

MAX_HEAD_BYTES: Final = 8_192
"""The largest request line with its header fields."""
MAX_BODY_BYTES: Final = 16_384

# Header fields with an effect that only the general path implements. All others are harmless: the
# handlers of the plain routes ignore them.
_GENERAL: Final = frozenset(
    {
        "cache-control",
        "content-encoding",
        "expect",
        "if-match",
        "if-none-match",
        "if-range",
        "range",
        "sec-websocket-key1",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Fields that this module or ``judge`` examines. If one is repeated, the general path decides.
_WEIGHED: Final = frozenset(
    {
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "host",
        "origin",
        "proxy-connection",
        "sec-fetch-site",
        "x-forwarded-proto",
        "x-tenant",
    }
)
# Fields that name a request. Their values differ from request to request.
_NAMING: Final = frozenset(map(str.lower, NAMING))
# aiohttp refuses requests that repeat one of these, whatever the values. Other such fields are in
# ``_WEIGHED``.
_SINGLE: Final = frozenset(
    {
        "content-location",
        "content-range",
        "content-type",
        "etag",
        "max-forwards",
        "server",
        "user-agent",
    }
)
# Both decide whether the connection persists; llhttp treats the second like the first.
_PERSISTENCE: Final = ("connection", "proxy-connection")
_FIELD: Final = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*+([\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?"
)
_LENGTH: Final = re.compile(r"[0-9]{1,5}")
_CACHED_FIELDS: Final = 512
_CACHED_REQUESTS: Final = 8_192
_CACHED_REQUEST_BYTES: Final = 512
"""Longer requests are not remembered, so that all remembered ones take a few MiB at most."""

# A key as clients send it. Some of the omitted characters have a meaning in a query (``+``, ``&``).
# Possessive, so that a near miss costs no more than a match. Escapes are examined afterwards: a group
# for them would have to be possessive, too, and Python 3.11.2 matches such groups wrongly.
_KEY: Final = rb"([A-Za-z0-9_.~:@,;!$'()*%-][A-Za-z0-9_.~:@,;!$'()*/%-]*+)"
# A query as clients send it, without a fragment.
_QUERY: Final = rb"([A-Za-z0-9_.~:@,;!$'()*/%&=?+-]*+)"
_HALF_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


Verdict = TypeVar("Verdict")


class Route(msgspec.Struct, frozen=True, eq=False):
    """Where a plain request goes: a method, and the template of a route."""

    method: str
    template: str


GET_VALUE: Final = Route("GET", "/get-value")
RAW_VALUE: Final = Route("GET", "/v1/values/{key}")
SET_VALUE: Final = Route("POST", "/set-value")
GET_VALUES: Final = Route("POST", "/get-values")
LIST: Final = Route("GET", "/get-values")
HEALTH: Final = Route("GET", "/health-check")
DELETE_VALUE: Final = Route("DELETE", "/delete-value")
DELETE_RAW: Final = Route("DELETE", "/v1/values/{key}")
ROUTES: Final = (
    GET_VALUE,
    RAW_VALUE,
    SET_VALUE,
    GET_VALUES,
    HEALTH,
    DELETE_VALUE,
    DELETE_RAW,
    LIST,
)
_WITH_BODY: Final = (SET_VALUE, GET_VALUES)

# The beginnings of request lines, in the order of their routes. One pattern matches them all: the
# number of the group that matched, counted from 1, is the route's position.
_BEGINNINGS: Final = (
    b"GET /get-value?key=",
    b"GET /v1/values/",
    b"POST /set-value ",
    b"POST /get-values ",
    b"GET /health-check ",
    b"DELETE /delete-value?key=",
    b"DELETE /v1/values/",
    b"GET /get-values?",
)
_LINE: Final = re.compile(
    rb"(?:GET /get-value\?key=%b|GET /v1/values/%b|POST /set-value()|POST /get-values()"
    rb"|GET /health-check()|DELETE /delete-value\?key=%b|DELETE /v1/values/%b"
    rb"|GET /get-values\?%b) HTTP/1\.1\r\n" % (_KEY, _KEY, _KEY, _KEY, _QUERY)
)


class Request(msgspec.Struct, Generic[Verdict], frozen=True, gc=False):
    """A plain request.

    Attributes:
        key: empty for routes without one.
        query: as it was sent; empty except for LIST.
        body: empty except for SET_VALUE and GET_VALUES.
        end: where the request ends in the data.
        verdict: on its header fields.
        context: its id and trace; None if no header field names it.
    """

    route: Route
    key: str
    body: bytes
    end: int
    verdict: Verdict
    context: RequestContext | None
    query: str = ""


class Other(Enum):
    """The verdict on data that is not a plain request."""

    INCOMPLETE = 0  # it may be the start of one
    GENERAL = 1  # the general parser must decide


INCOMPLETE: Final = Other.INCOMPLETE
GENERAL: Final = Other.GENERAL

Weighed = tuple[tuple[str, str], ...]
_Judged = tuple[int, Verdict, RequestContext | None]
"""From header fields: the length of the body, the verdict on them, and the request's id and trace."""


class RequestParser(Generic[Verdict]):
    """Parses the bytes of connections.

    Args:
        judge: the verdict on header fields; None if the request must not be answered on the fast
            path. Called once for each combination of relevant fields, which clients keep repeating.
    """

    def __init__(self, judge: Callable[[Mapping[str, str]], Verdict | None]) -> None:
        self._judge = judge
        # Four caches, from the most varied contents to the least: whole requests, because some keys
        # are read again and again; whole blocks of fields, which most clients repeat; single fields,
        # for clients whose blocks differ by an id or a date; and combinations of relevant fields.
        self._requests: dict[bytes, Request[Verdict]] = {}
        self._blocks: dict[bytes, _Judged[Verdict] | None] = {}
        self._fields: dict[bytes, tuple[str, str] | bool] = {}
        self._judged: dict[Weighed, tuple[int, Verdict] | None] = {}

    def parse(self, data: bytes, start: int = 0) -> Request[Verdict] | Other:
        """The plain request at ``start`` of ``data``, where there is at least one byte."""
        if not start and len(data) <= _CACHED_REQUEST_BYTES:
            known = self._requests.get(data)
            if known is not None:
                return known
        line = _LINE.match(data, start)
        if line is None:
            return _without_line(data, start)
        fields_at = line.end()
        end = data.find(b"\r\n\r\n", fields_at - 2, start + MAX_HEAD_BYTES)
        if end < 0:
            return _without_end(data, start)
        fields = data[fields_at:end]
        try:
            judged = self._blocks[fields]
        except KeyError:
            judged = self._look_at(fields)
        if judged is None:
            return GENERAL
        length, verdict, context = judged
        end += 4
        number = line.lastindex or 0
        route = ROUTES[number - 1]
        if route not in _WITH_BODY:
            if length:
                return GENERAL
            if route is LIST:
                return Request(route, "", b"", end, verdict, context, line[number].decode("ascii"))
            key: str | None = line[number].decode()
            if b"%" in line[number]:
                key = _unescaped(line[number])
            elif len(line[number]) > MAX_KEY_BYTES:
                key = None
            if key is None:
                return GENERAL
            request = Request(route, key, b"", end, verdict, context)
            alone = not start and end == len(data)
            if alone and context is None and end <= _CACHED_REQUEST_BYTES:
                self._remember_request(data, request)
            return request
        if not 0 < length <= MAX_BODY_BYTES:
            return GENERAL
        if len(data) < end + length:
            return INCOMPLETE
        body = data[end : end + length]
        return Request(route, "", body, end + length, verdict, context)

    def _look_at(self, fields: bytes) -> _Judged[Verdict] | None:
        """What these header fields say; None if they are not plain."""
        weighed: list[tuple[str, str]] = []
        naming: list[tuple[str, str]] = []
        for line in fields.split(b"\r\n"):
            field = self._fields.get(line)
            if field is None:
                field = self._classify(line)
            if field is False:
                return self._remember(fields, None)
            if field is not True:
                (naming if field[0] in _NAMING else weighed).append(field)
        key = tuple(weighed)
        if key not in self._judged:
            if len(self._judged) >= _CACHED_FIELDS:
                self._judged.clear()
            self._judged[key] = self._weigh(key)
        judged = self._judged[key]
        if judged is not None and naming:
            return *judged, context_from(naming)  # not cached: such a block does not repeat
        return self._remember(fields, None if judged is None else (*judged, None))

    def _remember_request(self, data: bytes, request: Request[Verdict]) -> None:
        if len(self._requests) >= _CACHED_REQUESTS:
            self._requests.clear()
        self._requests[data] = request

    def _remember(self, fields: bytes, judged: _Judged[Verdict] | None) -> _Judged[Verdict] | None:
        if len(self._blocks) >= _CACHED_FIELDS:
            self._blocks.clear()
        self._blocks[fields] = judged
        return judged

    def _classify(self, line: bytes) -> tuple[str, str] | bool:
        field = _classified(line)
        if isinstance(field, bool) or field[0] not in _NAMING:
            if len(self._fields) >= _CACHED_FIELDS:
                self._fields.clear()
            self._fields[line] = field
        return field

    def _weigh(self, weighed: Weighed) -> tuple[int, Verdict] | None:
        headers = CIMultiDict(weighed)
        if len(set(headers)) != len(weighed):
            return None
        if "host" not in headers:
            return None
        for name in _PERSISTENCE:
            if headers.get(name, "keep-alive").lower() != "keep-alive":
                return None
        length = headers.get("content-length", "0")
        if not _LENGTH.fullmatch(length):
            return None
        verdict = self._judge(headers)
        return None if verdict is None else (int(length), verdict)


def _classified(line: bytes) -> tuple[str, str] | bool:
    """A relevant field; True for a harmless one; False if only the general path handles it."""
    field = _FIELD.fullmatch(line)
    if field is None:
        return False
    name = field[1].decode().lower()
    if name in _GENERAL:
        return False
    if name in _SINGLE:
        return name, ""
    if name in _WEIGHED or name in _NAMING:
        return name, (field[2] or b"").decode()
    return True


def context_in(head: bytes) -> RequestContext:
    """The id and trace in the header fields of a request."""
    fields = map(_classified, head.split(b"\r\n")[1:])
    return context_from(field for field in fields if not isinstance(field, bool))


def _unescaped(escaped: bytes) -> str | None:
    """A percent-encoded key; None if it is invalid, which the general path reports."""
    raw = unquote_to_bytes(escaped)
    if _HALF_ESCAPE.search(escaped) or len(raw) > MAX_KEY_BYTES or b"\0" in raw:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _without_line(data: bytes, start: int) -> Other:
    """The verdict on data that does not begin with a complete line of a plain request."""
    for begin in _BEGINNINGS:
        if data.startswith(begin, start):
            break
    else:
        # Perhaps only part of a plain request's line has arrived.
        rest = data[start : start + max(map(len, _BEGINNINGS))]
        return INCOMPLETE if any(begin.startswith(rest) for begin in _BEGINNINGS) else GENERAL
    end = data.find(b"\r\n\r\n", start, start + MAX_HEAD_BYTES)
    return GENERAL if end >= 0 else _without_end(data, start)


def _without_end(data: bytes, start: int) -> Other:
    """The verdict on data whose head is incomplete."""
    # A head whose lines end in a bare line feed would never end here.
    bare = data.count(b"\n", start) != data.count(b"\r\n", start)
    return GENERAL if bare or len(data) - start >= MAX_HEAD_BYTES else INCOMPLETE
