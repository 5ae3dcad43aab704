"""Large answers, sent piece by piece while they are made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Final

from aiohttp import hdrs, web

from tenantbase.entry import JSON
from tenantbase.web.responses import accepted_coding, collection, collection_headers

_WHOLE_UP_TO: Final = 256 << 10  # bytes


async def send(
    request: web.BaseRequest, pieces: AsyncGenerator[bytes, None], content_type: str = JSON
) -> web.StreamResponse:
    """Answer with the pieces in a row.

    What is small is sent as one answer with its length. What is large is sent as it comes, in
    memory that does not grow with it; it comes no faster than the client takes it. An error in
    the middle cuts the connection, so that nobody takes a part for the whole.
    """
    begun = bytearray()
    async with aclosing(pieces):
        async for piece in pieces:
            begun += piece
            if len(begun) > _WHOLE_UP_TO:
                break
        else:
            return collection(request, bytes(begun), content_type)
        response = web.StreamResponse(headers=collection_headers(content_type))
        coding = accepted_coding(request)
        if coding is not None:
            response.enable_compression(coding)
        await response.prepare(request)
        if request.method != hdrs.METH_HEAD:
            await response.write(begun)
            async for piece in pieces:
                await response.write(piece)
                await asyncio.sleep(0)  # a client that reads fast is not waited for
            await response.write_eof()
        return response


async def send_sized(
    request: web.BaseRequest, pieces: Iterable[bytes], size: int, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Answer with pieces that have ``size`` bytes together, no faster than the client takes them."""
    response = web.StreamResponse(headers=headers)
    response.content_length = size
    await response.prepare(request)
    if request.method != hdrs.METH_HEAD:
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0)  # a client that reads fast is not waited for
    await response.write_eof()
    return response
