"""Reading request bodies within limits of size and time."""

from __future__ import annotations

import asyncio
from io import BytesIO
from typing import Final, TypeVar

from aiohttp import web

from tenantbase.errors import InvalidRequest, TooLarge
from tenantbase.json_text import Decoder, parse
from tenantbase.web.caller import CALLER
from tenantbase.web.problems import TooSlow
from tenantbase.web.semantics.expectations import invite
from tenantbase.web.semantics.targets import NOTHING, query
from tenantbase.web.settings import WebSettings
from tenantbase.web.transport.budget import Holding

HOLDING: Final = web.RequestKey("holding", Holding)
"""Where a request keeps its ``Holding``, its share of the memory budget for bodies."""

_KEYS_BYTES: Final = 16 << 20

Shape = TypeVar("Shape")


def keys_bytes(settings: WebSettings) -> int:
    """The largest body without values: the largest legal batch of keys fits."""
    return min(settings.max_request_bytes, _KEYS_BYTES)


async def read_body(request: web.BaseRequest, limit: int, seconds: float) -> bytes:
    """Read the whole body. Sends ``100 Continue`` first if the client waits for it.

    Args:
        limit: the largest size in bytes.
        seconds: timeout for the whole body.

    Raises:
        TooLarge: its declared length, or what has arrived, exceeds the limit.
        TooSlow: it did not arrive in time.
        OverLimit: the bodies of all requests together would exceed the memory budget.
        InvalidRequest: it ends early or its chunks are malformed.
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
            # BytesIO hands out its contents without a copy. Joining many chunks would block the
            # event loop and double the memory. It is closed because an error and the frames in its
            # traceback refer to each other: without that, what has arrived would stay in memory
            # until the garbage collector comes, long after the budget has given it to others.
            size = 0
            with BytesIO() as arrived:
                async with asyncio.timeout(seconds) as timeout:
                    if holding is not None:
                        holding.begin(timeout, length)
                    await invite(request)
                    while size <= limit and (chunk := await content.readany()):
                        if holding is not None:
                            holding.grow(len(chunk))
                        arrived.write(chunk)
                        size += len(chunk)
                        del chunk  # it would take memory a second time until the next one comes
                body = arrived.getvalue()
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
        caller = request.get(CALLER)
        await holding.turn("" if caller is None else caller.scope.tenant)
    return body


async def read_json(request: web.Request, decoder: Decoder[Shape], settings: WebSettings) -> Shape:
    """Read and parse a JSON body without values, of a request that takes no query.

    Raises:
        TooLarge, TooSlow, OverLimit, InvalidRequest: as `query`, `read_body` and `parse` do.
    """
    query(request, NOTHING)
    return parse(decoder, await read_body(request, keys_bytes(settings), settings.body_timeout))


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body of this request has at most {limit:,} bytes")
