"""aiohttp's side of the answer model: an ``Answer`` sent as aiohttp's response."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

from aiohttp import ClientConnectionError, hdrs, web
from aiohttp.typedefs import Handler

from tenantbase.web.answer import Answer, Pieces, Stream
from tenantbase.web.semantics.negotiation import accepted_coding

_COLLECTED_BYTES: Final = 256 << 10  # of a stream; a shorter one is sent with its length
_COMPRESSED_FROM_BYTES: Final = 4096  # below, the head outweighs what is saved


def answering(handle: Callable[[web.Request], Awaitable[Answer]]) -> Handler:
    """A handler of aiohttp's that sends what ``handle`` returns."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return await respond(request, await handle(request))

    return handler


async def respond(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    """Send an answer whose body comes in pieces; any other is returned for aiohttp to send.

    Large bodies are streamed with back-pressure, in constant memory.

    Raises:
        ConnectionError: the client is gone.
        Exception: as the body's source raised it.
    """
    body = answer.body
    if isinstance(body, bytes):
        return whole_response(answer, request)
    try:
        if isinstance(body, Pieces):
            return await _send_pieces(request, answer, body)
        async with aclosing(body.pieces):
            return await _send_stream(request, answer, body)
    except ClientConnectionError as error:
        raise ConnectionResetError("the client is gone") from error


def whole_response(answer: Answer, request: web.BaseRequest | None = None) -> web.Response:
    """aiohttp's response for an answer whose body is bytes; compressed only for a request."""
    body = answer.body
    assert isinstance(body, bytes)
    response = web.Response(status=answer.status, headers=answer.headers, body=body)
    if answer.closes:
        response.force_close()
    if request is not None and len(body) >= _COMPRESSED_FROM_BYTES:
        _compress(request, answer, response)
    return response


def _compress(request: web.BaseRequest, answer: Answer, response: web.StreamResponse) -> None:
    if answer.compressible:
        coding = accepted_coding(request.headers.get(hdrs.ACCEPT_ENCODING))
        if coding is not None:
            response.enable_compression(web.ContentCoding(coding))


def _begun(answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    if answer.closes:
        response.force_close()
    return response


async def _send_pieces(
    request: web.BaseRequest, answer: Answer, body: Pieces
) -> web.StreamResponse:
    response = _begun(answer)
    response.content_length = body.size
    await response.prepare(request)
    if request.method != hdrs.METH_HEAD:
        for piece in body.pieces:
            await response.write(piece)
            await asyncio.sleep(0)  # to a client that reads fast, writing never waits
    await response.write_eof()
    return response


async def _send_stream(
    request: web.BaseRequest, answer: Answer, body: Stream
) -> web.StreamResponse:
    collected = bytearray()
    async for piece in body.pieces:
        collected += piece
        if body.live or len(collected) > _COLLECTED_BYTES:
            break
    else:
        answer.body = bytes(collected)
        return whole_response(answer, request)
    response = _begun(answer)
    _compress(request, answer, response)
    await response.prepare(request)
    if request.method != hdrs.METH_HEAD:
        await response.write(collected)
        async for piece in body.pieces:
            await response.write(piece)
            if not body.live:
                await asyncio.sleep(0)  # to a client that reads fast, writing never waits
        await response.write_eof()
    return response
