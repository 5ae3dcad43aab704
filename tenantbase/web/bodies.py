"""Request bodies: read within limits of size and time, and turned into checked structures."""

from __future__ import annotations

import asyncio
import re
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from tenantbase.errors import InvalidRequest, TooLarge
from tenantbase.web.problems import TooSlow

Shape = TypeVar("Shape")

_LARGE_BYTES: Final = 4 << 20
_RAW: Final = msgspec.json.Decoder(msgspec.Raw)
_AT: Final = re.compile(r" - at `\$\.?(.*)`$")
_NAMED: Final = re.compile(r"^Object (?:missing required|contains unknown) field `(.*)`$")


async def read_body(request: web.BaseRequest, limit: int, seconds: float) -> bytes:
    """The whole body.

    Args:
        limit: bytes it has at most.
        seconds: until it must have arrived.

    Raises:
        TooLarge: refused by its declared length, or as soon as it is over the limit.
        TooSlow: it did not arrive in time.
        InvalidRequest: its chunks are malformed.
    """
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    content = request.content
    try:
        if content.is_eof():
            body = content.read_nowait()
        else:
            chunks: list[bytes] = []
            size = 0
            async with asyncio.timeout(seconds):
                while size <= limit and (chunk := await content.readany()):
                    chunks.append(chunk)
                    size += len(chunk)
            body = b"".join(chunks)
            del chunks, chunk
            if size > _LARGE_BYTES:
                await asyncio.sleep(0)  # joining took a while, and so will what comes next
    except TimeoutError as error:
        raise TooSlow("the body did not arrive in time") from error
    except web.RequestPayloadError as error:
        raise InvalidRequest("the body ends early or its chunks are malformed") from error
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body of this request has at most {limit:,} bytes")


def parse(decoder: msgspec.json.Decoder[Shape], body: bytes) -> Shape:
    """The structure that a JSON body describes.

    Raises:
        InvalidRequest: no JSON, or not of this shape; names the field.
    """
    if not body:
        raise InvalidRequest("a JSON body is required")
    _check_utf8(body, None)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRequest("the JSON is nested too deeply") from error


def check_json(data: bytes, field: str) -> None:
    """Return if ``data`` is one JSON text in UTF-8. Raises InvalidRequest."""
    _check_utf8(data, field)
    try:
        _RAW.decode(data)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"not valid JSON: {error}", field) from error
    except RecursionError as error:
        raise InvalidRequest("the JSON is nested too deeply", field) from error


def _check_utf8(data: bytes, field: str | None) -> None:
    # msgspec does not look at the encoding of what it hands on as raw JSON.
    if data.isascii():
        return
    try:
        data.decode()
    except UnicodeDecodeError as error:
        detail = f"not valid UTF-8 at byte {error.start}"
        raise InvalidRequest(detail, field) from error


def _invalid(message: str) -> InvalidRequest:
    """An error of msgspec, whose text names a place like ``$.values[3].ttl``."""
    at = _AT.search(message)
    place = at[1] if at else ""
    detail = message[: at.start()] if at else message
    if named := _NAMED.match(detail):
        place = f"{place}.{named[1]}" if place else named[1]
    return InvalidRequest(detail[:1].lower() + detail[1:], place or None)
