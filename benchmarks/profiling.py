"""Measures processor time by thread and, within Python, by module."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import throughput
from benchmarks.launch import PEERS, Server, Site, serving
from benchmarks.processes import (
    BenchmarkError,
    Cores,
    free_port,
    settle,
    thread_seconds,
    worker_of,
)
from benchmarks.summary import OURS
from benchmarks.work import BULK_GET, CACHED_GET, DURABLE_SET, SMALL, Work

PROFILED: Final = (CACHED_GET, DURABLE_SET, BULK_GET)

_SAMPLES_A_SECOND: Final = 200
_FRAME: Final = re.compile(r".* \((.*?)(?::\d+)?\)")


def measure(
    seconds: int, cores: Cores, directory: Path, progress: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Load tenantbase twice with each workload: once unobserved, once sampled by py-spy.

    Returns: for each work: ``threads``, pairs of a name and its processor time for one key in
        seconds; ``modules``, pairs of a module and its share of the time in which Python ran.
    """
    records = []
    for work in PROFILED:
        progress(f"profile: {work.name}")
        site_directory = directory / f"profile-{work.name}"
        site_directory.mkdir()
        setup = PEERS[OURS](work.needs)
        assert setup is not None
        with serving(setup, Site(site_directory, cores.server, free_port(), SMALL)) as server:
            path = site_directory / "requests"
            exchanges = work.exchanges(server.dialect, SMALL.entries())
            throughput.write(path, [exchange.request for exchange in exchanges])
            records.append(
                {
                    "work": work.name,
                    "threads": _threads(server, work, path, seconds, cores),
                    "modules": _modules(server, path, seconds, cores),
                }
            )
    return records


def _threads(
    server: Server, work: Work, requests: Path, seconds: int, cores: Cores
) -> list[tuple[str, float]]:
    before = thread_seconds(worker_of(server.started.process.pid))
    answers = throughput.measure(server.port, requests, 200, seconds, cores).answers
    settle()
    after = thread_seconds(worker_of(server.started.process.pid))
    used: Counter[str] = Counter()
    for thread, (name, spent) in after.items():
        used[name] += spent - before.get(thread, (name, 0.0))[1]
    return [(name, spent / answers / work.keys) for name, spent in used.most_common() if spent]


def _modules(server: Server, requests: Path, seconds: int, cores: Cores) -> list[tuple[str, float]]:
    stacks = requests.with_name("stacks")
    command = [Path(sys.executable).with_name("py-spy"), "record", "--gil", "--format", "raw"]
    command += ["--rate", str(_SAMPLES_A_SECOND), "--duration", str(seconds)]
    command += ["--output", stacks, "--pid", str(worker_of(server.started.process.pid))]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as spy:
        throughput.measure(server.port, requests, 200, seconds + 1, cores)
        said, _ = spy.communicate(timeout=60)
    if spy.returncode:
        raise BenchmarkError(f"py-spy failed:\n{said}")
    counts: Counter[str] = Counter()
    for line in stacks.read_text().splitlines():
        stack, _, samples = line.rpartition(" ")
        counts[_module(stack.rpartition(";")[2])] += int(samples)
    total = sum(counts.values())
    return [(module, count / total) for module, count in counts.most_common()]


def _module(frame: str) -> str:
    """The module that a stack frame belongs to: a file of ours, or a package."""
    path = match[1] if (match := _FRAME.fullmatch(frame)) else frame
    if path == "asyncio/runners.py":
        return "event loop (uvloop, in C)"  # for samples without a Python frame
    return path if path.startswith("tenantbase/") else path.partition("/")[0]
