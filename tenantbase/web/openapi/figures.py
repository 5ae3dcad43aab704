"""The description of the routes for figures."""

from __future__ import annotations

from typing import Final

from tenantbase.entry import JSON
from tenantbase.web.openapi import schemas as shapes
from tenantbase.web.openapi.model import Operation, Reply

_HEADERS: Final = ("Cache-Control",)

FIGURES: Final = (
    Operation(
        "get",
        "/v1/stats",
        "stats",
        "Service",
        "The service's figures",
        "Of all workers together; rates and percentiles are those of the last ten seconds, watches"
        " aside. Takes a token with the scope `metrics` or `admin`. 404 with `--no-metrics`.",
        (Reply(200, "The figures.", {JSON: (shapes.Stats,)}, _HEADERS),),
        "curl -s localhost:8000/v1/stats",
        problems=("no-such-route",),
    ),
    Operation(
        "get",
        "/metrics",
        "metrics",
        "Service",
        "Metrics for Prometheus",
        "Of all workers together. Takes a token with the scope `metrics` or `admin`. 404 with"
        " `--no-metrics`.",
        (Reply(200, "Prometheus' text format.", {"text/plain": {"type": "string"}}, _HEADERS),),
        "curl -s localhost:8000/metrics",
        problems=("no-such-route",),
    ),
)
