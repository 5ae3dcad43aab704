"""Finds out what the slowest durable sets waited for."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks import throughput
from benchmarks.client import drive
from benchmarks.launch import PEERS, Server, Site, start_tenantbase
from benchmarks.processes import Cores, free_port, settle
from benchmarks.summary import OURS
from benchmarks.witness import Span
from benchmarks.work import DURABLE_SET, SMALL

SLOWEST: Final = 0.01
"""The share of the sets that counts as the slowest."""
LONG_SECONDS: Final = 0.0015
"""A commit that takes longer counts as long; usual ones take a third of this."""

_SECONDS_AT_LEAST: Final = 5


def measure(
    seconds: int, cores: Cores, directory: Path, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Load tenantbase with durable sets at half its maximum rate, and examine the slowest.

    Returns: ``rate``, sets per second; ``slow``, the least seconds that one of the slowest took in
        the server; ``causes``: for each, its ``name``, the ``share`` of the slowest sets that it
        overlapped, how many ``a_second`` there were, and their ``median`` and ``longest`` in
        seconds; ``other``, the share of the slowest sets that overlapped none.
    """
    progress("waits: durable-set")
    site_directory = directory / "waits"
    site_directory.mkdir()
    setup = PEERS[OURS](DURABLE_SET.needs)
    assert setup is not None
    site = Site(site_directory, cores.server, free_port(), SMALL)
    report = site_directory / "spans.json"
    options = ["--memcached-memory", "256"]
    with start_tenantbase(site, options, ("benchmarks.witness", report)) as started:
        server = Server(started, site.port, setup.dialect(site.port))
        exchanges = DURABLE_SET.exchanges(server.dialect, SMALL.entries())
        requests = [exchange.request for exchange in exchanges]
        drive(site.port, requests)  # nearly enough to store every key
        path = site_directory / "requests"
        throughput.write(path, requests)
        rate = throughput.measure(site.port, path, 200, seconds, cores).rate / 2
        settle()
        driven = drive(site.port, requests, rate=rate, seconds=max(seconds, _SECONDS_AT_LEAST))
    spans = msgspec.json.decode(report.read_bytes(), type=dict[str, list[Span]])
    return {"rate": rate, **_explain(spans, len(driven.latencies))}


def _explain(spans: dict[str, list[Span]], count: int) -> dict[str, Any]:
    writes = sorted(spans["write"], key=lambda span: span[1])[-count:]
    begun, ended = min(begin for begin, _ in writes), writes[-1][1]
    slowest = sorted(writes, key=_length)[-round(len(writes) * SLOWEST) :]
    causes = {
        "a checkpoint": spans["checkpoint"],
        "a long commit": _long(spans["commit"]),
        "a long wait for memcached": _long(spans["store"]),
    }
    within = {
        name: [span for span in each if span[1] > begun and span[0] < ended]
        for name, each in causes.items()
    }
    return {
        "slow": _length(slowest[0]),
        "causes": [
            {
                "name": name,
                "share": _share(slowest, each),
                "a_second": len(each) / (ended - begun),
                "median": statistics.median(map(_length, each)) if each else 0.0,
                "longest": max(map(_length, each), default=0.0),
            }
            for name, each in within.items()
        ],
        "other": 1 - _share(slowest, [span for each in within.values() for span in each]),
    }


def _share(slowest: Sequence[Span], causes: Sequence[Span]) -> float:
    """The share of the slowest sets that overlap any of these."""
    overlapped = [
        any(begin < write[1] and end > write[0] for begin, end in causes) for write in slowest
    ]
    return sum(overlapped) / len(overlapped)


def _long(spans: Sequence[Span]) -> list[Span]:
    return [span for span in spans if _length(span) >= LONG_SECONDS]


def _length(span: Span) -> float:
    return span[1] - span[0]
