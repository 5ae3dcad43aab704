"""Request bodies: read within limits of size and time."""

from __future__ import annotations

import asyncio

from aiohttp import web

from tenantbase.errors import InvalidRequest, TooLarge
from tenantbase.web.problems import TooSlow


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
            chunks = bytearray()
            async with asyncio.timeout(seconds):
                while len(chunks) <= limit and (chunk := await content.readany()):
                    chunks += chunk
            body = bytes(chunks)
    except TimeoutError as error:
        raise TooSlow("the body did not arrive in time") from error
    except web.RequestPayloadError as error:
        raise InvalidRequest("the body ends early or its chunks are malformed") from error
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body of this request has at most {limit:,} bytes")
