"""Makes the C library give freed memory back to the system."""

from __future__ import annotations

import ctypes
from typing import Final

# As in malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

LARGE_BYTES: Final = 512 << 10
"""Blocks of at least this size go back to the system as soon as they are freed. Smaller ones do not: the
pages of a list are smaller, and the kernel takes longer to provide their memory than copying them takes."""

# How much may be free at the end of the heap.
_FREE_BYTES: Final = 2 << 20


def return_freed_memory() -> None:
    """Keep the thresholds of glibc's allocator from rising. See ``mallopt(3)``.

    By default, glibc raises them to the size of each larger block that is freed, up to 32 MiB. After one
    large body, all bodies would share the heap with small objects, and the heap could not shrink
    again. Does nothing with other C libraries.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _FREE_BYTES)
