"""The web layer's part of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tenantbase.database import Limits
from tenantbase.web.forwarding import Network
from tenantbase.web.transport.tls import TlsContext


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """Limits and rules of HTTP. Sizes in bytes, times in seconds. Defaults are in ``Config``.

    Attributes:
        tls: the TLS configuration; None means plain HTTP.
        loopback: the server has TCP ports, all of them on loopback addresses. Only web pages in this
            machine's browsers could reach it, so ``Host`` is checked.
        may_be_open: whether a database without tokens admits every caller; otherwise it admits none.
        allowed_hosts: names accepted as ``Host`` besides loopback names, in lower case, without
            port. If there are any, ``Host`` is checked on every address.
        cors_origins: origins whose pages may read and write, as browsers write them; ``:*`` in
            place of a port allows every port.
        trusted_proxies: networks whose forwarding headers are trusted; ``unix``: the peers of Unix
            sockets.
        limits: of operations, which the database applies too.
        max_request_bytes: the largest JSON body. It exceeds the largest value, which base64 makes
            longer.
        max_inflight_bytes: memory for the request bodies of all requests together, and as much
            again for answers that clients have yet to read.
        max_connections: open connections.
        max_requests: requests in flight, besides watches and health checks.
        body_timeout: for a request body to arrive.
        keepalive_timeout: for an idle connection, or one whose request head is incomplete.
        fast_path: answer plain requests without aiohttp.
        console: serve the console at ``/``.
        send_timeout: for a client that reads nothing of its answer.
        drain_delay: how long new connections are accepted after shutdown begins.
        drain_timeout: grace period for in-flight requests on shutdown.
    """

    tls: TlsContext | None
    loopback: bool
    may_be_open: bool
    allowed_hosts: frozenset[str]
    cors_origins: frozenset[str]
    trusted_proxies: tuple[Network | Literal["unix"], ...]
    limits: Limits
    max_request_bytes: int
    max_inflight_bytes: int
    max_connections: int
    max_requests: int
    body_timeout: float
    keepalive_timeout: float
    fast_path: bool
    console: bool
    send_timeout: float
    drain_delay: float
    drain_timeout: float
