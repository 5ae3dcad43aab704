"""The fast path: plain requests answered without the general HTTP machinery.

Every connection begins here. As long as its requests are plain ones (``plain.py``), they are
answered through the same policy, with the same bytes, as by aiohttp's handlers. For one that is
anything else the connection is lent to aiohttp until that request has its answer (``borrowed.py``).
Where it cannot be told where a request ends (``framing.py``), or its end does not come in time, the
connection goes to aiohttp for good, so that limits of time are kept in one place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final, cast

from aiohttp import hdrs, web

from tenantbase.database import Database
from tenantbase.documents import LARGE_BYTES
from tenantbase.errors import InvalidRequest
from tenantbase.lookup import Lookup
from tenantbase.json_requests import SET_VALUE as SET_BODY
from tenantbase.interfaces.store import Applied
from tenantbase.json_text import parse
from tenantbase.scope import DEFAULT
from tenantbase.web.responses import absent, deleted, raw_headers
from tenantbase.web.fast_path.borrowed import BorrowedTransport, Lendable
from tenantbase.web.fast_path.framing import frame
from tenantbase.web.guard import Guard
from tenantbase.web.handlers.health import Health
from tenantbase.web.lifecycle import Lifecycle
from tenantbase.web.fast_path.parser import (
    DELETE_VALUE,
    GENERAL,
    GET_VALUE,
    INCOMPLETE,
    RAW_VALUE,
    SET_VALUE,
    Other,
    RequestParser,
    Request,
)
from tenantbase.web.problems import HttpError, answer
from tenantbase.web.fast_path.writer import ResponseWriter
from tenantbase.web.settings import WebSettings

log = logging.getLogger("tenantbase.web")

# Bytes that may wait on a connection; when there are more it is not read.
_MAX_AHEAD_BYTES: Final = 1 << 16
_PATIENCE: Final = 1.0  # seconds that a request may be incomplete here
_SENDING: Final = 0.01  # seconds until it is looked at again whether answers have been sent


class FastPath:
    """What all connections of the fast path share.

    Args:
        general: makes aiohttp's protocol, for a connection that is lent to it, or given for good.
        server: the ``Server`` header of answers.
    """

    def __init__(
        self,
        database: Database,
        settings: WebSettings,
        lifecycle: Lifecycle,
        guard: Guard,
        health: Health,
        general: Callable[[bool], asyncio.Protocol],
        server: str,
    ) -> None:
        self.database = database
        self.settings = settings
        self.lifecycle = lifecycle
        self.health = health
        self.general = general
        self.connections: set[FastConnection] = set()
        self._guard = guard
        # Checks of the request's head have their place here, and are made once for each block
        # of header fields, not for each request.
        self.parse = RequestParser(self._allowed).parse
        self.writer = ResponseWriter(lifecycle, server, vary_origin=guard.has_cors)

    def __call__(self) -> FastConnection:
        """A protocol for a new connection."""
        return FastConnection(self)

    def _allowed(self, headers: Mapping[str, str]) -> bool:
        try:
            self._guard.check(hdrs.METH_POST, "/", headers)
        except HttpError:
            return False
        # A page of an allowed origin has its answers with CORS headers, from the general path.
        return not (self._guard.has_cors and hdrs.ORIGIN in headers)

    async def watch(self) -> None:
        """Look after connections on which nothing happens; runs until it is cancelled."""
        while True:
            await asyncio.sleep(_PATIENCE)
            now = asyncio.get_running_loop().time()
            for connection in list(self.connections):
                try:
                    connection.look_after(now)
                except Exception:  # the boundary: it must not keep the others from their turn
                    log.exception("a connection cannot be looked after; it is cut")
                    connection.abort()

    def drain(self) -> None:
        """The server is about to stop: hand on what has begun to arrive.

        A request whose rest is still to come is waited for there.
        """
        for connection in list(self.connections):
            connection.drain()

    async def close(self, deadline: float) -> None:
        """End every connection once it has its answer, or at a time of the event loop.

        The last thing when the server stops.
        """
        for connection in list(self.connections):
            connection.close()
        while self.connections and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_SENDING)
        for connection in list(self.connections):
            connection.abort()


class FastConnection(asyncio.Protocol):
    """One connection; it answers one request after the other, or lends itself out for it."""

    __slots__ = (
        "_fast_path",
        "_transport",
        "_buffer",
        "_start",
        "_asked",
        "_busy",
        "_counted",
        "_writable",
        "_reading",
        "_ended",
        "_touched",
        "_quiet_since",
        "_general",
        "_loan",
        "_lent",
        "_owed",
        "_answered",
    )

    def __init__(self, fast_path: FastPath) -> None:
        self._fast_path = fast_path
        self._buffer = b""  # received; what lies before _start is done with
        self._start = 0
        self._asked = b""  # the request in flight here, if others may have to answer it
        self._busy = False  # a request is in flight here
        self._counted = False
        self._writable = True
        self._reading = True
        self._ended = False  # the client has sent all that it will send
        self._touched = True
        self._quiet_since = 0.0
        # aiohttp's protocol, once there was a request for it, and its transport.
        self._general: asyncio.Protocol | None = None
        self._loan: BorrowedTransport | None = None
        self._lent = False  # a request is in flight there
        self._owed = 0  # bytes of that request which have not come yet
        self._answered = False  # it has its answer, though it may not have come as a whole

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._fast_path.connections.add(self)
        self._fast_path.lifecycle.connections.made(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fast_path.connections.discard(self)
        self._fast_path.lifecycle.connections.lost(self._transport, exc)
        if self._general is not None:
            self._general.connection_lost(exc)

    def pause_writing(self) -> None:
        self._writable = False
        if self._general is not None:
            self._general.pause_writing()

    def resume_writing(self) -> None:
        self._writable = True
        if self._general is not None:
            self._general.resume_writing()
        self._go_on()

    def data_received(self, data: bytes) -> None:
        if self._owed:
            data = self._pass_on(data)
            if not data:
                return
        if self._start < len(self._buffer):
            # Copies what waits, which is little: beyond a bound nothing is read.
            self._buffer = self._buffer[self._start :] + data
        else:  # more of a request that began long ago is no sign of life
            self._touched = True
            self._buffer = data
        self._start = 0
        self._advance()
        self._bound()

    def eof_received(self) -> bool:
        """The client has closed its side, as ``nc -N`` does; it still waits for its answers."""
        self._ended = True
        if self._owed:  # the rest will never come
            self._transport.close()
        elif not (self._busy or self._lent) and self._writable:
            self._transport.close()
        return True

    def look_after(self, now: float) -> None:
        """Called now and then: end a connection that is idle, hand on one that is slow."""
        if self._busy or self._lent or not self._writable:
            return
        if self._touched:
            self._touched = False
            self._quiet_since = now
        elif self._start < len(self._buffer):
            self._leave()
        elif now - self._quiet_since > self._fast_path.settings.keepalive_timeout:
            self._transport.close()

    def drain(self) -> None:
        """Hand on a request that has not arrived as a whole."""
        waiting = self._start < len(self._buffer)
        if waiting and not self._busy and not self._lent and self._writable:
            self._leave()

    def close(self) -> None:
        """End the connection, once what was written has been sent."""
        if not self._lent:  # the borrower closes it after its answer
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def _advance(self) -> None:
        """Begin the next request, if there is one and it may begin."""
        fast_path = self._fast_path
        while (
            self._start < len(self._buffer)
            and not (self._busy or self._lent)
            and self._writable
            and not self._transport.is_closing()
        ):
            # While the server drains, all new requests are for the general path, which says so.
            request: Request | Other = GENERAL
            if not fast_path.lifecycle.draining:
                request = fast_path.parse(self._buffer, self._start)
            if request is INCOMPLETE:
                return
            if request is GENERAL or not self._begun(request):
                if not self._lend():
                    self._leave()

    def _begun(self, request: Request) -> bool:
        """Begin a plain request; False: something is wrong with it, and for others to say."""
        fast_path, route = self._fast_path, request.route
        database = fast_path.database
        try:
            # None of these has its result before it returns.
            if route is GET_VALUE:
                database.get_then(DEFAULT, request.key, self._got_value)
            elif route is RAW_VALUE:
                database.get_then(DEFAULT, request.key, self._got_raw)
            elif route is SET_VALUE:
                database.set_then(DEFAULT, parse(SET_BODY, request.body), self._was_set)
            elif route is DELETE_VALUE:
                database.delete_then(DEFAULT, request.key, self._was_deleted)
            else:
                health = asyncio.get_running_loop().create_task(fast_path.health.state())
                health.add_done_callback(self._got_response)
        except InvalidRequest:
            return False  # on the general path it is found again, and answered
        self._begin(request)
        return True

    def _begin(self, request: Request) -> None:
        self._busy = True
        self._touched = True
        self._counted = self._fast_path.lifecycle.begin()
        self._asked = self._buffer[self._start : request.end]
        self._taken(request.end)

    def _taken(self, end: int) -> None:
        """What lies before ``end`` in the buffer is done with."""
        if end >= len(self._buffer):
            self._buffer, self._start = b"", 0
        else:
            self._start = end

    def _bound(self) -> None:
        """Read no more while much is waiting, and go on when it is less."""
        waiting = len(self._buffer) - self._start
        if waiting > _MAX_AHEAD_BYTES:
            # Each time: a borrower that had paused it as well may have made it read again.
            self._reading = False
            self._transport.pause_reading()
        elif not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def _go_on(self) -> None:
        """A request has its answer: begin the next, or end the connection."""
        self._advance()
        self._bound()
        # The client sends no more, so what is incomplete stays so.
        if self._ended and not (self._busy or self._lent) and self._writable:
            self._transport.close()

    # Requests for the general path

    def _lend(self) -> bool:
        """Give the next request to aiohttp's protocol; False if its end cannot be told."""
        framed = frame(self._buffer, self._start)
        if framed is None:
            return False
        if self._general is None:
            self._general = self._fast_path.general(True)
            self._loan = BorrowedTransport(self._transport, self)
            cast(Lendable, self._general).lender = self
            self._general.connection_made(self._loan)
        self._lent = True
        self._answered = False
        self._touched = True
        end = framed.head_end + framed.body_length
        here = self._buffer[self._start : end]
        self._owed = end - self._start - len(here)
        self._taken(end)
        self._general.data_received(here)
        return True

    def _pass_on(self, data: bytes) -> bytes:
        """Give the borrower what is its; returns the rest."""
        here, rest = data[: self._owed], data[self._owed :]
        self._owed -= len(here)
        if self._general is not None:
            self._general.data_received(here)
        self._take_back()
        return rest

    def returned(self, keep: bool) -> None:
        """The borrower has answered. If it does not keep the connection it is about to close it."""
        if self._lent and keep:
            self._answered = True
            self._take_back()

    def _take_back(self) -> None:
        if self._answered and not self._owed:
            self._lent = self._answered = False
            # Not at once: the borrower has not quite ended with this request.
            asyncio.get_running_loop().call_soon(self._go_on)

    def given_up(self, loan: BorrowedTransport) -> None:
        """The borrower has closed its transport."""
        if loan is not self._loan:
            return
        self._general = self._loan = None
        if self._lent:
            self._transport.close()
        # Otherwise it was idle for too long, which is not for it to say.

    def _leave(self) -> None:
        """Hand the connection, with what it has sent so far, to aiohttp for good."""
        self._fast_path.connections.discard(self)
        if self._general is not None:
            general, self._general, self._loan = self._general, None, None
            general.connection_lost(None)
        protocol = self._fast_path.general(False)
        self._transport.set_protocol(protocol)
        if not self._reading:
            self._transport.resume_reading()
        protocol.connection_made(self._transport)
        rest, self._buffer = self._buffer[self._start :], b""
        protocol.data_received(rest)
        if self._ended:
            protocol.eof_received()

    # Answers

    def _got_value(self, result: Lookup | Exception) -> None:
        if isinstance(result, Exception) or result.entry is None:
            self._got_nothing(result)
        elif len(result.entry.value) > LARGE_BYTES:
            self._hand_on()
        else:
            self._end(self._fast_path.writer.value(result.entry, result.cache_status))

    def _got_raw(self, result: Lookup | Exception) -> None:
        if isinstance(result, Exception) or result.entry is None:
            self._got_nothing(result)
        elif len(result.entry.value) > LARGE_BYTES:
            self._hand_on()
        else:
            entry = result.entry
            headers = raw_headers(entry, result.cache_status)
            self._end(self._fast_path.writer.answer(200, "OK", headers, entry.value))

    def _got_nothing(self, result: Lookup | Exception) -> None:
        response = answer(result) if isinstance(result, Exception) else absent(result.cache_status)
        self._end(self._fast_path.writer.response(response))

    def _was_set(self, result: Applied | BaseException) -> None:
        if isinstance(result, BaseException):
            self._end(self._fast_path.writer.response(_failed(result)))
        else:
            self._end(self._fast_path.writer.written(result))

    def _got_response(self, task: asyncio.Future[web.Response]) -> None:
        error = task.exception()
        response = task.result() if error is None else _failed(error)
        self._end(self._fast_path.writer.response(response))

    def _was_deleted(self, result: Applied | BaseException) -> None:
        response = _failed(result) if isinstance(result, BaseException) else deleted()
        self._end(self._fast_path.writer.response(response))

    def _end(self, data: bytes) -> None:
        """Send the answer, and look at what has come meanwhile."""
        self._busy = False
        self._fast_path.lifecycle.end(self._counted)
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if self._fast_path.lifecycle.draining:
            self._transport.close()
            return
        if self._buffer or self._ended or not self._reading:
            self._go_on()

    def _hand_on(self) -> None:
        """Have the request in flight answered by aiohttp, where large answers go out in pieces."""
        self._busy = False
        self._fast_path.lifecycle.end(self._counted)
        if self._transport.is_closing():
            return
        self._buffer = self._asked + self._buffer[self._start :]
        self._start = 0
        if not self._lend():
            self._leave()


def _failed(error: BaseException) -> web.Response:
    # The policy's own futures are never cancelled by it, so this is an error and not an order.
    return answer(error if isinstance(error, Exception) else RuntimeError(repr(error)))
