"""What the policy counts, for metrics."""

from __future__ import annotations

import msgspec


class PolicyCounts(msgspec.Struct):
    """The policy's counters since the start.

    Attributes:
        hits, misses, bypasses: keys read, by cache status.
        rejected_items: items from memcached that were not valid.
        cache_failures: memcached operations that failed.
        commits: groups that changed something.
    """

    hits: int = 0
    misses: int = 0
    bypasses: int = 0
    rejected_items: int = 0
    cache_failures: int = 0
    commits: int = 0
