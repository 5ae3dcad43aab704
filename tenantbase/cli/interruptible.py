"""Ctrl-C while a call blocks the thread that the event loop runs in."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the block with KeyboardInterrupt.

    asyncio takes the first one as an order to cancel, which is carried out when the event loop has
    its next turn; a read that waits for a terminal would go on waiting.
    """
    before = signal.getsignal(signal.SIGINT)
    ignored = before is None or before == signal.SIG_IGN  # as of a job in the background
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if _is_cancelled():  # by a Ctrl-C just before
            raise KeyboardInterrupt
        yield
    finally:
        signal.signal(signal.SIGINT, before)


async def checkpoint() -> None:
    """Carry out an order to cancel that came since the last await. Call it before what blocks."""
    await asyncio.sleep(0)


def _is_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs
        return False
    return task is not None and task.cancelling() > 0
