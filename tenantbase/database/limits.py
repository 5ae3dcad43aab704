"""Limits of one request."""

from __future__ import annotations

from typing import Final

import msgspec

MAX_PAGE_ENTRIES: Final = 10_000
"""The largest ``limit`` of a list."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the operations of a ``Database`` accept.

    Attributes:
        max_value_bytes: the size of a value, as it is stored.
        max_batch_entries: the number of keys or entries in one bulk operation.
    """

    max_value_bytes: int
    max_batch_entries: int
