"""The answer of a handler; aiohttp's path (``sending.py``) and the fast path both send it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from http import HTTPStatus
from typing import Final

import msgspec

_NO_BODY: Final = frozenset({204, 304})


class Pieces(msgspec.Struct, frozen=True):
    """A body of ``size`` bytes, rendered piece by piece, only as fast as the client reads."""

    pieces: Iterable[bytes]
    size: int


class Stream(msgspec.Struct, frozen=True):
    """A body of unknown size, produced while it is sent.

    Attributes:
        pieces: closed when the answer ends, even by an error. An error before anything was sent
            becomes an error answer; a later one cuts the connection, so that no client takes part
            of the answer for all of it.
        live: send each piece as soon as it comes. Otherwise a short body is collected first and
            sent with its length.
    """

    pieces: AsyncGenerator[bytes, None]
    live: bool = False


class Answer(msgspec.Struct):
    """An HTTP response, except for what the connection adds (``responses.common_headers``).

    Attributes:
        headers: without ``Content-Length``.
        compressible: compress the body if it is long and the client accepts that.
        closes: the connection ends after this answer.
    """

    status: int
    headers: dict[str, str]
    body: bytes | Pieces | Stream = b""
    compressible: bool = False
    closes: bool = False


def rendered(answer: Answer, last_fields: bytes) -> bytes:
    """The bytes of an answer whose body is bytes, as HTTP/1.1 (RFC 9112).

    Args:
        last_fields: header lines that follow the answer's own, each with its line end.
    """
    body = answer.body
    assert isinstance(body, bytes)
    return rendered_head(answer.status, answer.headers, len(body)) + last_fields + b"\r\n" + body


def rendered_head(status: int, headers: Mapping[str, str], size: int) -> bytes:
    """The status line and the header lines, up to ``Content-Length``."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *map(": ".join, headers.items())]
    if status not in _NO_BODY:  # these have neither a body nor a length (RFC 9110, section 8.6)
        lines.append(f"Content-Length: {size}")
    return ("\r\n".join(lines) + "\r\n").encode()


def rendered_fields(headers: Mapping[str, str]) -> bytes:
    """Header lines, each with its line end."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
