"""Ctrl-C while a call blocks the thread that the event loop runs in."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt the block with KeyboardInterrupt.

    On the first Ctrl-C asyncio only cancels the main task, which takes effect in the event loop's
    next turn; a blocking read from a terminal would go on waiting.
    """
    before = signal.getsignal(signal.SIGINT)
    ignored = before is None or before == signal.SIG_IGN  # for example, in a background job
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if _is_cancelled():  # cancelled by an earlier Ctrl-C
            raise KeyboardInterrupt
        yield
    finally:
        signal.signal(signal.SIGINT, before)


async def checkpoint() -> None:
    """Let a pending cancellation take effect. Call it before a blocking operation."""
    await asyncio.sleep(0)


def _is_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop is running
        return False
    return task is not None and task.cancelling() > 0
