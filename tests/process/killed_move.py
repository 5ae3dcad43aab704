"""``tenantbase``, killed or held at a step of a move.

    python -m tests.process.killed_move NUMBER ARGUMENT...
    python -m tests.process.killed_move NUMBER --held FILE ARGUMENT...

Counts calls of the target from 0. Before call NUMBER, it kills itself, or makes the file and waits
until it is removed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tenantbase.interfaces.postgres.moving import PostgresTarget
from tenantbase.interfaces.sqlite.moving import SqliteTarget
from tenantbase.main import main

STEPS: Final = ("begin", "put", "hide", "finish", "_publish")


def _counted(
    original: Callable[..., Any], left: list[int], act: Callable[[], None]
) -> Callable[..., Any]:
    def step(*args: Any) -> Any:
        if not left[0]:
            act()
        left[0] -= 1
        return original(*args)

    return step


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hold(file: Path) -> None:
    file.touch()
    while file.exists():
        time.sleep(0.01)


if __name__ == "__main__":
    number, *arguments = sys.argv[1:]
    act: Callable[[], None] = _kill
    if arguments[0] == "--held":
        held = Path(arguments[1])
        del arguments[:2]
        act = lambda: _hold(held)  # noqa: E731
    left = [int(number)]
    for target in (PostgresTarget, SqliteTarget):
        for name in STEPS:
            if original := getattr(target, name, None):
                setattr(target, name, _counted(original, left, act))
    main(arguments)
