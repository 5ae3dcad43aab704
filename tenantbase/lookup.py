"""The result of a read."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tenantbase.entry import Entry


class CacheStatus(StrEnum):
    """Whether the cache answered a read, as reported in ``X-Cache``."""

    HIT = "HIT"
    STALE = "STALE"  # a hit as of an earlier moment, as the caller permitted
    MISS = "MISS"
    BYPASS = "BYPASS"  # the cache was off or down, or a write was in flight


class Lookup(msgspec.Struct, frozen=True, gc=False):
    """A read's result: the entry, or None, and whether the cache had it."""

    entry: Entry | None
    cache_status: CacheStatus
