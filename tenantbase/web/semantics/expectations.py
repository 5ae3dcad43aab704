"""``Expect: 100-continue``: a client asks before it sends a large body (RFC 9110, section 10.1.1).

``100 Continue`` is sent just before the body is read. A request that is refused because of its head
is answered before that, and the client need not send the body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.typedefs import Handler

_CONTINUE: Final = "100-continue"
_INVITED: Final = web.RequestKey("invited", bool)
_UNROUTED: Final = web.RequestKey("unrouted", bool)


async def send_nothing(request: web.Request) -> None:
    """Replaces aiohttp's hook for ``Expect``, which would send ``100 Continue`` too early."""


def check_expectation(request: web.BaseRequest) -> None:
    """Raise HTTPExpectationFailed if the expectation is not ``100-continue``."""
    expected = request.headers.get(hdrs.EXPECT)
    if expected and request.version >= HttpVersion11 and expected.lower() != _CONTINUE:
        raise web.HTTPExpectationFailed


async def invite(request: web.BaseRequest) -> None:
    """Send ``100 Continue`` if the client waits for it. Call this before reading the body."""
    if is_uninvited(request):
        request[_INVITED] = True
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # only while the final answer has not begun


def is_uninvited(request: web.BaseRequest) -> bool:
    """Whether the client is still waiting for ``100 Continue``."""
    return (
        hdrs.EXPECT in request.headers
        and request.version >= HttpVersion11
        and request.headers[hdrs.EXPECT].lower() == _CONTINUE
        and not request.content.is_eof()
        and _INVITED not in request
    )


def is_unrouted(request: web.BaseRequest) -> bool:
    """Whether there is no route for the request, and so no ``match_info``."""
    return _UNROUTED in request


def without_early_invitation(
    app: web.Application, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """The handler of all requests, without aiohttp's ``100 Continue`` for routes that do not exist.

    aiohttp serves these with a route of its own, whose hook for ``Expect`` cannot be set.
    """

    async def careful(request: web.BaseRequest) -> web.StreamResponse:
        if hdrs.EXPECT in request.headers:
            assert isinstance(request, web.Request)  # as all requests of an application
            match = await app.router.resolve(request)
            if match.http_exception is not None:
                request[_UNROUTED] = True
                handler: Handler = match.handler
                for middleware in reversed(app.middlewares):
                    handler = partial(middleware, handler=handler)
                response = await handler(request)
                await app.on_response_prepare.send(request, response)
                return response
        return await handle(request)

    return careful
