"""Recognises the plain requests that make up nearly all traffic, and nothing else.

A match is strict and complete: the exact bytes of a request that has one meaning only, and for
which none of the rarer rules of HTTP matters. Whatever does not match is not wrong; it is for
the general parser to judge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec
from multidict import CIMultiDict

from tenantbase.entry import MAX_KEY_BYTES

MAX_HEAD: Final = 8_192
"""Bytes of a request line and its header fields."""
MAX_BODY: Final = 16_384
"""Bytes of a body."""

# Header fields that change what happens to a request in a way that only the general path knows.
# Every other field is harmless: the handlers of the plain routes never look at it.
_GENERAL: Final = frozenset(
    {
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
# Fields that are looked at here or by `allowed`; given twice, they are for the general path.
_WEIGHED: Final = frozenset(
    {"connection", "content-length", "host", "origin", "proxy-connection", "sec-fetch-site"}
)
# aiohttp refuses these when they are given twice, whatever they say. ``_WEIGHED`` has the others.
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
# What says whether the connection goes on; llhttp obeys the second like the first.
_PERSISTENCE: Final = ("connection", "proxy-connection")
_FIELD: Final = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*+([\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?"
)
_LENGTH: Final = re.compile(r"[0-9]{1,5}")
_REMEMBERED: Final = 512

# A key as clients send it. Of what is left out some has a meaning in a query (``+``, ``&``).
# Possessive, so that a near miss costs no more than a match.
_KEY: Final = (
    rb"((?:[A-Za-z0-9_.~:@,;!$'()*-]|%[0-9A-Fa-f]{2})"
    rb"(?:[A-Za-z0-9_.~:@,;!$'()*/-]++|%[0-9A-Fa-f]{2})*+)"
)


class Route(Enum):
    """Where a plain request goes."""

    GET_VALUE = 0
    RAW_VALUE = 1
    SET_VALUE = 2
    HEALTH = 3
    DELETE_VALUE = 4


GET_VALUE: Final = Route.GET_VALUE
RAW_VALUE: Final = Route.RAW_VALUE
SET_VALUE: Final = Route.SET_VALUE
HEALTH: Final = Route.HEALTH
DELETE_VALUE: Final = Route.DELETE_VALUE

# What a request line begins with, and the route of each. One pattern matches them all: the number of
# the group that took part, from 1 on, is the route's.
_BEGINNINGS: Final = (
    b"GET /get-value?key=",
    b"GET /v1/values/",
    b"POST /set-value ",
    b"GET /health-check ",
    b"DELETE /delete-value?key=",
    b"DELETE /v1/values/",
)
_ROUTES: Final = (GET_VALUE, RAW_VALUE, SET_VALUE, HEALTH, DELETE_VALUE, DELETE_VALUE)
_LINE: Final = re.compile(
    rb"(?:GET /get-value\?key=%b|GET /v1/values/%b|POST /set-value()|GET /health-check()"
    rb"|DELETE /delete-value\?key=%b|DELETE /v1/values/%b) HTTP/1\.1\r\n" % (_KEY, _KEY, _KEY, _KEY)
)


class Request(msgspec.Struct, frozen=True, gc=False):
    """A plain request.

    Attributes:
        key: for the routes that have one, otherwise empty.
        body: for SET_VALUE, otherwise empty.
        end: where it ends in the data.
    """

    route: Route
    key: str
    body: bytes
    end: int


class Other(Enum):
    """What data is that is no plain request."""

    INCOMPLETE = 0  # so far it looks like the beginning of one
    GENERAL = 1  # it is for the general parser


INCOMPLETE: Final = Other.INCOMPLETE
GENERAL: Final = Other.GENERAL

Weighed = tuple[tuple[str, str], ...]


class RequestParser:
    """Looks at the bytes of a connection.

    Args:
        allowed: whether a request with these header fields may be answered here at all. It is
            asked once for each combination of the fields that matter; clients send the same ones
            again and again.
    """

    def __init__(self, allowed: Callable[[Mapping[str, str]], bool]) -> None:
        self._allowed = allowed
        # Three memories, each for what varies less than the one before: whole blocks of fields,
        # since most clients repeat them; single fields, for clients whose blocks differ by an id
        # or a date; and the fields that matter together.
        self._blocks: dict[bytes, int | None] = {}
        self._fields: dict[bytes, tuple[str, str] | bool] = {}
        self._judged: dict[Weighed, int | None] = {}

    def parse(self, data: bytes, start: int = 0) -> Request | Other:
        """The plain request at ``start`` of ``data``, where there is at least one byte."""
        line = _LINE.match(data, start)
        if line is None:
            return _without_line(data, start)
        fields_at = line.end()
        end = data.find(b"\r\n\r\n", fields_at - 2, start + MAX_HEAD)
        if end < 0:
            return _without_end(data, start)
        fields = data[fields_at:end]
        try:
            length = self._blocks[fields]
        except KeyError:
            length = self._look_at(fields)
        if length is None:
            return GENERAL
        end += 4
        number = line.lastindex or 0
        route = _ROUTES[number - 1]
        if route is not SET_VALUE:
            if length:
                return GENERAL
            key: str | None = line[number].decode()
            if b"%" in line[number]:
                key = _unescaped(line[number])
            elif len(line[number]) > MAX_KEY_BYTES:
                key = None
            return GENERAL if key is None else Request(route, key, b"", end)
        if not 0 < length <= MAX_BODY:
            return GENERAL
        if len(data) < end + length:
            return INCOMPLETE
        return Request(route, "", data[end : end + length], end + length)

    def _look_at(self, fields: bytes) -> int | None:
        """The length of the body that these header fields announce; None: not plain."""
        if len(self._blocks) >= _REMEMBERED:
            self._blocks.clear()
        length = self._blocks[fields] = self._judge(fields)
        return length

    def _judge(self, fields: bytes) -> int | None:
        weighed: list[tuple[str, str]] = []
        for line in fields.split(b"\r\n"):
            field = self._fields.get(line)
            if field is None:
                field = self._remember(line)
            if field is False:
                return None
            if field is not True:
                weighed.append(field)
        key = tuple(weighed)
        if key not in self._judged:
            if len(self._judged) >= _REMEMBERED:
                self._judged.clear()
            self._judged[key] = self._weigh(key)
        return self._judged[key]

    def _remember(self, line: bytes) -> tuple[str, str] | bool:
        if len(self._fields) >= _REMEMBERED:
            self._fields.clear()
        field = self._fields[line] = _classified(line)
        return field

    def _weigh(self, weighed: Weighed) -> int | None:
        headers = CIMultiDict(weighed)
        if len(set(headers)) != len(weighed):
            return None
        if "host" not in headers:
            return None
        for name in _PERSISTENCE:
            if headers.get(name, "keep-alive").lower() != "keep-alive":
                return None
        length = headers.get("content-length", "0")
        if not _LENGTH.fullmatch(length) or not self._allowed(headers):
            return None
        return int(length)


def _classified(line: bytes) -> tuple[str, str] | bool:
    """A field that is weighed; True: it is harmless; False: it is for the general path."""
    field = _FIELD.fullmatch(line)
    if field is None:
        return False
    name = field[1].decode().lower()
    if name in _GENERAL:
        return False
    if name in _SINGLE:
        return name, ""
    return (name, (field[2] or b"").decode()) if name in _WEIGHED else True


def _unescaped(escaped: bytes) -> str | None:
    """A percent-encoded key; None: the general path has something to say about it."""
    raw = unquote_to_bytes(escaped)
    if len(raw) > MAX_KEY_BYTES or b"\0" in raw:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _without_line(data: bytes, start: int) -> Other:
    """What data is that does not begin with the whole line of a plain request."""
    for begin in _BEGINNINGS:
        if data.startswith(begin, start):
            break
    else:
        # Shorter than the beginning of a line that it may still become.
        rest = data[start : start + max(map(len, _BEGINNINGS))]
        return INCOMPLETE if any(begin.startswith(rest) for begin in _BEGINNINGS) else GENERAL
    end = data.find(b"\r\n\r\n", start, start + MAX_HEAD)
    return GENERAL if end >= 0 else _without_end(data, start)


def _without_end(data: bytes, start: int) -> Other:
    """What data is whose head has no end so far."""
    # Lines that end in a line feed alone would never come to an end here.
    bare = data.count(b"\n", start) != data.count(b"\r\n", start)
    return GENERAL if bare or len(data) - start >= MAX_HEAD else INCOMPLETE
