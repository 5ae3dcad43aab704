"""``tenantbase stats`` on a database file, and on a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tenantbase import __version__
from tenantbase.cli.commands.stats import lines
from tests.cli.places import place

SERVER: dict[str, Any] = {
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
        "shared": None,
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


SHARED = {
    "node": "a/12",
    "primary": "10.0.0.1:5432",
    "standby": "two",
    "standby_present": True,
    "standby_lag_bytes": 2048,
    "oldest_xid_age": 100,
    "term": 3,
    "position": 1_204_112,
    "position_lag": 5,
    "confirmed_age_seconds": 0.04,
    "questions": 10,
    "question_mean_ms": 0.5,
    "keys_per_question": 2.0,
    "lock_wait_mean_ms": None,
    "sessions_lost": {"connection": 0, "timeout": 2, "term": 1, "standby": 0, "warning": 0},
    "doubts": {"made": 0, "not_made": 0, "unknown": 0},
}
SHOWN_SHARED = {
    "node": "a/12",
    "primary": "10.0.0.1:5432",
    "  standby": "two, 2.0 KiB behind",
    "  term": "3",
    "  position": "1,204,112, 5 behind in some worker",
    "  confirmed": "0.0 s ago; 0.5 ms on average",
    "  lock": "- on average",
    "sessions": "3 (timeout 2, term 1) lost",
    "in doubt": "0",
}


def test_figures_of_a_shared_database_for_people() -> None:
    def shown(**changed: object) -> dict[str, str]:
        return dict(lines({**SERVER, "store": {**SERVER["store"], "shared": SHARED | changed}}))

    assert SHOWN_SHARED.items() <= shown().items()
    assert shown(standby_present=False)["  standby"] == "two, not connected"
    away = shown(primary=None, standby=None)
    assert away["primary"] == "none can be used" and "  standby" not in away


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
