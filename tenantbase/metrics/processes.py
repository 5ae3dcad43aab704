"""What the kernel knows of the server's processes (proc(5)); nothing on systems without ``/proc``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NamedTuple

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """What one process uses, or several together.

    Attributes:
        cpu: seconds of processor time.
        resident, virtual: bytes of memory. Shared memory counts for each process.
        descriptors: how many are open.
    """

    cpu: float
    resident: int
    virtual: int
    descriptors: int


def usage(pids: Iterable[int]) -> Usage | None:
    """The usage of these processes together; None if the kernel does not say."""
    each = [found for pid in set(pids) if (found := _usage_of(pid)) is not None]
    return Usage(*map(sum, zip(*each, strict=True))) if each else None


def started_at(uptime: float) -> float:
    """When something that has run for ``uptime`` seconds began, in Unix seconds."""
    return time.time() - uptime


def _usage_of(pid: int) -> Usage | None:
    with suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field, the program's name in parentheses, may contain anything.
            fields = file.read().rpartition(b")")[2].split()
        cpu = (int(fields[11]) + int(fields[12])) / _TICKS
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        return Usage(cpu, int(fields[21]) * _PAGE_BYTES, int(fields[20]), descriptors)
    return None
