"""The first steps of a process: standard descriptors and early signal handlers.

Imports only what the interpreter has already loaded, so that it takes only a few milliseconds:
importing ``signal`` and ``typing`` alone takes 10 to 50 ms, during which process 1 cannot be ended.
Nothing can be done about the 10 to 25 ms before that, in which the interpreter starts.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Final, NoReturn
else:
    import _signal  # the module that ``signal`` wraps; a test notices if that changes

_STANDARD_DESCRIPTORS: Final = (0, 1, 2)


def prepare() -> None:
    """Prepare the process; called once, before other modules are imported."""
    _reserve_descriptors()
    if os.getpid() == 1:
        # The kernel drops signals to process 1 that it has no handler for: in a container, SIGTERM
        # would do nothing until the runtime resorts to SIGKILL.
        exit_on(128 + _signal.SIGTERM, _signal.SIGTERM)


def exit_on(status: int, *numbers: int) -> None:
    """Make these signals exit the process with a status, running every ``finally``."""

    def end(*_: object) -> NoReturn:
        sys.exit(status)

    for number in numbers:
        _signal.signal(number, end)


def _reserve_descriptors() -> None:
    """Open /dev/null for each standard stream that the parent process closed.

    Otherwise the database or a connection would get that number, and the next message printed would
    be written into it. Python's own stream stays None, and cannot be used.
    """
    for fd in _STANDARD_DESCRIPTORS:
        try:
            os.fstat(fd)
        except OSError:
            # open() returns the lowest free number, which is this one: those below are in use.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stderr is None:  # print(file=None) would write to standard output
        sys.stderr = open(2, "w", closefd=False)
