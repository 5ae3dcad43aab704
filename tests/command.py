"""`tenantbase` as a user runs it: a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tests.app_server import READY_SECONDS, clean_environment

TENANTBASE = (sys.executable, "-W", "error", "-m", "tenantbase")


def command(
    *args: str,
    stdin: bytes | None = b"",
    before: Sequence[str] = (),
    **options: Any,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end.

    Args:
        stdin: what it reads; None: ``options`` has it.
        before: a program, with its arguments, to run it under.
        options: further ones of ``subprocess.run``.
    """
    given = {} if stdin is None else {"input": stdin}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": clean_environment()}
    return subprocess.run(
        [*before, *TENANTBASE, *args], timeout=2 * READY_SECONDS, **{**pipes, **given, **options}
    )


def refused(done: subprocess.CompletedProcess[bytes], *parts: str, status: int = 1) -> bool:
    """Whether a command failed with one line that has these parts, and printed nothing else."""
    error = done.stderr.decode()
    assert error.startswith("Error: ") and error.count("\n") == 1, error
    for part in parts:
        assert part in error, error
    assert not done.stdout
    return done.returncode == status
