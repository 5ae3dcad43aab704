"""The server: from bound sockets to the last answer."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import hdrs, web
from aiohttp.http_exceptions import LineTooLong

from tenantbase.errors import InvalidRequest
from tenantbase.web.app import CACHE, GUARD, HEALTH, SERVER
from tenantbase.web.fast_lane import FastLane
from tenantbase.web.life import Life
from tenantbase.web.problems import HeaderTooLong, TargetTooLong, answer
from tenantbase.web.settings import WebSettings

log = logging.getLogger("tenantbase.web")

BACKLOG: Final = 1024
# A key of 1,024 bytes, each percent-encoded, has 3,072 characters; a cursor has up to 1,368.
MAX_LINE: Final = 16_384
MAX_FIELD: Final = 8_190
# An answer to a request whose body nobody wanted: so long the rest of it is still taken, as a
# client that is cut off while it sends does not see the answer.
_LINGERING: Final = 5.0
# A client that does not take its answer, and does not even acknowledge a part of it.
_STALLED_MS: Final = 60_000


class Connection(web.RequestHandler):
    """aiohttp's connection, whose own errors are problem documents as well.

    The two methods are not documented, and are overridden because aiohttp has no other place for
    this: what goes wrong before a handler is called, or in the middleware, is answered there.
    """

    __slots__ = ()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPException):  # raised outside the middleware
            resp = answer(resp)
        return await super().finish_response(request, resp, start_time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError):
            raise exc  # nobody is there to be answered
        if request.writer.output_size:
            raise ConnectionAbortedError("an answer was cut")
        error: Exception
        if isinstance(exc, LineTooLong) and exc.args[1] == MAX_LINE:
            error = TargetTooLong(f"a request target has at most {MAX_LINE:,} bytes")
        elif isinstance(exc, LineTooLong):
            error = HeaderTooLong(f"a header field has at most {MAX_FIELD:,} bytes")
        elif status < 500:
            error = InvalidRequest("this is not a valid HTTP request")
        else:
            error = exc if isinstance(exc, Exception) else RuntimeError(f"{status}: {message}")
        response = answer(error)
        response.headers[hdrs.SERVER] = SERVER
        response.force_close()
        return response


@asynccontextmanager
async def serving(
    app: web.Application, sockets: Sequence[socket.socket], life: Life, settings: WebSettings
) -> AsyncIterator[None]:
    """Serve inside the block, on sockets that are bound already; drain at its end.

    To drain: health is 503, requests under way finish, for at most ``drain_timeout`` seconds.
    Meanwhile new ones are answered too, so that a load balancer learns to send no more.
    """
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(app)
    await runner.setup()
    server = runner.server
    assert server is not None

    def general() -> Connection:
        return Connection(
            server,
            loop=loop,
            keepalive_timeout=settings.keepalive_timeout,
            access_log=None,  # type: ignore[arg-type]  # None is how it is turned off
            max_line_size=MAX_LINE,
            max_field_size=MAX_FIELD,
            lingering_time=_LINGERING,
            auto_decompress=False,
        )

    connect: Callable[[], asyncio.Protocol] = general
    lane = None
    # Answers to other origins differ from plain ones; with them every request is a general one.
    if settings.fast_lane and not app[GUARD].has_cors:
        connect = lane = FastLane(
            app[CACHE], settings, life, app[GUARD], app[HEALTH], general, SERVER
        )
        watch = loop.create_task(lane.watch())
    listeners: list[asyncio.Server] = []
    try:
        for sock in sockets:
            _drop_stalled(sock)
            listeners.append(await loop.create_server(connect, sock=sock, backlog=BACKLOG))
        yield
    finally:
        life.drain()
        deadline = loop.time() + settings.drain_timeout
        try:
            async with asyncio.timeout_at(deadline):
                await life.until_finished()
        except TimeoutError:
            log.warning("%d requests did not finish in time", life.under_way)
        for listener in listeners:
            listener.close()
        await asyncio.sleep(0)  # requests that have arrived begin
        if lane is not None:
            watch.cancel()
            await lane.close(deadline)
        server.pre_shutdown()
        # Answers begun since, and those not yet taken by their clients.
        await server.shutdown(max(0.1, deadline - loop.time()))
        await runner.cleanup()


async def serve(
    app: web.Application,
    sockets: Sequence[socket.socket],
    life: Life,
    settings: WebSettings,
    stop: asyncio.Event,
) -> None:
    """Serve until ``stop`` is set, then drain."""
    async with serving(app, sockets, life, settings):
        await stop.wait()


def _drop_stalled(sock: socket.socket) -> None:
    # Inherited by accepted connections. Elsewhere than on Linux only keep-alive probes end them.
    if sock.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALLED_MS)
