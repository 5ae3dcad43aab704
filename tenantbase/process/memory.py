"""Makes the C library give freed memory back to the system."""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # as in malloc.h
_M_MMAP_THRESHOLD: Final = -3

LARGE_BYTES: Final = 128 << 10
"""Blocks of at least this size go back to the system as soon as they are freed."""


def return_freed_memory() -> None:
    """Keep the thresholds of glibc's allocator where they are at the start. See ``mallopt(3)``.

    By default, glibc raises both when a large block is freed, the first to the size of that block (up
    to 32 MiB). After one large body, all bodies would share the heap with small objects, and the heap
    could not shrink again. Does nothing with other C libraries.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
    mallopt(_M_TRIM_THRESHOLD, LARGE_BYTES)
