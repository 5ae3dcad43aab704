"""Requests as OpenTelemetry spans. The only importer of ``opentelemetry``.

Configured by the standard ``OTEL_`` variables. Spans are made when a request has ended, from times
that were measured anyway; a thread of the library exports them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from tenantbase.request_context import RequestContext
from tenantbase.stages import Span

_UNNAMED: Final = "unknown_service"  # the library's name for a service without one
_CLOSING_MILLISECONDS: Final = 2_000


class OtelTracer:
    """The Protocol ``Tracer``, over OTLP/HTTP.

    Args:
        version: of this program.
    """

    def __init__(self, version: str) -> None:
        resource = Resource.create({SERVICE_VERSION: version})
        if str(resource.attributes.get(SERVICE_NAME, _UNNAMED)).startswith(_UNNAMED):
            resource = resource.merge(Resource({SERVICE_NAME: "tenantbase"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("tenantbase", version)

    def record(
        self,
        name: str,
        attributes: Mapping[str, str | int],
        context: RequestContext,
        began: int,
        ended: int,
        waits: Sequence[Span],
        *,
        failed: bool,
    ) -> None:
        offset = time.time_ns() - time.monotonic_ns()
        span = self._tracer.start_span(
            name,
            context=_parent(context),
            kind=SpanKind.SERVER,
            attributes=dict(attributes),
            start_time=began + offset,
        )
        if span.is_recording():
            inside = set_span_in_context(span, Context())
            for wait in waits:
                child = self._tracer.start_span(
                    wait.stage.value, context=inside, start_time=wait.began + offset
                )
                child.end(wait.ended + offset)
            if failed:
                span.set_status(Status(StatusCode.ERROR))
        span.end(ended + offset)

    def close(self) -> None:
        self._provider.force_flush(_CLOSING_MILLISECONDS)
        self._provider.shutdown()


def _parent(context: RequestContext) -> Context:
    trace = context.trace
    if trace is None:
        return Context()
    parent = SpanContext(
        int(trace.trace_id, 16),
        int(trace.parent_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(trace.flags),
        trace_state=TraceState.from_header([context.tracestate]) if context.tracestate else None,
    )
    return set_span_in_context(NonRecordingSpan(parent), Context())
