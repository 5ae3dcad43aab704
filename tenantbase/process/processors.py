"""How many processors this process may use, by its affinity and the CPU quota of its cgroups.

A container limited to two CPUs of a machine with 64 sees all 64. The quota is in files of its
cgroup or of an ancestor: ``cpu.max`` in version 2, ``cpu.cfs_quota_us`` in version 1 (cgroups(7),
and the kernel's "CFS Bandwidth Control").
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

_PROC: Final = Path("/proc/self")
_OCTAL: Final = re.compile(r"\\([0-7]{3})")  # how mountinfo escapes spaces and the like


def usable_processors(proc: Path = _PROC) -> int:
    """At least 1. A quota is rounded up, as rounding down would leave part of it unused.

    Args:
        proc: the directory with this process's ``cgroup`` and ``mountinfo``.
    """
    # sched_getaffinity respects cpusets and taskset, but not every system has it.
    affinity = getattr(os, "sched_getaffinity", None)
    processors = len(affinity(0)) if affinity else os.cpu_count() or 1
    quotas = [math.ceil(quota) for quota in _quotas(proc)]
    return max(min([processors, *quotas]), 1)


def _quotas(proc: Path) -> Iterator[float]:
    """The quotas of this process's cgroups, in processors."""
    try:
        mounts = (proc / "mountinfo").read_text(errors="surrogateescape").splitlines()
        memberships = (proc / "cgroup").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return  # not Linux
    # "hierarchy:controllers:path"; version 2 names no controllers.
    paths = {controllers: path for _, controllers, path in (m.split(":", 2) for m in memberships)}
    of_cpu = next((path for names, path in paths.items() if "cpu" in names.split(",")), None)
    for mount in mounts:
        # "36 35 0:31 ROOT POINT rw shared:1 - TYPE SOURCE OPTIONS" (proc(5))
        own, _, others = mount.partition(" - ")
        _, _, _, root, point, *_ = own.split(" ")
        kind, _, options = others.split(" ", 2)
        if kind == "cgroup2":
            path = paths.get("")
        elif kind == "cgroup" and "cpu" in options.split(","):
            path = of_cpu
        else:
            continue
        if path is not None:
            yield from _quotas_above(Path(_unescaped(point)), _unescaped(root), path)


def _unescaped(field: str) -> str:
    return _OCTAL.sub(lambda octal: chr(int(octal[1], 8)), field)


def _quotas_above(point: Path, root: str, path: str) -> Iterator[float]:
    """The quotas of the cgroup at ``path`` and its ancestors, up to the mount's root."""
    # A container often sees only its own cgroup mounted, but a path relative to the host's root.
    inner = PurePosixPath(path)
    within = inner.is_relative_to(root) and ".." not in inner.parts
    directory = point / inner.relative_to(root) if within else point
    while True:
        with suppress(OSError, ValueError, ZeroDivisionError):
            yield _quota_of(directory)
        if directory == point:
            return
        directory = directory.parent


def _quota_of(directory: Path) -> float:
    """Raises OSError or ValueError if there is no quota."""
    try:
        quota, period = (directory / "cpu.max").read_text().split()  # "max 100000": no quota
    except FileNotFoundError:
        quota = (directory / "cpu.cfs_quota_us").read_text()
        period = (directory / "cpu.cfs_period_us").read_text()
    processors = int(quota) / int(period)
    if processors <= 0:  # version 1 has -1 for no quota
        raise ValueError("no quota")
    return processors
