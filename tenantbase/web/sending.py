"""aiohttp's side of the answer model: an ``Answer`` sent as aiohttp's response."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Final

from aiohttp import ClientConnectionError, hdrs, web
from aiohttp.typedefs import Handler

from tenantbase.documents import pieces
from tenantbase.web.answer import Answer, Pieces, Stream
from tenantbase.web.caller import CALLER
from tenantbase.web.naming import CONTEXT
from tenantbase.web.problems import error_answer
from tenantbase.web.responses import make_private
from tenantbase.web.semantics.negotiation import accepted_coding
from tenantbase.web.transport.unread import SMALL_ANSWER_BYTES, WAIT_SECONDS, Share, Unread

_READS: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})  # safe to handle a second time
_COLLECTED_BYTES: Final = 256 << 10  # of a stream; a shorter stream is sent with its length
COMPRESSED_FROM_BYTES: Final = 4096
"""Shorter answers are not compressed: it would not pay off."""


def answering(handle: Callable[[web.Request], Awaitable[Answer]], unread: Unread) -> Handler:
    """A handler of aiohttp's that sends what ``handle`` returns.

    Args:
        unread: charged for large answers. An answer without room is dropped, and ``handle`` is
            called again once there is room.
    """

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = await handle(request)
        if _held_bytes(answer) <= SMALL_ANSWER_BYTES:
            return await respond(request, answer)
        with share_of(request, unread) as share:
            size = _held_bytes(answer)
            if request.method in _READS and not share.keep(size):
                if request.body_exists:  # a body that has been read cannot be read again
                    raise unread.exceeded()
                del answer
                await share.reserve(size, WAIT_SECONDS)
                answer = await handle(request)
            share.charge(_held_bytes(answer))
            return await respond(request, answer)

    return handler


@contextmanager
def share_of(request: web.BaseRequest, unread: Unread) -> Iterator[Share]:
    """A share of the budget for one answer, released at the end of the block.

    Raises:
        ConnectionError: the client is gone.
    """
    if request.transport is None:
        raise ConnectionResetError("the client is gone")
    caller = request.get(CALLER)
    share = Share(unread, request.transport, None if caller is None else caller.use)
    try:
        yield share
    finally:
        share.release()


def _held_bytes(answer: Answer) -> int:
    """Approximately how much memory an answer holds until it is sent. A stream charges its own."""
    body = answer.body
    return 0 if isinstance(body, Stream) else body.size if isinstance(body, Pieces) else len(body)


async def respond(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    """Send an answer whose body comes in pieces; any other is returned for aiohttp to send.

    Large bodies are streamed with back-pressure, in constant memory.

    Raises:
        ConnectionError: the client is gone.
        Exception: as the body's source raised it.
    """
    if hdrs.AUTHORIZATION in request.headers:
        make_private(answer.headers)
    body = answer.body
    if isinstance(body, bytes):
        if len(body) <= SMALL_ANSWER_BYTES:
            return whole_response(answer, request)
        body = Pieces(pieces(body), len(body))  # so that this returns only once everything is sent
    try:
        if isinstance(body, Pieces):
            return await _send_pieces(request, answer, body)
        async with aclosing(body.pieces):
            return await _send_stream(request, answer, body)
    except (ConnectionError, ClientConnectionError) as error:
        # Its frames hold the last piece, and a reference cycle through the future they waited for
        # would keep them in memory until the garbage collector runs, which is rare.
        error.__traceback__ = None
        raise ConnectionResetError("the client is gone") from error


def error_response(request: web.BaseRequest, error: BaseException) -> web.Response:
    """aiohttp's response to a request that failed with this error."""
    answer = error_answer(error, request.get(CONTEXT))
    if hdrs.AUTHORIZATION in request.headers:
        make_private(answer.headers)
    return whole_response(answer)


def whole_response(answer: Answer, request: web.BaseRequest | None = None) -> web.Response:
    """aiohttp's response for an answer whose body is bytes. Compresses only for a request."""
    body = answer.body
    assert isinstance(body, bytes)
    response = web.Response(status=answer.status, headers=answer.headers, body=body)
    if answer.closes:
        response.force_close()
    if request is not None and len(body) >= COMPRESSED_FROM_BYTES:
        _compress(request, answer, response)
    return response


def _compress(request: web.BaseRequest, answer: Answer, response: web.StreamResponse) -> bool:
    """Compress the response if the answer allows it and the client accepts it; whether it does."""
    if not answer.compressible:
        return False
    coding = accepted_coding(request.headers.get(hdrs.ACCEPT_ENCODING))
    if coding is None:
        return False
    response.enable_compression(web.ContentCoding(coding))
    return True


def _begun(answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    if answer.closes:
        response.force_close()
    return response


async def _send_pieces(
    request: web.BaseRequest, answer: Answer, body: Pieces
) -> web.StreamResponse:
    response = _begun(answer)
    if not _compress(request, answer, response):
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
    collected: list[bytes] = []
    size = 0
    async for piece in body.pieces:
        collected.append(piece)
        size += len(piece)
        if body.live or size > _COLLECTED_BYTES:
            break
    else:
        answer.body = b"".join(collected)
        return whole_response(answer, request)
    response = _begun(answer)
    _compress(request, answer, response)
    await response.prepare(request)
    if request.method != hdrs.METH_HEAD:
        await response.write(b"".join(collected))
        del collected, piece  # a reference would keep it for as long as the client reads
        async for piece in body.pieces:
            await response.write(piece)
            if not body.live:
                await asyncio.sleep(0)  # to a client that reads fast, writing never waits
        await response.write_eof()
    return response
