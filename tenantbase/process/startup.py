"""What a process does before anything else: its descriptors and its first signal handlers.

Imports next to nothing, so that it is done within milliseconds of the start.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Final, NoReturn

_STANDARD: Final = (0, 1, 2)


def prepare() -> None:
    """Make the process fit to run; called once, before other modules are imported."""
    _reserve_descriptors()
    if os.getpid() == 1:
        # The kernel drops every signal to process 1 for which it has no handler: in a container
        # SIGTERM would do nothing until the runtime loses patience.
        exit_on(128 + signal.SIGTERM, signal.SIGTERM)


def exit_on(status: int, *numbers: signal.Signals) -> None:
    """Let these signals end the process with an exit status, through every ``finally``."""

    def end(*_: object) -> NoReturn:
        sys.exit(status)

    for number in numbers:
        signal.signal(number, end)


def _reserve_descriptors() -> None:
    """Open /dev/null where a standard stream was closed by whatever started the process.

    Otherwise the database or a connection gets that number, and the next message is written into
    it. Python's own stream stays None: there is nothing to read from or to print to.
    """
    for fd in _STANDARD:
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is taken, which is this one: those below are in use.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stderr is None:  # print() to None goes to standard output
        sys.stderr = open(2, "w", closefd=False)
