"""Compares a million entries with a thousand: what grows with the data, and what does not."""

from __future__ import annotations

import http.client
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks import throughput
from benchmarks.client import check, drive, percentile
from benchmarks.dialect import Routes
from benchmarks.grown import Grown
from benchmarks.launch import start_tenantbase
from benchmarks.processes import BenchmarkError, Cores, reset_peak, resident, worker_of
from benchmarks.work import COLD_GET

SIZES: Final = (1_000, 1_000_000)

# Other clients' requests during a listing: rate per second, minimum seconds, repeats.
_BESIDE_RATE: Final = 200.0
_BESIDE_SECONDS: Final = 3.0
_BESIDES: Final = 3


def measure(
    rounds: int, seconds: int, cores: Cores, directory: Path, progress: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Fill a database of each size, then measure starting, reading and listing; memcached is off.

    Returns: for each size: ``import_rate`` (entries a second), ``database_bytes``,
        ``start_seconds`` until a new server answers, ``cold_rates`` (reads a second in each
        round) and the results of `_listing`.
    """
    with ExitStack() as servers:
        grown = []
        for size in SIZES:
            progress(f"growth: {size:,} entries")
            grown.append(_Served(size, cores, directory / f"growth-{size}", servers))
        for number in range(rounds):
            for each in grown:
                progress(f"growth: round {number + 1}, {each.size:,} entries")
                each.read(seconds)
        for each in grown:
            progress(f"growth: listing {each.size:,} entries")
            each.list()
        return [each.record for each in grown]


class _Served:
    """A database of one size, and its server."""

    def __init__(self, size: int, cores: Cores, directory: Path, servers: ExitStack) -> None:
        grown = Grown(size, cores, directory)
        self.size = size
        self._cores = cores
        self._port = grown.site.port
        self._requests = directory / "requests"
        self.record: dict[str, Any] = {
            "entries": size,
            "import_rate": size / grown.fill().seconds,
            "database_bytes": grown.database.stat().st_size,
            "start_seconds": grown.start_seconds(),
            "cold_rates": [],
        }
        started = servers.enter_context(start_tenantbase(grown.site, ["--memcached", "off"]))
        self._pid = worker_of(started.process.pid)
        exchanges = COLD_GET.exchanges(Routes(self._port), grown.entries, count=100_000)
        check(self._port, exchanges[:100])
        self._reads = [exchange.request for exchange in exchanges]
        throughput.write(self._requests, self._reads)

    def read(self, seconds: int) -> None:
        """One round of cold reads."""
        read = throughput.measure(self._port, self._requests, 200, seconds, self._cores)
        self.record["cold_rates"].append(read.rate)

    def list(self) -> None:
        """List everything: first alone, for its memory; then during other requests, to time them.

        Records ``listing_rate`` (entries a second), ``listing_bytes`` of additional memory, and
        other requests' 99th percentile in seconds, without and with a listing (medians).
        """
        before = resident(self._pid)
        reset_peak(self._pid)
        begun = time.monotonic()
        self._list_all()
        elapsed = time.monotonic() - begun
        self.record["listing_rate"] = self.size / elapsed
        self.record["listing_bytes"] = resident(self._pid, peak=True) - before
        alone, listing = [], []
        for _ in range(_BESIDES):
            alone.append(self._beside(_BESIDE_SECONDS))
            listing.append(self._while_listing(max(_BESIDE_SECONDS, elapsed)))
        self.record["p99_alone"] = statistics.median(alone)
        self.record["p99_listing"] = statistics.median(listing)

    def _while_listing(self, seconds: float) -> float:
        done = threading.Event()
        failures: list[BenchmarkError] = []

        def keep_listing() -> None:
            try:
                while not done.is_set():
                    self._list_all()
            except BenchmarkError as error:
                failures.append(error)

        lister = threading.Thread(target=keep_listing)
        lister.start()
        try:
            latency = self._beside(seconds)
        finally:
            done.set()
            lister.join()
        if failures:
            raise failures[0]
        return latency

    def _beside(self, seconds: float) -> float:
        driven = drive(self._port, self._reads, rate=_BESIDE_RATE, seconds=seconds)
        return percentile(driven.latencies, 0.99)

    def _list_all(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request("GET", "/v1/values", headers={"Accept": "application/x-ndjson"})
            response = connection.getresponse()
            lines = 0
            while piece := response.read(1 << 20):
                lines += piece.count(b"\n")
        finally:
            connection.close()
        if response.status != 200 or lines != self.size:
            raise BenchmarkError(f"listed {lines:,} of {self.size:,} entries")
