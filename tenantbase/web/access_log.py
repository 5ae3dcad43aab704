"""The access log: a line for each request, or each slow one, with what it waited for."""

from __future__ import annotations

import logging
from typing import Any, Final

from aiohttp import hdrs, web

from tenantbase.figures import SECOND
from tenantbase.request_context import RequestContext
from tenantbase.stages import Span, totals
from tenantbase.waits import DELIVERY
from tenantbase.web.fast_path.borrowed import BorrowedTransport
from tenantbase.web.forwarding import Proxies
from tenantbase.web.observer import Finished
from tenantbase.web.transport.connections import peer

log = logging.getLogger("tenantbase.access")
log.setLevel(logging.INFO)  # not --log-level but --access-log decides

_SLOW_LINES: Final = 60  # per minute: if the disk hangs, every request is slow


class AccessLog:
    """Writes the lines of one server.

    Args:
        every: log each request; otherwise only slow ones.
        slow_seconds: a request is slow if it took at least this long.
        keys: show the request's target, which may contain a key.
        proxies: those whose ``X-Forwarded-For`` is trusted.
    """

    def __init__(self, *, every: bool, slow_seconds: float, keys: bool, proxies: Proxies) -> None:
        self._every = every
        self._slow = slow_seconds * SECOND
        self._keys = keys
        self._proxies = proxies

    @property
    def least(self) -> float:
        """Requests that took fewer nanoseconds need not be reported to this log."""
        return 0 if self._every else self._slow

    def __call__(self, finished: Finished) -> None:
        """A request has ended."""
        slow = finished.nanoseconds >= self._slow and not finished.lasts
        if not slow and not self._every:
            return
        log.log(
            logging.WARNING if slow else logging.INFO,
            "slow request" if slow else "request",
            extra={
                "burst": None if self._every else _SLOW_LINES,
                "request": finished.context or RequestContext(),
                "fields": self._fields(finished),
            },
        )

    def _fields(self, finished: Finished) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "method": finished.method,
            "route": finished.route,
            "status": finished.status,
            "duration_ms": finished.nanoseconds // 1_000 / 1_000,
            "sent_bytes": finished.sent,
        }
        client = self._client(finished)
        if client is not None:
            fields["client"] = client
        if self._keys:
            fields["target"] = _target(finished.request)
        waited = totals(waits_of(finished))
        if waited:
            fields["waited_ms"] = {stage: took // 1_000 / 1_000 for stage, took in waited.items()}
        return fields

    def _client(self, finished: Finished) -> str | None:
        transport = finished.transport
        if isinstance(transport, BorrowedTransport):
            transport = transport.lent
        if transport is None:
            return None
        client = None
        if self._proxies.trusts(transport):
            request = finished.request
            if isinstance(request, bytes):
                client = self._proxies.client_in(request)
            else:
                client = self._proxies.client(request.headers.getall(hdrs.X_FORWARDED_FOR, ()))
        return client or peer(transport)


def waits_of(finished: Finished) -> list[Span]:
    """What a request has waited for. To be called while the observer reports its end."""
    if finished.context is not None and finished.context.waits:
        return finished.context.waits
    timing = DELIVERY.timing
    return [] if timing is None else timing.since(finished.ended - finished.nanoseconds)


def _target(request: web.BaseRequest | bytes) -> str:
    if isinstance(request, bytes):
        return request.split(b" ", 2)[1].decode("latin-1")
    return request.raw_path
