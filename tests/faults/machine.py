"""Describes the machine, for readers of the measurements."""

from __future__ import annotations

import os
import platform
import resource
import sqlite3
import subprocess
from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")


def description() -> list[str]:
    """Lines with the machine and the relevant versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    python = f"{platform.python_implementation()} {platform.python_version()}"
    memcached = subprocess.run(["memcached", "-V"], capture_output=True, text=True, check=True)
    return [
        f"{os.cpu_count()} x {_processor()}, {memory / 2**30:.0f} GiB, {platform.platform()}",
        f"{python}, SQLite {sqlite3.sqlite_version}, {memcached.stdout.strip()}",
    ]


def peak_memory() -> int:
    """The peak resident memory of this process, in bytes."""
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib if platform.system() == "Darwin" else kib << 10


def _processor() -> str:
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
