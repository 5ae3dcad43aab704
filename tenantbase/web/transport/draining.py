"""The end of a server, in an order that leaves no request without an answer.

1. Health is 503 and every answer says ``Connection: close``; all is served as before, for the
   drain delay and until the requests that were under way have ended.
2. The port is closed: no handshake begins any more, and what has arrived in the kernel's queue is
   accepted, as closing the socket would reset it.
3. Connections that are still open may have sent a request that is on its way. Each gets its answer,
   and ends with it; after a moment without any request the idle ones are closed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Final

from tenantbase.web.transport.listener import is_last, refuse_handshakes
from tenantbase.web.transport.acceptor import Acceptor
from tenantbase.web.lifecycle import Lifecycle
from tenantbase.web.settings import WebSettings

log = logging.getLogger("tenantbase.web")

# A handshake that has begun takes one more round trip to come to its end.
_HANDSHAKE_SECONDS: Final = 0.05
# So long without a request, and what is open is idle.
_QUIET_SECONDS: Final = 0.5
_LEAST_SECONDS: Final = 0.1  # for the last to be accepted, though the deadline is over
_POLL_SECONDS: Final = 0.01


async def finish_requests(lifecycle: Lifecycle, settings: WebSettings) -> float:
    """Wait for the drain delay, and for the requests that began before the draining.

    Returns: the deadline of all the rest, as a time of the event loop.
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
    """Close the port, and begin every connection that was made before."""
    # Connections to a socket that another process serves too are in good hands there.
    last = [sock for sock in sockets if is_last(sock)]
    refused = [refuse_handshakes(sock) for sock in last]
    if any(refused):
        await asyncio.sleep(_HANDSHAKE_SECONDS)
    acceptor.accept_waiting(last)
    acceptor.stop()
    for sock in sockets:
        sock.close()
    await acceptor.until_begun()


async def until_quiet(lifecycle: Lifecycle, deadline: float) -> None:
    """Wait until every connection has ended, or none of those left has anything to say."""
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
