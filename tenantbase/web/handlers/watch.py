"""``GET /v1/watch``: changes as server-sent events (HTML Living Standard, section 9.2)."""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from functools import lru_cache, partial
from typing import Final

import msgspec
from aiohttp import hdrs, web

from tenantbase.background import running
from tenantbase.database import Database
from tenantbase.documents import change_details
from tenantbase.entry import check_text
from tenantbase.events import ChangeEvent, EventKind, EventList
from tenantbase.web.answer import Answer
from tenantbase.web.caller import CALLER, Caller, Callers, scope_of
from tenantbase.web.fast_path.borrowed import own_transport
from tenantbase.web.lifecycle import Lifecycle
from tenantbase.web.responses import events
from tenantbase.web.semantics.targets import query
from tenantbase.web.transport.turns import PIECE_SHARE, Turns

_LAST_EVENT_ID: Final = "Last-Event-ID"
# Polyfills of EventSource cannot set the header. Some use the second name.
_IN_QUERY: Final = ("last_event_id", "lastEventId")
_QUERY: Final = frozenset({"prefix", *_IN_QUERY})
# An id that no event has. Like an id from another database, it leads to a reset.
_UNKNOWN: Final = (1 << 63) - 1
_VERSION: Final = re.compile("[0-9]{1,19}")
_BEGIN: Final = b": watching\nretry: 1000\n%b\n"
# A comment that carries the position in the log. Without it, the log could be trimmed past the
# position of a client that watches quiet keys.
_HEARTBEAT: Final = b": alive\nid: %d\n\n"
# The last block from a server that shuts down. Thousands of clients must not reconnect at once.
_END: Final = b": the server is stopping; connect again\nretry: %d\nid: %d\n\n"
_RETURN_MILLISECONDS: Final = 500, 3000
# By default, the kernel would buffer megabytes for each watcher that does not read.
_SEND_BUFFER_BYTES: Final = 64 << 10


class Watch:
    """The route that streams changes. It also ends all streams when the server drains."""

    def __init__(
        self, database: Database, lifecycle: Lifecycle, callers: Callers, turns: Turns
    ) -> None:
        self._database = database
        self._callers = callers
        self._lifecycle = lifecycle
        # Sending events to some watchers takes about as long as rendering a piece of a list.
        database.pace_watches(partial(turns.take, share=PIECE_SHARE))

    async def lifetime(self, app: web.Application) -> AsyncIterator[None]:
        """For the application's ``cleanup_ctx``."""
        async with running(self._end_when_draining, "end of watches"):
            yield
        await self._database.end_watches()

    async def _end_when_draining(self) -> None:
        await self._lifecycle.until_draining()
        await self._database.end_watches()

    async def watch(self, request: web.Request) -> Answer:
        """``GET /v1/watch``"""
        parameters = query(request, _QUERY)
        prefix = check_text(parameters.get("prefix", ""), "prefix")
        after = _after(request.headers.get(_LAST_EVENT_ID), *map(parameters.get, _IN_QUERY))
        if request.method == hdrs.METH_HEAD:
            scope_of(request).prefix_to_read(prefix)
            return events(None)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is not None:
            # The buffer is too small for other answers, so the connection ends with this one.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        return events(self._blocks(request[CALLER], prefix, after, own_transport(transport)))

    async def _blocks(
        self, caller: Caller, prefix: str, after: int | None, transport: asyncio.Transport
    ) -> AsyncGenerator[bytes, None]:
        async with self._database.watch(caller.scope, prefix, after, transport.abort) as changes:
            with (
                self._lifecycle.idle(caller.use),
                self._lifecycle.connections.endless(transport, changes.end),
                self._callers.holding(caller, changes.end),
            ):
                # A client that resumes has an id already, and keeps it until the next event.
                place = b"id: %d\n" % changes.position if after is None else b""
                yield _BEGIN % place
                if not self._lifecycle.draining:  # the other watches have been ended already
                    async for batch in changes:
                        yield _blocks(batch) if batch else _HEARTBEAT % changes.position
                if self._lifecycle.draining:
                    yield _END % (random.randint(*_RETURN_MILLISECONDS), changes.position)


def _after(*ids: str | None) -> int | None:
    """The version after which to send events; None: from now on.

    The first id given counts: a browser that reconnects repeats its original query, and its header
    is newer. An unknown id is answered with a reset, not with an error, after which an EventSource
    would not reconnect. An empty id means that the client has not received an event.
    """
    text = next(filter(None, ids), None)
    if text is None:
        return None
    return min(int(text), _UNKNOWN) if _VERSION.fullmatch(text) else _UNKNOWN


@lru_cache(maxsize=16)  # rendered once for the many watchers that get the same list
def _blocks(events: EventList) -> bytes:
    return b"".join(map(_block, events))


def _block(event: ChangeEvent) -> bytes:
    if event.kind is EventKind.RESET:
        key = msgspec.json.encode(event.key)
        return b'event: reset\nid: %d\ndata: {"prefix":%b,"version":%d}\n\n' % (
            event.version,
            key,
            event.version,
        )
    return b'event: %b\nid: %d\ndata: {"key":%b,"version":%d%b}\n\n' % (
        event.kind.encode(),
        event.version,
        msgspec.json.encode(event.key),
        event.version,
        (
            b""
            if event.size is None
            else change_details(event.size, event.content_type, event.expires_at)
        ),
    )
