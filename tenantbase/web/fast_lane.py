"""The fast lane: plain requests answered without the general HTTP machinery.

Every connection begins here. As long as its requests are plain ones (``plain.py``), they are
answered through the same policy, with the same bytes, as by aiohttp's handlers. The first that
is anything else takes the connection, with all bytes not yet answered, to aiohttp for good. A
request whose end does not come in time goes there too, so limits of time are kept in one place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, cast

from aiohttp import hdrs, web

from tenantbase.cache import Cache
from tenantbase.documents import LARGE_BYTES
from tenantbase.errors import InvalidRequest
from tenantbase.found import Found
from tenantbase.interfaces.store import Applied
from tenantbase.web.answers import absent, raw_headers
from tenantbase.web.bodies import parse
from tenantbase.web.changes import SET_VALUE as SET_BODY
from tenantbase.web.changes import set_change
from tenantbase.web.guard import Guard
from tenantbase.web.health import Health
from tenantbase.web.life import Life
from tenantbase.web.plain import (
    GENERAL,
    GET_VALUE,
    INCOMPLETE,
    RAW_VALUE,
    SET_VALUE,
    Recogniser,
    Request,
)
from tenantbase.web.problems import HttpError, answer
from tenantbase.web.rendering import Renderer
from tenantbase.web.settings import WebSettings

_MAX_AHEAD: Final = 1 << 18  # bytes taken in while a request is being answered
_PATIENCE: Final = 1.0  # seconds that a request may be incomplete here
_SENDING: Final = 0.01  # seconds until it is looked at again whether answers have been sent


class FastLane:
    """What all connections of the fast lane share.

    Args:
        general: makes aiohttp's protocol for a connection that leaves the lane.
        server: the ``Server`` header of answers.
    """

    def __init__(
        self,
        cache: Cache,
        settings: WebSettings,
        life: Life,
        guard: Guard,
        health: Health,
        general: Callable[[], asyncio.Protocol],
        server: str,
    ) -> None:
        self.cache = cache
        self.settings = settings
        self.life = life
        self.health = health
        self.general = general
        self.connections: set[FastConnection] = set()
        self._guard = guard
        # Checks of the request's head have their place here, and are made once for each block
        # of header fields, not for each request.
        self.recognise = Recogniser(self._allowed).recognise
        self.renderer = Renderer(life, server)

    def __call__(self) -> FastConnection:
        """A protocol for a new connection."""
        return FastConnection(self)

    def _allowed(self, headers: Mapping[str, str]) -> bool:
        try:
            self._guard.check(hdrs.METH_POST, "/", headers)
        except HttpError:
            return False
        # A page of an allowed origin has its answers with CORS headers, from the other lane.
        return True

    async def watch(self) -> None:
        """Look after connections on which nothing happens; runs until it is cancelled."""
        while True:
            await asyncio.sleep(_PATIENCE)
            now = asyncio.get_running_loop().time()
            for connection in list(self.connections):
                connection.look_after(now)

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
    """One connection in the lane; it answers one request after the other."""

    __slots__ = (
        "_lane",
        "_transport",
        "_buffer",
        "_asked",
        "_busy",
        "_counted",
        "_writable",
        "_reading",
        "_touched",
        "_quiet_since",
    )

    def __init__(self, lane: FastLane) -> None:
        self._lane = lane
        self._buffer = b""  # received and not answered
        self._asked = b""  # the request under way
        self._busy = False  # a request is under way
        self._counted = False
        self._writable = True
        self._reading = True
        self._touched = True
        self._quiet_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._lane.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lane.connections.discard(self)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._advance()

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            self._buffer += data
        else:  # more of a request that began long ago is no sign of life
            self._touched = True
            self._buffer = data
        if not self._busy:
            self._advance()
        elif len(self._buffer) > _MAX_AHEAD and self._reading:
            self._reading = False
            self._transport.pause_reading()

    def look_after(self, now: float) -> None:
        """Called now and then: end a connection that is idle, hand on one that is slow."""
        if self._busy or not self._writable:
            return
        if self._touched:
            self._touched = False
            self._quiet_since = now
        elif self._buffer:
            self._leave()
        elif now - self._quiet_since > self._lane.settings.keepalive_timeout:
            self._transport.close()

    def close(self) -> None:
        """End the connection, once what was written has been sent."""
        self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def _advance(self) -> None:
        """Begin the next request, if there is one and it may begin."""
        if self._busy or not self._buffer or not self._writable or self._transport.is_closing():
            return
        lane = self._lane
        # While the server drains, all new requests are for the other lane, which says so.
        request = GENERAL if lane.life.draining else lane.recognise(self._buffer)
        if request is GENERAL:
            self._leave()
            return
        if request is INCOMPLETE:
            return
        route = request.route
        if route is SET_VALUE:
            self._set(request)
            return
        self._begin(request)
        if route is GET_VALUE:
            lane.cache.get_then(request.key, self._got_value)
        elif route is RAW_VALUE:
            lane.cache.get_then(request.key, self._got_raw)
        else:
            health = asyncio.get_running_loop().create_task(lane.health.state())
            health.add_done_callback(self._got_response)

    def _begin(self, request: Request) -> None:
        self._busy = True
        self._touched = True
        self._counted = self._lane.life.begin()
        self._asked = self._buffer[: request.size]
        self._buffer = self._buffer[request.size :]

    def _set(self, request: Request) -> None:
        lane = self._lane
        try:
            given = parse(SET_BODY, request.body)
            change = set_change(given, None, lane.cache.now(), lane.settings.max_value_bytes)
        except InvalidRequest:
            self._leave()  # there it is found again, and answered
            return
        self._begin(request)
        lane.cache.write(change).add_done_callback(self._was_set)

    def _got_value(self, result: Found | Exception) -> None:
        if isinstance(result, Exception) or result.entry is None:
            self._got_nothing(result)
        elif len(result.entry.value) > LARGE_BYTES:
            self._hand_on()
        else:
            self._end(self._lane.renderer.value(result.entry, result.source))

    def _got_raw(self, result: Found | Exception) -> None:
        if isinstance(result, Exception) or result.entry is None:
            self._got_nothing(result)
        elif len(result.entry.value) > LARGE_BYTES:
            self._hand_on()
        else:
            entry = result.entry
            headers = raw_headers(entry, result.source)
            self._end(self._lane.renderer.answer(200, "OK", headers, entry.value))

    def _got_nothing(self, result: Found | Exception) -> None:
        response = answer(result) if isinstance(result, Exception) else absent(result.source)
        self._end(self._lane.renderer.response(response))

    def _was_set(self, write: asyncio.Future[tuple[Applied, ...]]) -> None:
        error = write.exception()
        if error is not None:
            self._end(self._lane.renderer.response(_failed(error)))
            return
        (applied,) = write.result()
        self._end(self._lane.renderer.written(applied))

    def _got_response(self, task: asyncio.Future[web.Response]) -> None:
        error = task.exception()
        response = task.result() if error is None else _failed(error)
        self._end(self._lane.renderer.response(response))

    def _end(self, data: bytes) -> None:
        """Send the answer, and look at what has come meanwhile."""
        self._busy = False
        self._lane.life.end(self._counted)
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if self._lane.life.draining:
            self._transport.close()
            return
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        if self._buffer:
            self._advance()

    def _hand_on(self) -> None:
        """Have the request under way answered by aiohttp, where large answers go out in pieces."""
        self._busy = False
        self._lane.life.end(self._counted)
        if self._transport.is_closing():
            return
        self._buffer = self._asked + self._buffer
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        self._leave()

    def _leave(self) -> None:
        """Hand the connection, with what it has sent so far, to aiohttp for good."""
        self._lane.connections.discard(self)
        protocol = self._lane.general()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(self._buffer)
        self._buffer = b""


def _failed(error: BaseException) -> web.Response:
    # The policy's own futures are never cancelled by it, so this is an error and not an order.
    return answer(error if isinstance(error, Exception) else RuntimeError(repr(error)))
