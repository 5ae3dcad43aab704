"""Tasks that must not fail silently, or must end even if nobody waits for them any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Final, TypeVar

log = logging.getLogger("tenantbase.background")

Result = TypeVar("Result")

_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 30.0
_LONG_LIFE_SECONDS: Final = 60.0  # the back-off starts over for work that has run this long


async def ended(task: asyncio.Task[Result]) -> Result:
    """Wait for a task. A caller that is cancelled goes on waiting, and is cancelled when the task has ended.

    The event loop may end with its caller, as after Ctrl-C, and would cancel the task.
    """
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


@asynccontextmanager
async def running(work: Callable[[], Awaitable[None]], name: str) -> AsyncIterator[None]:
    """Inside the block, run ``work`` as `keep_running` does; at the end, wait until it has ended."""
    task = keep_running(work, name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def keep_running(work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
    """Run ``work`` in a task; if it fails, log the failure and run it again, with back-off.

    The task ends when ``work`` returns or the task is cancelled; it never fails. ``work`` handles
    the failures it expects; any that reach this function are bugs.

    Args:
        name: the task's name, used in log messages.
    """
    # A context of its own: it outlives the request that may have caused it.
    return asyncio.create_task(_keep_running(work, name), name=name, context=Context())


async def _keep_running(work: Callable[[], Awaitable[None]], name: str) -> None:
    loop = asyncio.get_running_loop()
    pause = _FIRST_PAUSE_SECONDS
    while True:
        began = loop.time()
        try:
            return await work()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The task itself was not cancelled: something that the work awaited was.
            _log_failure(name, pause)
        except Exception:
            if loop.time() - began > _LONG_LIFE_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            _log_failure(name, pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _log_failure(name: str, pause: float) -> None:
    # The log limits lines with the same format, so each task has its own.
    log.exception(f"the {name} failed; it is restarted in %.1f s", pause)
