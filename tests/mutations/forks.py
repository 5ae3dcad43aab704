"""Runs pytest again and again, each time in a fork of a process that has imported the libraries.

Importing them takes longer than most tests of a mutation. Neither the package nor its tests are
imported before the fork, so each run sees the files as they are.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import pytest

# Besides the plugins of pytest, and what those import.
_LIBRARIES: Final = ("aiohttp.web", "aiomcache", "aiosqlite", "msgspec", "uvloop")


class Forks:
    """The process that is forked, as its client sees it.

    Args:
        root: the project whose tests are run.
        environment: of the tests.
    """

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutations.forks"],
            cwd=root,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End it, and the tests that run."""
        self._process.terminate()
        self._process.communicate()

    def run(self, arguments: Sequence[str], seconds: float) -> int | None:
        """Run pytest.

        Returns: its exit status; None if it timed out and was killed with all that it had started.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps([arguments, seconds]), file=self._process.stdin, flush=True)
        status: int | None = json.loads(self._process.stdout.readline())
        return status


def _pytest(arguments: Sequence[str]) -> None:
    os.setsid()  # so that all that it starts can be killed with it
    sys.exit(pytest.main(list(arguments)))


def _run(arguments: Sequence[str], seconds: float) -> int | None:
    process = get_context("fork").Process(target=_pytest, args=(arguments,))
    process.start()
    assert process.pid is not None
    try:
        process.join(seconds)
        return process.exitcode
    finally:
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
            process.join()


def _import() -> None:
    """Import what all tests import. A run without tests imports the plugins, as pytest wants it."""
    with tempfile.TemporaryDirectory() as empty:
        pytest.main(["-c", os.devnull, "--noconftest", "-p", "no:cacheprovider", empty])
    for name in _LIBRARIES:
        importlib.import_module(name)
    assert "tenantbase" not in sys.modules
    gc.freeze()  # pytest collects garbage at the end of each run, and none of this is any


def main() -> None:
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    _import()
    for line in requests:
        arguments, seconds = json.loads(line)
        print(json.dumps(_run(arguments, seconds)), file=answers, flush=True)


if __name__ == "__main__":
    main()
