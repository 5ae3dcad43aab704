"""Reports finished requests to a tracer."""

from __future__ import annotations

from tenantbase.interfaces.tracing import Tracer
from tenantbase.request_context import RequestContext
from tenantbase.web.access_log import waits_of
from tenantbase.web.observer import Finished


class Tracing:
    """Names spans as OpenTelemetry's conventions for HTTP do."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def __call__(self, finished: Finished) -> None:
        """A request has ended."""
        context = finished.context or RequestContext()
        attributes: dict[str, str | int] = {
            "http.request.method": finished.method,
            "http.route": finished.route,
            "http.response.status_code": finished.status,
            "http.response.size": finished.sent,
            "tenantbase.request_id": context.id,
        }
        self._tracer.record(
            f"{finished.method} {finished.route}",
            attributes,
            context,
            finished.ended - finished.nanoseconds,
            finished.ended,
            waits_of(finished),
            failed=finished.status >= 500,
        )
