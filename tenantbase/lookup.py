"""What a read found, and the counts of it."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tenantbase.entry import Entry


class CacheStatus(StrEnum):
    """Whether the cache answered a read, as ``X-Cache`` says it."""

    HIT = "HIT"
    MISS = "MISS"
    BYPASS = "BYPASS"  # the cache was off or away, or a write was in flight


class Lookup(msgspec.Struct, frozen=True, gc=False):
    """A read's result: the entry, or None, and whether the cache had it."""

    entry: Entry | None
    cache_status: CacheStatus


class Counters(msgspec.Struct):
    """What the policy did since the start."""

    hits: int = 0
    misses: int = 0
    bypasses: int = 0
    rejected_items: int = 0
    cache_failures: int = 0
    commits: int = 0
