"""Runs `tenantbase` as a user does, in a process of its own, or quicker in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from click.testing import CliRunner

from tenantbase.main import main
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
        stdin: its standard input; None if ``options`` sets it.
        before: the start of the command line, such as a program to run it under.
        options: more arguments of ``subprocess.run``.
    """
    given = {} if stdin is None else {"input": stdin}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": clean_environment()}
    return subprocess.run(
        [*before, *TENANTBASE, *args], timeout=2 * READY_SECONDS, **{**pipes, **given, **options}
    )


def invoked(*args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command in this process: for tests of what it does to a database, not of how it
    starts, ends and writes."""
    cleared = {name: None for name in os.environ if "TENANTBASE" in name}
    result = CliRunner().invoke(main, args, stdin, cleared)
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    return subprocess.CompletedProcess(
        args, result.exit_code, result.stdout_bytes, result.stderr_bytes
    )


def refused(done: subprocess.CompletedProcess[bytes], *parts: str, status: int = 1) -> bool:
    """Whether a command failed with a single line that contains these parts."""
    error = done.stderr.decode()
    assert error.startswith("Error: ") and error.count("\n") == 1, error
    for part in parts:
        assert part in error, error
    assert not done.stdout
    return done.returncode == status
