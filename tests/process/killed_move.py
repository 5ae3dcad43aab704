"""``tenantbase``, killed at a step of a move.

    python -m tests.process.killed_move NUMBER ARGUMENT...

Kills itself before the step of this number, counting calls of the target from 0.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from tenantbase.interfaces.postgres.moving import PostgresTarget
from tenantbase.interfaces.sqlite.moving import SqliteTarget
from tenantbase.main import main

STEPS: Final = ("begin", "put", "hide", "finish", "_publish")


def _counted(original: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def step(*args: Any) -> Any:
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return original(*args)

    return step


if __name__ == "__main__":
    left = [int(sys.argv[1])]
    for target in (PostgresTarget, SqliteTarget):
        for name in STEPS:
            if original := getattr(target, name, None):
                setattr(target, name, _counted(original, left))
    main(sys.argv[2:])
