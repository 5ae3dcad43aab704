"""The connections of a client, and how it verifies the server at their other end."""

from __future__ import annotations

from ssl import SSLContext
from typing import Final

import aiohttp

# Shorter than a server's or proxy's, so that a request never meets a connection being closed.
_KEEPALIVE_SECONDS: Final = 15.0


def open_session(
    connections: int, context: SSLContext | None, path: str | None = None
) -> aiohttp.ClientSession:
    """A pool of connections, to be used as a context manager.

    Args:
        connections: how many may be open; 0: no limit.
        context: how to verify a server with an https URL; None: with this machine's authorities.
        path: connect to this Unix socket, whatever host a URL names.
    """
    connector: aiohttp.BaseConnector
    if path is None:
        connector = aiohttp.TCPConnector(
            limit=connections,
            keepalive_timeout=_KEEPALIVE_SECONDS,
            ssl=True if context is None else context,
        )
    else:
        connector = aiohttp.UnixConnector(
            path, limit=connections, keepalive_timeout=_KEEPALIVE_SECONDS
        )
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
