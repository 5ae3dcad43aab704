"""An external program that runs during a test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path
from typing import Self

from tests.servers import READY_SECONDS, poll


class Program:
    """A program in the foreground. As a context manager, it is ready on entry and stopped on exit.

    Subclasses define `ready`.

    Args:
        command: its name and arguments.
        directory: where it runs.

    Attributes:
        log: the file in its directory that receives what it prints; None: it is shown.
    """

    log: str | None = None

    def __init__(self, command: Sequence[str | Path], directory: Path) -> None:
        self.directory = directory
        self._command = command

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> bool:
        """Whether it is ready. OSError and HTTPException mean not yet."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        name, *arguments = self._command
        # Debian puts servers where only root's PATH looks.
        program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, f"these tests need the program {name}"
        with ExitStack() as stack:
            output = self.log and stack.enter_context(open(self.directory / self.log, "ab"))
            self._process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output or None,
                stderr=output or None,
                cwd=self.directory,
            )
        try:
            poll(self._answers, f"{name} answers", 2 * READY_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait(READY_SECONDS)

    def _answers(self) -> bool:
        assert self._process.poll() is None, f"{self._command[0]} has ended"
        try:
            return self.ready()
        except (OSError, HTTPException):
            return False
