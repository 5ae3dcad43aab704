"""The result of a read."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from tenantbase.entry import Entry

DOCUMENT_BYTES: Final = 1_024
"""The largest value whose document is remembered. Making a larger one takes little beside sending it."""


class CacheStatus(StrEnum):
    """Whether the cache answered a read, as reported in ``X-Cache``."""

    HIT = "HIT"
    STALE = "STALE"  # a hit as of an earlier moment, as the caller permitted
    MISS = "MISS"
    BYPASS = "BYPASS"  # the cache was off or down, or a write was in flight


class Lookup(msgspec.Struct, gc=False):
    """A read's result. Several reads may get the same object.

    Attributes:
        entry: None: there is none.
        cache_status: whether the cache had it.
        document: its JSON document, once ``documents.lookup_json`` has made it, unless it is large.
    """

    entry: Entry | None
    cache_status: CacheStatus
    document: bytes | None = None

    @property
    def bytes(self) -> int:
        """How much memory it takes: its document's size, or else its value's."""
        if self.document is not None:
            return len(self.document)
        return 0 if self.entry is None else len(self.entry.value)
