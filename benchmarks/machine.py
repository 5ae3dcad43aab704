"""Describes the machine, and the versions of everything that took part."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Final

_PACKAGES: Final = (
    "tenantbase",
    "aiohttp",
    "uvloop",
    "aiomcache",
    "aiosqlite",
    "msgspec",
    "fastapi",
    "uvicorn",
    "httptools",
    "aiocache",
    "redis",
)
_CALLED: Final = {"redis": "redis-py"}  # its client, not the server
_PROGRAMS: Final = {
    "memcached": ["memcached", "-V"],
    "redis": ["redis-server", "--version"],
    "wrk": ["wrk", "--version"],
    "etcd": ["etcd", "--version"],
    # nginx prints its version to stderr; Webdis cannot print it.
    "nginx": ["dpkg-query", "--show", "--showformat", "${Version}", "nginx"],
    "webdis": ["dpkg-query", "--show", "--showformat", "${Version}", "webdis"],
}


def describe(directory: Path) -> dict[str, str]:
    """Describe the machine; ``directory`` is where the databases are."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{_distribution()}, Linux {platform.release()}",
        "file system": _file_system(directory),
    }


def versions() -> dict[str, str]:
    """The versions of Python, SQLite, and every package and program that took part."""
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for package in _PACKAGES:
        found[_CALLED.get(package, package)] = metadata.version(package)
    for program, command in _PROGRAMS.items():
        # wrk exits with 1 after printing its version.
        said = subprocess.run(command, capture_output=True, text=True).stdout
        number = re.search(r"\d+\.\d+(\.\d+)*", said)
        found[program] = number[0] if number else "unknown"
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _distribution() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")


def _file_system(directory: Path) -> str:
    """The type of the directory's file system: fsync means nothing on tmpfs."""
    command = ["stat", "--file-system", "--format", "%T", str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
