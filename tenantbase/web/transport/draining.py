"""Graceful shutdown, in an order that leaves no request without an answer.

1. Health turns 503, and every answer says ``Connection: close``. Requests are served as before for
   the drain delay, and until those in flight have ended.
2. The port is closed. No new handshake begins, and connections in the kernel's queue are accepted,
   since closing the socket would reset them.
3. A request may still be on its way over an open connection. Its answer ends the connection. After a
   moment without any request, the idle connections are closed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Final

from tenantbase.web.lifecycle import Lifecycle
from tenantbase.web.settings import WebSettings
from tenantbase.web.transport.acceptor import Acceptor
from tenantbase.web.transport.listener import is_last, refuse_connections

log = logging.getLogger("tenantbase.web")

# A handshake that has begun needs one more round trip.
_HANDSHAKE_SECONDS: Final = 0.05
# Without a request for this long, the open connections count as idle.
_QUIET_SECONDS: Final = 0.5
_LEAST_SECONDS: Final = 0.1  # granted to the connections accepted last, even after the deadline
_POLL_SECONDS: Final = 0.01


async def finish_requests(lifecycle: Lifecycle, settings: WebSettings) -> float:
    """Wait for the drain delay, then for the requests that were in flight when it began.

    Returns: the deadline of the remaining steps, on the event loop's clock.
    """
    if settings.drain_delay:
        await asyncio.sleep(settings.drain_delay)
    deadline = asyncio.get_running_loop().time() + settings.drain_timeout
    try:
        async with asyncio.timeout_at(deadline):
            await lifecycle.until_finished()
    except TimeoutError:
        log.warning("%d requests did not finish in time", lifecycle.in_flight)
    return deadline


async def close_listeners(acceptor: Acceptor, sockets: Sequence[socket.socket]) -> None:
    """Close the port, after accepting every connection in its queue."""
    # If another process also serves a socket, that process accepts its queue.
    last = [sock for sock in sockets if is_last(sock)]
    refused = [refuse_connections(sock) for sock in last]
    if any(refused):
        await asyncio.sleep(_HANDSHAKE_SECONDS)
    acceptor.accept_waiting(last)
    acceptor.stop()
    for sock in sockets:
        sock.close()
    await acceptor.until_begun()


async def until_quiet(lifecycle: Lifecycle, deadline: float) -> None:
    """Wait until every connection has ended, or those left are idle."""
    loop = asyncio.get_running_loop()
    now = since = loop.time()
    deadline = max(deadline, now + _LEAST_SECONDS)
    begun = lifecycle.begun
    while (lifecycle.active or len(lifecycle.connections)) and now < deadline:
        if lifecycle.active or lifecycle.begun != begun:
            begun, since = lifecycle.begun, now
        elif now - since >= _QUIET_SECONDS:
            return
        await asyncio.sleep(_POLL_SECONDS)
        now = loop.time()
