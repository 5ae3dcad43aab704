"""What tokens and limits cost: the same requests to one server, with and without them.

    scripts/bench --access [--rounds N] [--seconds N]

All loads of a table go to the same process, which holds the same entries: between them, its database is
closed by a token, given limits, and opened again. So nothing differs but what is measured. The
limits are too high to be reached. Processor time is compared, because other programs disturb it
less than throughput, and each ratio is taken within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from benchmarks import throughput
from benchmarks.client import check
from benchmarks.launch import PEERS, Server, Site, serving
from benchmarks.processes import READY_SECONDS, BenchmarkError, choose_cores, free_port, settle
from benchmarks.summary import OURS
from benchmarks.work import CACHED_GET, DURABLE_SET, SMALL, Work

_TENANT: Final = "/v1/tenants/default"
_NO_LIMITS: Final = {"max_entries": None, "max_bytes": None, "max_requests_per_second": None}
_CHECKED: Final = 20
_MIN_ROUNDS: Final = 2  # quartiles need them


@dataclass(frozen=True)
class Access:
    """Who may call, and how much.

    Attributes:
        name: for the table.
        token: whether the database is closed, and requests carry a token.
        limits: those of the tenant.
    """

    name: str
    token: bool
    limits: dict[str, int]


OPEN: Final = Access("open", False, {})
TOKEN: Final = Access("a token", True, {})
_RATE: Final = Access("a token and a rate limit", True, {"max_requests_per_second": 100_000_000})
_QUOTA: Final = Access(
    "a token and a quota", True, {"max_entries": 1_000_000_000, "max_bytes": 1 << 50}
)
MEASURED: Final = ((CACHED_GET, (OPEN, TOKEN, _RATE)), (DURABLE_SET, (OPEN, TOKEN, _QUOTA)))


class _Service:
    """One server, whose access can be changed."""

    def __init__(self, server: Server, site: Site) -> None:
        self._server = server
        self._site = site

    def admit(self, access: Access) -> str | None:
        """Change who may call. Returns: the token for requests, if they need one."""
        limits = {**_NO_LIMITS, **access.limits}
        if not access.token:
            self._call("PUT", _TENANT, limits)
            return None
        admin = self._call("POST", "/v1/tokens", {"name": "bench", "scope": "admin"})["token"]
        self._call("PUT", _TENANT, limits, admin)
        token: str = self._call("POST", "/v1/tokens", {"name": "bench", "scope": "write"}, admin)[
            "token"
        ]
        return token

    def open(self) -> None:
        """Remove all tokens."""
        command = [sys.executable, "-m", "tenantbase", "token", "disable", "--yes"]
        command += ["--database", str(self._site.directory / "tenantbase.db")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise BenchmarkError(f"the database stays closed: {done.stderr}")
        deadline = time.monotonic() + READY_SECONDS
        while self._status("GET", "/v1/whoami") != 200:
            if time.monotonic() > deadline:
                raise BenchmarkError("the server does not notice that its database was opened")
            time.sleep(0.05)

    def load(self, work: Work, access: Access, seconds: int, cores: Any) -> float:
        """The processor time of one answer, in seconds."""
        exchanges = work.exchanges(self._server.dialect, self._site.data.entries())
        requests = [exchange.request for exchange in exchanges]
        token = self.admit(access)
        try:
            if token is not None:
                field = f"\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
                requests = [request.replace(b"\r\n\r\n", field, 1) for request in requests]
            path = self._site.directory / "requests"
            throughput.write(path, requests)
            settle()
            measured = throughput.measure(self._server.port, path, 200, seconds, cores)
            settle()
            return measured.cost
        finally:
            if token is not None:
                self.open()

    def _call(
        self, method: str, path: str, body: object = None, token: str | None = None
    ) -> dict[str, Any]:
        status, answer = self._exchange(method, path, body, token)
        if status not in (200, 201):
            raise BenchmarkError(f"{method} {path}: {answer!r}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def _status(self, method: str, path: str) -> int:
        return self._exchange(method, path, None, None)[0]

    def _exchange(
        self, method: str, path: str, body: object, token: str | None
    ) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self._server.port, timeout=READY_SECONDS)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        data = None if body is None else json.dumps(body)
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def rows(work: str, costs: Sequence[dict[str, float]]) -> list[str]:
    """The lines of the table for one workload.

    Args:
        costs: for each round, the processor time of an answer in seconds, by ``Access.name``; the
            first is what the others are compared with.
    """
    names = list(costs[0])
    lines = []
    for name in names:
        cost = median(each[name] for each in costs) * 1e6
        ratios = [each[name] / each[names[0]] for each in costs]
        low, _, high = quantiles(ratios, n=4)
        compared = f"{median(ratios):.3f} | {low:.3f} to {high:.3f}" if name != names[0] else "1 |"
        lines.append(f"| {work} | {name} | {cost:.2f} µs | {compared} |")
    return lines


def _measure(rounds: int, seconds: int, directory: Path) -> list[str]:
    cores = choose_cores()
    os.sched_setaffinity(0, {cores.load})
    setup = PEERS[OURS](DURABLE_SET.needs)
    assert setup is not None
    site = Site(directory, cores.server, free_port(), SMALL)
    costs: dict[str, list[dict[str, float]]] = {work.name: [] for work, _ in MEASURED}
    with serving(setup, site) as server:
        service = _Service(server, site)
        for work, _ in MEASURED:
            check(site.port, work.exchanges(server.dialect, SMALL.entries(), _CHECKED))
        for number in range(rounds):
            for work, measured in MEASURED:
                order = measured[:: -1 if number % 2 else 1]
                found = {each.name: service.load(work, each, seconds, cores) for each in order}
                costs[work.name].append({each.name: found[each.name] for each in measured})
    lines = ["| request | caller | processor time | ratio | middle half of rounds |"]
    lines.append("|---|---|---|---|---|")
    return lines + [line for name, each in costs.items() for line in rows(name, each)]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=12, metavar="N", help="default: 12")
    parser.add_argument("--seconds", type=int, default=1, metavar="N", help="of a load; default: 1")
    options = parser.parse_args()
    if options.rounds < _MIN_ROUNDS:
        parser.error(f"--rounds is at least {_MIN_ROUNDS}")
    with tempfile.TemporaryDirectory(prefix="tenantbase-bench-") as directory:
        try:
            print("\n".join(_measure(options.rounds, options.seconds, Path(directory))))
        except BenchmarkError as error:
            sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
