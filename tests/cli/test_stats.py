"""``tenantbase stats`` on a database file, and on a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenantbase import __version__
from tenantbase.cli.commands.stats import lines
from tests.cli.places import place

SERVER = {
    "version": "1.2.3",
    "uptime_seconds": 93_784.5,
    "workers": 4,
    "requests": {
        "total": 1_234_567,
        "per_second": 1_234.56,
        "errors_per_second": 0.0,
        "p50_ms": 0.71,
        "p99_ms": None,
    },
    "cache": {
        "available": True,
        "hits": 9,
        "stale": 2,
        "misses": 1,
        "bypasses": 0,
        "hit_ratio": 0.9,
    },
    "store": {
        "entries": 1_000,
        "bytes": 123,
        "database_bytes": 5 << 20,
        "log_bytes": None,
        "commits": 7,
    },
    "watchers": 2,
    "connections": 3,
}
SHOWN = """\
version=1.2.3
uptime=1 d 2 h
workers=4
requests=1,234,567
  now=1,234.6/s, 0.0 errors/s, p50 0.7 ms, p99 -
cache=available, 90.0% hits
  keys read=9 hits, 1 misses, 0 bypasses, 2 stale
entries=1,000
  size=123 B
database=5.0 MiB
  log=unknown
commits=7
watchers=2
connections=3
"""


def test_figures_for_people() -> None:
    assert "".join(f"{name}={value}\n" for name, value in lines(SERVER)) == SHOWN
    young = {**SERVER, "uptime_seconds": 61.0}
    assert dict(lines(young))["uptime"] == "1 min 1 s"


@pytest.mark.parametrize("kind", ["direct", "over HTTP"])
def test_figures_of_a_file_and_of_a_server(kind: str, tmp_path: Path) -> None:
    with place(kind, tmp_path) as tenantbase:
        tenantbase.done("set", "k", "12345")
        (figures,) = tenantbase.records("stats")
        assert figures["version"] == __version__
        store = figures["store"]
        assert (store["entries"], store["bytes"]) == (1, 6)
        assert store["database_bytes"] > 0
        assert ("requests" in figures) == (kind == "over HTTP")
        names = dict(lines(figures))
        assert names["entries"] == "1" and names["  size"] == "6 B"
