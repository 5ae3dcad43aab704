"""Makes the C library give freed memory back to the system."""

from __future__ import annotations

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # as in malloc.h

LARGE_BYTES: Final = 128 << 10
"""Blocks of at least this size go back to the system as soon as they are freed."""


def return_freed_memory() -> None:
    """Keep the threshold of glibc's allocator where it is at the start. See ``mallopt(3)``.

    By default, glibc raises it to the size of each larger block that is freed, up to 32 MiB. After one
    large body, all bodies would share the heap with small objects, and the heap could not shrink
    again. Does nothing with other C libraries.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
