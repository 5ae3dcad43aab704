"""The web layer's part of the configuration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """Limits and rules of HTTP. Sizes in bytes, times in seconds.

    Attributes:
        loopback: bound to an address that only this machine reaches. ``Host`` is then checked.
        allowed_hosts: names accepted as ``Host`` besides those of loopback, in lower case, without
            port. If there are any, ``Host`` is checked on every address.
        cors_origins: origins whose pages may read and write, as browsers write them; ``:*`` in
            place of a port allows every port.
        max_value_bytes: the largest value, as stored.
        max_request_bytes: the largest JSON body. It exceeds the largest value, which base64 makes
            longer.
        max_inflight_bytes: request bodies in memory, of all requests together.
        max_connections: open connections.
        max_batch_entries: keys or entries in one bulk request.
        body_timeout: for a request body to arrive.
        keepalive_timeout: for an idle connection, or one whose request head is incomplete.
        heartbeat: interval of heartbeats to a watcher without events.
        fast_path: answer plain requests without aiohttp.
        send_timeout: for a client that reads nothing of its answer.
        drain_delay: how long new connections are accepted after shutdown begins.
        drain_timeout: grace period for in-flight requests on shutdown.
    """

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
