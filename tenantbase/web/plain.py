"""Recognises the few plain requests that make up nearly all traffic, and nothing else.

A match is strict and complete: the exact bytes of a request that has one meaning only, and for
which none of the rarer rules of HTTP matters. Whatever does not match is not wrong; it is for
the general parser to judge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

import msgspec
from multidict import CIMultiDict

MAX_HEAD: Final = 8_192
"""Bytes of a request line and its header fields."""
MAX_BODY: Final = 16_384
"""Bytes of a body."""

# What a client may say without it changing the answer. Everything else is for the general
# parser: conditions, ranges, origins, expectations, encodings of the body, upgrades.
_HARMLESS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "host",
        "pragma",
        "user-agent",
    }
)
_FIELD: Final = re.compile(rb"\r\n([A-Za-z-]{1,40}):[ ]?([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")
_LENGTH: Final = re.compile(r"[0-9]{1,5}")
_REMEMBERED: Final = 512

# A key as clients send it, unescaped. Of the rest some have a meaning in a query (``+``, ``&``),
# others need decoding; both are for the general parser.
_KEY: Final = rb"([A-Za-z0-9_.~:@,;!$'()*-][A-Za-z0-9_.~:@,;!$'()*/-]{0,1023})"


class Route(Enum):
    """Where a plain request goes."""

    GET_VALUE = 0
    RAW_VALUE = 1
    SET_VALUE = 2
    HEALTH = 3


GET_VALUE: Final = Route.GET_VALUE
RAW_VALUE: Final = Route.RAW_VALUE
SET_VALUE: Final = Route.SET_VALUE
HEALTH: Final = Route.HEALTH

# What a request line begins with, and the route of each. One pattern matches them all: the number of
# the group that took part, from 1 on, is the route's.
_BEGINNINGS: Final = (
    b"GET /get-value?key=",
    b"GET /v1/values/",
    b"POST /set-value ",
    b"GET /health-check ",
)
_ROUTES: Final = (GET_VALUE, RAW_VALUE, SET_VALUE, HEALTH)
_LINE: Final = re.compile(
    rb"(?:GET /get-value\?key=%b|GET /v1/values/%b|POST /set-value()|GET /health-check()) HTTP/1\.1"
    % (_KEY, _KEY)
)


class Request(msgspec.Struct, frozen=True, gc=False):
    """A plain request.

    Attributes:
        key: for the routes that have one, otherwise empty.
        body: for SET_VALUE, otherwise empty.
        size: how many bytes it takes at the front of the data.
    """

    route: Route
    key: str
    body: bytes
    size: int


class Other(Enum):
    """What data is that is no plain request."""

    INCOMPLETE = 0  # so far it looks like the beginning of one
    GENERAL = 1  # it is for the general parser


INCOMPLETE: Final = Other.INCOMPLETE
GENERAL: Final = Other.GENERAL


class Recogniser:
    """Looks at the bytes of a connection.

    Args:
        allowed: whether a request with these header fields may be answered here at all. It is
            asked once for each block of fields; clients send the same one again and again.
    """

    def __init__(self, allowed: Callable[[Mapping[str, str]], bool]) -> None:
        self._allowed = allowed
        self._lengths: dict[bytes, int | None] = {}

    def recognise(self, data: bytes) -> Request | Other:
        """The plain request at the front of ``data``, which is not empty."""
        line = _LINE.match(data)
        if line is None:
            return _without_line(data)
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end < 0:
            return _without_end(data)
        fields = data[line.end() : end]
        try:
            length = self._lengths[fields]
        except KeyError:
            length = self._look_at(fields)
        if length is None:
            return GENERAL
        size = end + 4
        number = line.lastindex or 0
        route = _ROUTES[number - 1]
        if route is not SET_VALUE:
            return GENERAL if length else Request(route, line[number].decode(), b"", size)
        if not 0 < length <= MAX_BODY:
            return GENERAL
        if len(data) < size + length:
            return INCOMPLETE
        return Request(route, "", data[size : size + length], size + length)

    def _look_at(self, fields: bytes) -> int | None:
        """The length of the body that these header fields announce; None: not plain."""
        if len(self._lengths) >= _REMEMBERED:
            self._lengths.clear()
        length = self._lengths[fields] = self._judge(fields)
        return length

    def _judge(self, fields: bytes) -> int | None:
        headers: CIMultiDict[str] = CIMultiDict()
        position = 0
        while position < len(fields):
            field = _FIELD.match(fields, position)
            if field is None:
                return None
            name = field[1].decode().lower()
            if name not in _HARMLESS or name in headers:
                return None
            headers[name] = field[2].decode()
            position = field.end()
        if "host" not in headers or headers.get("connection", "keep-alive").lower() != "keep-alive":
            return None
        length = headers.get("content-length", "0")
        if not _LENGTH.fullmatch(length) or not self._allowed(headers):
            return None
        return int(length)


def _without_line(data: bytes) -> Other:
    """What data is that does not begin with the whole line of a plain request."""
    for begin in _BEGINNINGS:
        if data.startswith(begin):
            break
    else:
        # Shorter than the beginning of a line that it may still become.
        return INCOMPLETE if any(begin.startswith(data) for begin in _BEGINNINGS) else GENERAL
    return GENERAL if b"\r\n\r\n" in data[:MAX_HEAD] else _without_end(data)


def _without_end(data: bytes) -> Other:
    """What data is whose head has no end so far."""
    # Lines that end in a line feed alone would never come to an end here.
    bare = data.count(b"\n") != data.count(b"\r\n")
    return GENERAL if bare or len(data) >= MAX_HEAD else INCOMPLETE
