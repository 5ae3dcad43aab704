"""``GET /v1/watch``: changes as server-sent events (HTML Living Standard, section 9.2)."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Final

import msgspec
from aiohttp import ClientConnectionError, hdrs, web

from tenantbase.background import keep_running
from tenantbase.entry import check_text
from tenantbase.changes.feed import Feed
from tenantbase.interfaces.store import ChangeEvent
from tenantbase.changes.subscription import RESET
from tenantbase.web.lifecycle import Lifecycle
from tenantbase.web.transport.tls_transport import end_with_client
from tenantbase.web.semantics.targets import query

EVENT_STREAM: Final = "text/event-stream"

_HEADERS: Final = {
    hdrs.CONTENT_TYPE: EVENT_STREAM,
    hdrs.CACHE_CONTROL: "no-store",
    "X-Accel-Buffering": "no",  # nginx, and what copies it, would hold events back
}
_LAST_EVENT_ID: Final = "Last-Event-ID"
# The second name is what polyfills of EventSource use, which cannot set the header.
_IN_QUERY: Final = ("last_event_id", "lastEventId")
_QUERY: Final = frozenset({"prefix", *_IN_QUERY})
# Of no event: it is answered with a reset, as the id of an event of another database is.
_UNKNOWN: Final = (1 << 63) - 1
_VERSION: Final = re.compile("[0-9]{1,19}")
_BEGIN: Final = b": watching\nretry: 1000\n%b\n"
# The place in the log goes with it, or a watcher of quiet keys would fall out of the log's reach.
_HEARTBEAT: Final = b": alive\nid: %d\n\n"
# The kernel would hold megabytes for each watcher that does not read.
_SEND_BUFFER: Final = 64 << 10


class Watch:
    """Handler of the route, and the end of all streams when the server drains."""

    def __init__(self, feed: Feed, lifecycle: Lifecycle) -> None:
        self._feed = feed
        self._lifecycle = lifecycle

    async def lifetime(self, app: web.Application) -> AsyncIterator[None]:
        """For ``cleanup_ctx`` of the application."""
        ending = keep_running(self._end_when_draining, "end of watches")
        yield
        ending.cancel()
        await asyncio.wait([ending])
        await self._feed.close()

    async def _end_when_draining(self) -> None:
        await self._lifecycle.until_draining()
        await self._feed.close()

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/watch``"""
        parameters = query(request, _QUERY)
        prefix = check_text(parameters.get("prefix", ""), "prefix")
        after = _after(request.headers.get(_LAST_EVENT_ID), *map(parameters.get, _IN_QUERY))
        if request.method == hdrs.METH_HEAD:
            return web.Response(headers=_HEADERS)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        async with self._feed.subscribe(prefix, after, transport.abort) as changes:
            response = web.StreamResponse(headers=_HEADERS)
            response.force_close()  # its buffer is too small for other answers
            end_with_client(transport)
            await response.prepare(request)
            try:
                # Who resumes knows a place already, and keeps it until an event says more.
                place = b"id: %d\n" % changes.position if after is None else b""
                await response.write(_BEGIN % place)
                async for events in changes:
                    await response.write(
                        b"".join(_block(event, prefix) for event in events)
                        or _HEARTBEAT % changes.position
                    )
                await response.write_eof()
            except ClientConnectionError as error:
                raise ConnectionResetError("the client is gone") from error
        return response


def _after(*ids: str | None) -> int | None:
    """The version after which events are wanted; None: from now on.

    The first id that was given counts: a browser that connects again keeps the query it began with,
    and its header is newer. What is not an id of ours gets no error, on which an EventSource would
    give up for good, but a reset. An empty one says that nothing was seen yet.
    """
    text = next(filter(None, ids), None)
    if text is None:
        return None
    return min(int(text), _UNKNOWN) if _VERSION.fullmatch(text) else _UNKNOWN


def _block(event: ChangeEvent, prefix: str) -> bytes:
    if event.kind == RESET:
        # Of what was removed and what is watched, one begins with the other.
        key = msgspec.json.encode(max(event.key, prefix, key=len))
        return b'event: reset\nid: %d\ndata: {"prefix":%b,"version":%d}\n\n' % (
            event.version,
            key,
            event.version,
        )
    return _change(event)


@lru_cache(maxsize=256)  # many watchers get the same events at the same time
def _change(event: ChangeEvent) -> bytes:
    return b'event: %b\nid: %d\ndata: {"key":%b,"version":%d}\n\n' % (
        event.kind.encode(),
        event.version,
        msgspec.json.encode(event.key),
        event.version,
    )
