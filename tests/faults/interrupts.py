"""Runs an event loop that SIGTERM and SIGINT end in order."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

_NUMBERS: Final = (signal.SIGTERM, signal.SIGINT)

_Result = TypeVar("_Result")


def run(main: Coroutine[Any, Any, _Result]) -> _Result:
    """As `asyncio.run`, but each of the signals cancels the main task.

    An exception that a signal handler raises can come up in any callback of the event loop, which
    then stops before the contexts of the main task have closed.

    Raises:
        SystemExit: after a signal, when the main task has ended. Further signals are ignored.
    """
    received: list[int] = []
    try:
        return asyncio.run(_cancelled_by_signals(main, received))
    except BaseException:
        if received:
            sys.exit(128 + received[0])
        raise


async def _cancelled_by_signals(main: Coroutine[Any, Any, _Result], received: list[int]) -> _Result:
    task = asyncio.ensure_future(main)

    def interrupt(number: int) -> None:
        received.append(number)
        if len(received) == 1:
            task.cancel()

    loop = asyncio.get_running_loop()
    handlers = {number: signal.getsignal(number) for number in _NUMBERS}
    for number in _NUMBERS:
        loop.add_signal_handler(number, interrupt, number)
    try:
        return await task
    finally:
        for number, handler in handlers.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
