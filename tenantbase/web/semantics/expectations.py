"""``Expect: 100-continue``: a client asks before it sends a large body (RFC 9110, section 10.1.1).

The invitation is sent when the body is about to be read, so whatever the head alone decides is
answered without it, and the client need not send the body in vain.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.typedefs import Handler

_CONTINUE: Final = "100-continue"
_INVITED: Final = web.RequestKey("invited", bool)


async def send_nothing(request: web.Request) -> None:
    """aiohttp's hook for requests with ``Expect``: it comes too early for an invitation."""


def check_expectation(request: web.BaseRequest) -> None:
    """Raise HTTPExpectationFailed if the client expects what is not known here."""
    expected = request.headers.get(hdrs.EXPECT)
    if expected and request.version >= HttpVersion11 and expected.lower() != _CONTINUE:
        raise web.HTTPExpectationFailed


async def invite(request: web.BaseRequest) -> None:
    """Ask for the body, if the client waits for that. To be called before it is read."""
    if is_uninvited(request):
        request[_INVITED] = True
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer proper has not begun


def is_uninvited(request: web.BaseRequest) -> bool:
    """Whether the client still waits before it sends the body."""
    return (
        hdrs.EXPECT in request.headers
        and request.version >= HttpVersion11
        and request.headers[hdrs.EXPECT].lower() == _CONTINUE
        and not request.content.is_eof()
        and _INVITED not in request
    )


def without_early_invitation(
    app: web.Application, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """The handler of all requests, without aiohttp's invitation to a route that does not exist.

    Such a request has a route of aiohttp's own, whose hook for ``Expect`` cannot be set.
    """

    async def careful(request: web.BaseRequest) -> web.StreamResponse:
        if hdrs.EXPECT in request.headers:
            assert isinstance(request, web.Request)  # the requests of an application are
            match = await app.router.resolve(request)
            if match.http_exception is not None:
                handler: Handler = match.handler
                for middleware in reversed(app.middlewares):
                    handler = partial(middleware, handler=handler)
                response = await handler(request)
                await app.on_response_prepare.send(request, response)
                return response
        return await handle(request)

    return careful
