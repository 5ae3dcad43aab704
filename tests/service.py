"""The service and its settings as a worker puts them together, with changes that a test wants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenantbase.coherence.policy import Cache
from tenantbase.database import Database, Limits
from tenantbase.process.config import HEARTBEAT_SECONDS, Config
from tenantbase.process.worker import web_settings as settings_of
from tenantbase.web import WebSettings


def web_settings(**changes: Any) -> WebSettings:
    """The default settings with these fields changed."""
    return replace(settings_of(Config()), **changes)


def service(
    cache: Cache, settings: WebSettings, *, heartbeat: float = HEARTBEAT_SECONDS
) -> Database:
    """A ``Database`` with the limits that these settings state, over a policy of the test's."""
    limits = Limits(
        max_value_bytes=settings.max_value_bytes, max_batch_entries=settings.max_batch_entries
    )
    return Database(cache, limits, heartbeat=heartbeat)
