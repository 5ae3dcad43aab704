"""How fast Python switches between threads: faster while some work needs it.

A thread that wants the interpreter's lock asks for it after the *switch interval*. Python's default of
5 ms is better for throughput: frequent switching makes groups of writes smaller, and writes more
expensive. But while threads read the values of large answers or commit a large group, the event loop
may have to wait that long in each turn; and while the event loop makes pieces of large answers, a thread
that commits may have to wait that long for each statement.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_FAST_SECONDS: Final = 0.0001
_USUAL_SECONDS: Final = sys.getswitchinterval()

_hurried: Final[set[object]] = set()  # who needs it; the interval is the whole process's


def switch_fast(owner: object, fast: bool) -> None:
    """Say whether ``owner`` needs fast switching. It must be compared by identity."""
    if fast == (owner in _hurried):
        return
    if fast:
        _hurried.add(owner)
    else:
        _hurried.remove(owner)
    sys.setswitchinterval(_FAST_SECONDS if _hurried else _USUAL_SECONDS)


@contextmanager
def switching_fast() -> Iterator[None]:
    """Switch fast inside the block."""
    owner = object()
    switch_fast(owner, True)
    try:
        yield
    finally:
        switch_fast(owner, False)
