"""The service as a worker puts it together, over a policy that a test may have changed."""

from __future__ import annotations

from tenantbase.coherence.policy import Cache
from tenantbase.database import Database, Limits
from tenantbase.web import WebSettings


def service(cache: Cache, settings: WebSettings) -> Database:
    """A ``Database`` with the limits that these settings state."""
    limits = Limits(
        max_value_bytes=settings.max_value_bytes, max_batch_entries=settings.max_batch_entries
    )
    return Database(cache, limits, heartbeat=settings.heartbeat)
