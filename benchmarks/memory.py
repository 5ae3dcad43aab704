"""The memory of a server process: at rest, under load, and after a million requests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import throughput
from benchmarks.launch import PEERS, Site, serving
from benchmarks.processes import Cores, free_port, reset_peak, resident, worker_of
from benchmarks.work import MIXED, SMALL


def measure(
    requests: int, cores: Cores, directory: Path, progress: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Send reads and writes to tenantbase and, for comparison, to the bare framework.

    Other processes, such as memcached, are not counted.

    Returns: for each, in bytes: ``rest`` once the data are stored, ``peak`` under load, and
        ``samples``, pairs of the number of answers so far and the memory at that time.
    """
    records = []
    for peer in ("constant", "tenantbase"):
        setup = PEERS[peer](MIXED.needs)
        assert setup is not None
        site_directory = directory / f"memory-{peer}"
        site_directory.mkdir()
        with serving(setup, Site(site_directory, cores.server, free_port(), SMALL)) as server:
            exchanges = MIXED.exchanges(server.dialect, SMALL.entries())
            path = site_directory / "requests"
            throughput.write(path, [exchange.request for exchange in exchanges])
            pid = worker_of(server.started.process.pid)
            rest, answers = resident(pid), 0
            reset_peak(pid)
            samples = [(0, rest)]
            while answers < requests:
                progress(f"memory: {peer}, {answers:,} of {requests:,} requests")
                answers += throughput.measure(server.port, path, 200, 2, cores).answers
                samples.append((answers, resident(pid)))
            peak = resident(pid, peak=True)
            records.append({"peer": peer, "rest": rest, "peak": peak, "samples": samples})
    return records
