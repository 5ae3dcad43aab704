"""Request bodies: read within limits of size and time."""

from __future__ import annotations

import asyncio
from io import BytesIO
from typing import Final

from aiohttp import web

from tenantbase.errors import InvalidRequest, TooLarge
from tenantbase.web.transport.budget import Holding
from tenantbase.web.semantics.expectations import invite
from tenantbase.web.problems import TooSlow
from tenantbase.web.settings import WebSettings

HOLDING: Final = web.RequestKey("holding", Holding)
"""Where a request keeps its ``Holding``: its part of the budget for bodies."""

_KEYS_BYTES: Final = 16 << 20


def keys_bytes(settings: WebSettings) -> int:
    """The largest body that holds no values: as many and as long keys as there may be fit in. It
    is read by the event loop, in one go."""
    return min(settings.max_request_bytes, _KEYS_BYTES)


async def read_body(request: web.BaseRequest, limit: int, seconds: float) -> bytes:
    """The whole body. A client that waits for an invitation to send it is invited here.

    Args:
        limit: bytes it has at most.
        seconds: until it must have arrived.

    Raises:
        TooLarge: refused by its declared length, or as soon as it is over the limit.
        TooSlow: it did not arrive in time.
        OverLimit: the bodies of all requests together would take too much memory.
        InvalidRequest: its chunks are malformed.
    """
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    holding = request.get(HOLDING)
    content = request.content
    try:
        if content.is_eof():
            body = content.read_nowait()
            if holding is not None:
                holding.grow(len(body))
        else:
            # It gives up its contents without a copy: to join many chunks would hold up the event
            # loop, and take the memory twice.
            arrived = BytesIO()
            size = 0
            async with asyncio.timeout(seconds) as timeout:
                if holding is not None:
                    holding.begin(timeout, length)
                await invite(request)
                while size <= limit and (chunk := await content.readany()):
                    if holding is not None:
                        holding.grow(len(chunk))
                    arrived.write(chunk)
                    size += len(chunk)
            body = arrived.getvalue()
            del arrived
    except TimeoutError as error:
        if holding is not None and holding.evicted:
            raise holding.exceeded() from error
        raise TooSlow("the body did not arrive in time") from error
    except web.RequestPayloadError as error:
        raise InvalidRequest("the body ends early or its chunks are malformed") from error
    if len(body) > limit:
        raise _too_large(limit)
    if holding is not None:
        holding.arrived()
        await holding.turn()
    return body


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body of this request has at most {limit:,} bytes")
