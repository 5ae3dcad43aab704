"""What the web layer needs to know of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from tenantbase.web.transport.tls import TlsContext


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """Limits and rules of the HTTP side. Sizes in bytes, times in seconds.

    Attributes:
        tls: what connections begin with; None: the server speaks plain HTTP.
        loopback: bound to an address that only this machine reaches. ``Host`` is then checked.
        allowed_hosts: names for ``Host`` besides those of loopback, in lower case, without port. If
            there are any, ``Host`` is checked on every address.
        cors_origins: origins whose pages may read and write, as browsers write them; ``:*`` in
            place of a port stands for all of them.
        max_value_bytes: a value as it is stored.
        max_request_bytes: a JSON body; more than a value, which may come in base64.
        max_inflight_bytes: request bodies that are held at a time, by all requests together.
        max_connections: connections that are served at a time.
        max_batch_entries: keys or entries in one bulk request.
        body_timeout: until a body must have arrived.
        keepalive_timeout: until an idle connection, or one that sends no complete head, is closed.
        heartbeat: between two signs of life to a watcher who has nothing to read.
        fast_path: answer plain requests without aiohttp's machinery.
        send_timeout: until a client that takes no byte of its answer is cut.
        drain_delay: how long new connections are accepted after the order to stop.
        drain_timeout: what requests under way get when the server stops.
    """

    tls: TlsContext | None = None
    loopback: bool = True
    allowed_hosts: frozenset[str] = frozenset()
    cors_origins: frozenset[str] = frozenset()
    max_value_bytes: int = 1 << 20
    max_request_bytes: int = 8 << 20
    max_inflight_bytes: int = 48 << 20
    max_connections: int = 10_000
    max_batch_entries: int = 10_000
    body_timeout: float = 30.0
    keepalive_timeout: float = 75.0
    heartbeat: float = 15.0
    fast_path: bool = True
    send_timeout: float = 300.0
    drain_delay: float = 0.0
    drain_timeout: float = 30.0
