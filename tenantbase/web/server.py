"""The server: from bound sockets to the last answer, and aiohttp's connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, cast

from aiohttp import EMPTY_PAYLOAD, StreamReader, hdrs, web
from aiohttp.http_exceptions import LineTooLong

from tenantbase.background import keep_running
from tenantbase.documents import PIECE_BYTES
from tenantbase.errors import InvalidRequest
from tenantbase.web.app import BUDGET, CALLERS, DATABASE, GUARD, HEALTH, OBSERVER, TURNS
from tenantbase.web.fast_path.borrowed import Lender
from tenantbase.web.fast_path.connection import FastConnection
from tenantbase.web.fast_path.shared import FastPath
from tenantbase.web.lifecycle import Lifecycle
from tenantbase.web.naming import CONTEXT, X_REQUEST_ID, context_of
from tenantbase.web.observer import Observer
from tenantbase.web.problems import HeaderTooLong, HttpError, TargetTooLong
from tenantbase.web.refusal import refusal
from tenantbase.web.responses import common_headers
from tenantbase.web.semantics.bodies import HOLDING
from tenantbase.web.semantics.cutting import pieces
from tenantbase.web.semantics.expectations import without_early_invitation
from tenantbase.web.sending import error_response
from tenantbase.web.settings import WebSettings
from tenantbase.web.transport.acceptor import Acceptor
from tenantbase.web.transport.budget import Budget
from tenantbase.web.transport.connections import Connections
from tenantbase.web.transport.draining import close_listeners, finish_requests, until_quiet
from tenantbase.web.transport.heads import HEAD_PIECE_BYTES, Head
from tenantbase.web.transport.listener import BACKLOG
from tenantbase.web.transport.tls import HANDSHAKE_SECONDS, TlsConnections
from tenantbase.web.transport.unread import Share

# A key of 1,024 bytes, each percent-encoded, has 3,072 characters; a cursor has up to 1,368.
MAX_LINE_BYTES: Final = 16_384
MAX_FIELD_BYTES: Final = 8_190
# How long the rest of a body is still read after its request was refused: a client that is cut off
# while it sends does not see the answer.
_LINGERING_SECONDS: Final = 5.0
# Added to the send timeout before the kernel gives a peer up.
_VANISHED_SECONDS: Final = 30.0


class Connection(web.RequestHandler):
    """aiohttp's connection, with problem documents for its own errors, too.

    `finish_response` and `handle_error` are undocumented. They are overridden because only there
    does aiohttp answer failures before a handler or in the middleware.
    """

    __slots__ = (
        "_connections",
        "_observer",
        "_connected",
        "_ended",
        "_finished",
        "_share",
        "_budget",
        "_head",
        "_body",
        "lender",
    )

    def __init__(
        self,
        server: web.Server,
        connections: Connections | None,
        budget: Budget,
        observer: Observer | None,
        **options: Any,
    ) -> None:
        super().__init__(server, **options)
        self._connections = connections
        self._observer = observer
        self._budget = budget
        self._head: Head | None = (
            None  # of its next request; not needed on loan, because the lender passes on whole heads
        )
        self._body: StreamReader = EMPTY_PAYLOAD  # of its last request
        self._ended = False  # the client has closed its sending side
        self._finished = 0  # counts answers; aiohttp counts requests in _request_count
        self._share: Share | None = None  # of the budget for unread answers; else the lender's
        self.lender: Lender | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connected = cast(asyncio.Transport, transport)
        if self._connections is not None:
            self._connections.made(self._connected)
            self._share = Share(self._connections.unread, self._connected)
            self._head = Head(self._budget, self._connected)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._connections is not None:
            self._connections.lost(self._connected, exc)
        if self._share is not None:
            self._share.release()
        if self._head is not None:
            self._head.complete()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        if self._share is not None:
            self._share.charge(max(self._connected.get_write_buffer_size(), PIECE_BYTES))
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._share is not None:
            self._share.release()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if not self._has_room(len(data)):
            return
        for piece in pieces(data):
            if self._head is None:
                super().data_received(piece)
            else:
                self._receive(piece, self._head)

    def _has_room(self, count: int) -> bool:
        """Whether these bytes may wait until their request reads them. Otherwise it is refused."""
        request = self._current_request
        holding = None if request is None else request.get(HOLDING)
        if request is None or holding is None or request.content.is_eof():
            return True
        if not holding.evicted:
            if self._budget.receive(count):
                return True
            holding.evict()
        # The rest of the body is discarded, and the connection ends after the answer.
        if request.content_length is None:
            self._connected.abort()  # where a body in chunks ends, only its parser can tell
        return False

    def _receive(self, data: bytes, head: Head) -> None:
        """Parse heads in small pieces. Bodies have limits of their own, and are passed on whole."""
        if not data:
            self._parse(data, head)  # requests that aiohttp has kept until there was room for them
        at = 0
        while at < len(data):
            if not self._body.is_eof():
                super().data_received(data[at:])
                return
            piece = data[at : at + HEAD_PIECE_BYTES]
            at += len(piece)
            if self._parse(piece, head):
                continue
            if self._buffer_paused:
                continue  # whole requests, which aiohttp's parser keeps for later
            try:
                head.extend(len(piece))
            except HttpError as error:
                self._refuse(error)
                return

    def _parse(self, data: bytes, head: Head) -> bool:
        """Returns: whether heads became complete."""
        before = self._request_count
        super().data_received(data)
        if self._request_count == before:
            return False
        head.complete()
        self._body = self._messages[-1][1]
        return True

    def _refuse(self, error: HttpError) -> None:
        """Close the connection, with an error answer unless another answer is due first."""
        if self._finished == self._request_count and not self._connected.is_closing():
            self._connected.write(refusal(error))
        self._connected.close()

    def eof_received(self) -> bool:  # type: ignore[override]  # as asyncio.Protocol has it
        """The client has closed its sending side and waits for its answers."""
        self._ended = True
        if self._connections is not None:
            self._connections.half_closed(self._connected)
        current = self._current_request
        incomplete = current is not None and not current.content.is_eof()
        if incomplete or self._finished == self._request_count:
            self._connected.close()
        return True

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPException):  # raised outside the middleware
            resp = error_response(request, resp)
        self._finished += 1
        if self._ended and self._finished == self._request_count:
            resp.force_close()
        finished = await super().finish_response(request, resp, start_time)
        if isinstance(resp, web.Response):
            resp.body = None  # aiohttp refers to the response until the next request comes
        if self._observer is not None:
            self._observer.answered(request, finished[0].status)
        if self.lender is not None:
            response, reset = finished
            self.lender.returned(bool(response.keep_alive) and not reset)
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError) or request.writer.output_size:
            # The client is gone or must be cut off. aiohttp's frames and the error raised here refer
            # to each other until the garbage collector runs, which is rare. So that error must not
            # refer to the first one, whose frames hold everything the request held.
            cut = ConnectionAbortedError("the answer was cut")
            try:
                raise cut
            finally:
                cut.__context__ = exc = None
        if CONTEXT not in request:  # for the log, too
            request[CONTEXT] = context_of(request.headers)
        error: Exception
        if isinstance(exc, LineTooLong) and exc.args[1] == MAX_LINE_BYTES:
            error = TargetTooLong(f"a request target has at most {MAX_LINE_BYTES:,} bytes")
        elif isinstance(exc, LineTooLong):
            error = HeaderTooLong(f"a header field has at most {MAX_FIELD_BYTES:,} bytes")
        elif status < 500:
            error = InvalidRequest("this is not a valid HTTP request")
        elif isinstance(exc, UnicodeEncodeError) and hdrs.EXPECT in request.headers:
            # aiohttp repeats an unknown expectation in its answer, even if that cannot be encoded.
            error = web.HTTPExpectationFailed()
        else:
            error = exc if isinstance(exc, Exception) else RuntimeError(f"{status}: {message}")
        response = error_response(request, error)
        response.headers.update(common_headers())
        response.headers[X_REQUEST_ID] = request[CONTEXT].id
        response.force_close()
        return response


@asynccontextmanager
async def serving(
    app: web.Application,
    sockets: Sequence[socket.socket],
    lifecycle: Lifecycle,
    settings: WebSettings,
) -> AsyncIterator[None]:
    """Serve on bound sockets inside the block; drain and close them when it ends."""
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(app)
    await runner.setup()
    server = runner.server
    assert server is not None
    server.request_handler = without_early_invitation(app, server.request_handler)

    observer = app.get(OBSERVER)

    def general(borrowed: bool = False) -> Connection:
        return Connection(
            server,
            None if borrowed else lifecycle.connections,  # the lender counts what it lends
            app[BUDGET],
            observer,
            loop=loop,
            keepalive_timeout=settings.keepalive_timeout,
            access_log=None,  # the observer is told of each request
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            lingering_time=_LINGERING_SECONDS,
            auto_decompress=False,
        )

    connect: Callable[[], asyncio.Protocol] = general
    fast_path = None
    cut_stalled = partial(lifecycle.connections.cut_stalled, settings.send_timeout)
    tasks = [keep_running(cut_stalled, "watchdog of slow readers")]
    if settings.fast_path:
        fast_path = FastPath(
            app[DATABASE],
            settings,
            lifecycle,
            app[GUARD],
            app[CALLERS],
            app[HEALTH],
            app[BUDGET],
            app[TURNS],
            general,
            observer,
        )
        connect = partial(FastConnection, fast_path)
        tasks.append(keep_running(fast_path.connections.watch, "watchdog of the fast path"))
    if settings.tls is not None:
        # The keep-alive timeout bounds the wait for a request's headers, which follow the handshake.
        handshake = min(HANDSHAKE_SECONDS, settings.keepalive_timeout)
        connect = TlsConnections(settings.tls, connect, handshake)
    acceptor = Acceptor(
        connect,
        lifecycle.connections,
        settings.max_connections,
        plain_text=settings.tls is None,
    )
    try:
        for sock in sockets:
            _prepare(sock, settings.send_timeout)
        acceptor.start(sockets)
        yield
    finally:
        lifecycle.drain()
        if fast_path is not None:
            fast_path.connections.drain()
        deadline = await finish_requests(lifecycle, settings)
        await close_listeners(acceptor, sockets)
        await until_quiet(lifecycle, deadline)
        for task in tasks:
            task.cancel()
        if fast_path is not None:
            await fast_path.connections.close(deadline)
        server.pre_shutdown()
        # Answers that clients have yet to read.
        await server.shutdown(max(0.1, deadline - loop.time()))
        await runner.cleanup()
        await lifecycle.connections.lingering.until_closed()


async def serve(
    app: web.Application,
    sockets: Sequence[socket.socket],
    lifecycle: Lifecycle,
    settings: WebSettings,
    stop: asyncio.Event,
) -> None:
    """Serve until ``stop`` is set, then drain."""
    async with serving(app, sockets, lifecycle, settings):
        await stop.wait()


def _prepare(sock: socket.socket, send_timeout: float) -> None:
    sock.setblocking(False)
    sock.listen(BACKLOG)
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    # Inherited by accepted connections.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # For peers that vanish when all unread data is in the kernel's buffers. It also cuts off a
        # live peer that does not read (since Linux 5.11, counted from the first closed window), so
        # it must be longer than the send timeout.
        milliseconds = int((send_timeout + _VANISHED_SECONDS) * 1000)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
