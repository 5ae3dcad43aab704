"""The rounds: each measures every service in turn, for each work."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from benchmarks import throughput
from benchmarks.client import check, drive, percentiles
from benchmarks.dialect import Exchange
from benchmarks.launch import PEERS, Server, Setup, Site, serving
from benchmarks.processes import BenchmarkError, Cores, free_port, settle
from benchmarks.work import CACHED_GET, DURABLE_SET, SMALL, Data, Needs, Work

# How many requests of each load are sent separately, before and after it, to check the answers.
_CHECKED: Final = 50

# The workloads that the open loop measures, too: a read and a write.
_LATENCY: Final = (CACHED_GET, DURABLE_SET)


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        peers: names in ``setups``, in the order of the first round. The order alternates, so that
            none always goes first.
    """

    rounds: int
    seconds: int
    work: Sequence[Work]
    data: Sequence[Data]
    peers: Sequence[str]
    cores: Cores
    directory: Path
    setups: Mapping[str, Callable[[Needs], Setup | None]] = field(default_factory=lambda: PEERS)


def measure(plan: Plan, progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """Measure all rounds.

    Returns: one record for each load: round, data, work, peer, keys a second (``rate``), and more.

    Raises:
        BenchmarkError: a service failed, or gave a wrong answer.
    """
    records = []
    for number in range(plan.rounds):
        for data in plan.data:
            directory = plan.directory / f"{data.name}-{number}"
            with ExitStack() as stack:
                bench = stack.enter_context(_bench(plan, data, directory))
                for work in plan.work:
                    if data.name in work.data:
                        for peer in plan.peers[:: -1 if number % 2 else 1]:
                            progress(f"round {number + 1}: {data.name}, {work.name}, {peer}")
                            result = bench.load(peer, work)
                            if result is not None:
                                about = {"round": number, "data": data.name, "work": work.name}
                                records.append({**about, "peer": peer, **result})
    return records


@contextmanager
def _bench(plan: Plan, data: Data, directory: Path) -> Iterator[_Bench]:
    directory.mkdir()
    try:
        with ExitStack() as servers:
            yield _Bench(plan, data, directory, servers)
    finally:
        shutil.rmtree(directory)


class _Bench:
    """The services of one round with the same data, each started when first needed. Idle services
    use no processor time.
    """

    def __init__(self, plan: Plan, data: Data, directory: Path, servers: ExitStack) -> None:
        self._plan = plan
        self._data = data
        self._entries = data.entries()
        self._directory = directory
        self._stack = servers
        self._servers: dict[str, Server] = {}

    def load(self, peer: str, work: Work) -> dict[str, Any] | None:
        """Measure one service at one workload; None if the service cannot do it."""
        setup = self._plan.setups[peer](work.needs)
        if setup is None:
            return None
        server = self._server(setup)
        exchanges = work.exchanges(server.dialect, self._entries)
        if not exchanges:
            return None
        requests = [exchange.request for exchange in exchanges]
        status = exchanges[0].status
        size = self._check(server, exchanges)
        path = self._directory / "requests"
        throughput.write(path, requests)
        yielded = throughput.measure(
            server.port, path, status, self._plan.seconds, self._plan.cores
        )
        # wrk exits with requests in flight.
        settle()
        server.started.renew()
        if yielded.answer_bytes < 0.8 * size:
            raise BenchmarkError(f"{peer}, {work.name}: answers became smaller under load")
        result = {
            "rate": yielded.rate * work.keys,
            "answers": yielded.answers,
            "cost": yielded.cost / work.keys,
            "load_busy": yielded.load_busy,
            "others": yielded.others,
        }
        if work in _LATENCY and self._data is SMALL:
            result |= self._latency(server, requests, status, yielded.rate / 2)
        self._check(server, exchanges)
        return result

    def _latency(
        self, server: Server, requests: list[bytes], status: int, rate: float
    ) -> dict[str, float]:
        driven = drive(server.port, requests, status, rate=rate, seconds=max(2, self._plan.seconds))
        return {
            "open_rate": len(driven.latencies) / driven.seconds,
            "late": driven.late,
            **percentiles(driven.latencies),
        }

    def _check(self, server: Server, exchanges: list[Exchange]) -> float:
        """Check that a service does what will be measured, writing and reading included."""
        size = check(server.port, exchanges[:_CHECKED])
        key, value = "probe", f"{size}"
        written = server.dialect.set(key, value)
        if written is not None:
            check(server.port, [written])
            check(server.port, [replace(server.dialect.get(key, value), source=None)])
        return size

    def _server(self, setup: Setup) -> Server:
        if setup.name not in self._servers:
            directory = self._directory / setup.name.replace(" ", "-")
            directory.mkdir()
            site = Site(directory, self._plan.cores.server, free_port(), self._data)
            server = self._stack.enter_context(serving(setup, site))
            self._servers[setup.name] = server
        return self._servers[setup.name]
