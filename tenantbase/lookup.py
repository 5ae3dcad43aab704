"""What a read found, and what the policy counts."""

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


class PolicyCounts(msgspec.Struct):
    """What the policy has done since the start.

    Attributes:
        hits, misses, bypasses: keys read, by cache status.
        rejected_items: items that memcached had and that were not valid.
        cache_failures: operations that memcached failed.
        commits: groups that changed something.
    """

    hits: int = 0
    misses: int = 0
    bypasses: int = 0
    rejected_items: int = 0
    cache_failures: int = 0
    commits: int = 0
