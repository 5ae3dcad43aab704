"""Clocks that can be moved: those of processes under libfaketime.

Only the time of day moves. The monotonic clock, which measures timeouts, is not affected, as when a
machine's clock is set.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

_LIBRARIES: Final = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")


@cache
def _library() -> Path:
    for pattern in _LIBRARIES:
        for found in Path("/").glob(pattern[1:]):
            return found
    raise AssertionError("these tests need libfaketime (the package faketime)")


class Clock:
    """The clock of some processes. They notice within a second that it was moved.

    Attributes:
        environment: variables of these processes.
    """

    def __init__(self) -> None:
        file, name = tempfile.mkstemp(prefix="tb-clock-")
        os.close(file)
        self._path = Path(name)
        self._path.chmod(0o644)
        self.move(0.0)
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": name,
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def move(self, seconds: float) -> None:
        """Set it this many seconds fast; below 0: slow."""
        # In one call, because a process may read the file at any time.
        with open(self._path, "r+b", buffering=0) as file:
            file.write(f"{seconds:+014.3f}\n".encode())

    def close(self) -> None:
        self._path.unlink()
