"""Returns freed memory to the system while clients make a server hold much.

Request bodies grow side by side, and leave holes between them when they are freed. glibc keeps such
holes, which the next bodies may not fit into, so the process would keep growing although the
budgets are respected.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Callable
from typing import Final

_PAUSE_SECONDS: Final = 1.0
_WORTHWHILE_BYTES: Final = 8 << 20
# What no request holds any longer may be freed a little later, with its connection.
_TIMES: Final = 3


async def return_freed(held: Callable[[], int]) -> None:
    """Return freed memory every second in which much was held. Runs forever, unless the C library
    cannot do it.

    Args:
        held: the bytes that requests and answers hold now.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is None:
        return
    left = 0
    while True:
        await asyncio.sleep(_PAUSE_SECONDS)
        if held() >= _WORTHWHILE_BYTES:
            left = _TIMES
        if left:
            left -= 1
            # It takes milliseconds, without Python's lock.
            await asyncio.to_thread(trim, 0)
