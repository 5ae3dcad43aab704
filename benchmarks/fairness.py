"""What a quiet tenant waits for, alone and beside a tenant that floods the service.

    scripts/bench --fairness [--seconds N] [--only TEXT]

One worker with a private memcached, on a core of its own; both tenants' clients have another one. The
quiet tenant sends a request every few milliseconds, reads and writes in turn, on two connections. The
other floods the worker from a process of its own, with as many connections as the table says, each of
which sends its next request when the last is answered.

Latency says little on a machine that has other things to do. So the processor time that the service used
while a request waited is measured, too: it does not grow if other programs run meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.processes import ahead_of_others, choose_cores, free_port, tree, used_seconds

_PAUSE_SECONDS: Final = 0.005
_READY_SECONDS: Final = 20.0
_FLOODS_SECONDS: Final = 3.0  # until all connections of a flood are open
_ENTRIES: Final = 2_000
_VALUE: Final = "x" * 16_384
_SMALL_VALUE: Final = "x" * 100


def _request(method: str, target: str, tenant: str, body: object = None) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nX-Tenant: {tenant}\r\n"
    if data:
        head += f"Content-Length: {len(data)}\r\n"
    return head.encode() + b"\r\n" + data


@dataclass(frozen=True)
class Flood:
    """What the flooding tenant sends, and on how many connections; and how many more watch."""

    name: str
    connections: int
    request: bytes
    watches: int = 0


_KEYS: Final = [f"large/{number}" for number in range(_ENTRIES)]
_SMALL_KEYS: Final = [f"small/{number}" for number in range(100)]
_SET: Final = _request("POST", "/set-value", "flood", {"key": "k", "value": 1})
FLOODS: Final = (
    Flood("small sets", 128, _SET),
    Flood("bulk reads", 32, _request("POST", "/get-values", "flood", {"keys": _KEYS})),
    Flood("small bulk reads", 128, _request("POST", "/get-values", "flood", {"keys": _SMALL_KEYS})),
    Flood("lists", 32, _request("GET", "/get-values", "flood")),
    Flood("sets, beside 1,000 watches", 2, _SET, watches=1_000),
)


async def _answer(reader: asyncio.StreamReader) -> int:
    """Read an answer to its end. Returns: its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"transfer-encoding: chunked" in head:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    elif b"content-length: " in head:
        await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
    return int(head.split(b" ", 2)[1])


async def _flood(port: int, flood: Flood) -> None:
    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            writer.write(flood.request)
            await _answer(reader)

    async def watch() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_request("GET", "/v1/watch", "flood"))
        while await reader.read(1 << 16):
            pass

    watches = [watch() for _ in range(flood.watches)]
    await asyncio.gather(*(one() for _ in range(flood.connections)), *watches)


def _run_flood(port: int, flood: Flood) -> None:
    asyncio.run(_flood(port, flood))


class _Waited(NamedTuple):
    """What a request took, in seconds: by the clock, and of the service's processor time."""

    latency: float
    processor: float


async def _quiet(port: int, pids: Sequence[int], seconds: float) -> dict[str, list[_Waited]]:
    """What the quiet tenant's requests took, by kind."""
    kinds = {
        "get": _request("GET", "/get-value?key=k", "quiet"),
        "set": _request("POST", "/set-value", "quiet", {"key": "k", "value": 1}),
    }

    async def measure(request: bytes) -> list[_Waited]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        taken: list[_Waited] = []
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            used = used_seconds(pids)
            writer.write(request)
            status = await _answer(reader)
            if status != 200:
                raise SystemExit(f"bench: the quiet tenant got status {status}")
            taken.append(_Waited(time.perf_counter() - began, used_seconds(pids) - used))
            await asyncio.sleep(_PAUSE_SECONDS)
        writer.close()
        return taken

    found = await asyncio.gather(*map(measure, kinds.values()))
    return dict(zip(kinds, found, strict=True))


def _measured(port: int, pids: Sequence[int], seconds: float) -> dict[str, list[_Waited]]:
    with ahead_of_others():
        return asyncio.run(_quiet(port, pids, seconds))


async def _prepare(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    batches = [_KEYS[at : at + 200] for at in range(0, _ENTRIES, 200)]
    requests = [
        _request("PUT", f"/v1/tenants/{name}", "default", {}) for name in ("quiet", "flood")
    ]
    requests.append(_request("POST", "/set-value", "quiet", {"key": "k", "value": 1}))
    small = [{"key": key, "value": _SMALL_VALUE} for key in _SMALL_KEYS]
    requests.append(_request("POST", "/set-values", "flood", {"values": small}))
    for batch in batches:
        values = [{"key": key, "value": _VALUE} for key in batch]
        requests.append(_request("POST", "/set-values", "flood", {"values": values}))
    for request in requests:
        writer.write(request)
        if (status := await _answer(reader)) not in (200, 201):
            raise SystemExit(f"bench: status {status} while preparing")
    writer.close()


def _percentile(taken: Sequence[float], share: float) -> float:
    return sorted(taken)[min(len(taken) - 1, int(share * len(taken)))]


def _measure(port: int, pid: int, seconds: float, floods: Sequence[Flood]) -> list[str]:
    asyncio.run(_prepare(port))
    pids = tree(pid)
    alone = _measured(port, pids, seconds)
    rows = ["| beside | request | p50 ms | p99 ms | times alone | processor time, p99 ms |"]
    rows += ["|---|---|---|---|---|---|"]
    rows += [_row("nothing", kind, taken, taken) for kind, taken in alone.items()]
    spawn = multiprocessing.get_context("spawn")
    for flood in floods:
        process = spawn.Process(target=_run_flood, args=(port, flood), daemon=True)
        process.start()
        try:
            time.sleep(_FLOODS_SECONDS)
            beside = _measured(port, pids, seconds)
            if not process.is_alive():
                raise SystemExit(f"bench: the flood of {flood.name} has ended")
        finally:
            process.terminate()
            process.join()
        name = f"{flood.connections} connections: {flood.name}"
        rows += [_row(name, kind, taken, alone[kind]) for kind, taken in beside.items()]
    return rows


def _row(name: str, kind: str, taken: Sequence[_Waited], alone: Sequence[_Waited]) -> str:
    latencies = [each.latency for each in taken]
    p50, p99 = _percentile(latencies, 0.5), _percentile(latencies, 0.99)
    times = p99 / _percentile([each.latency for each in alone], 0.99)
    used = _percentile([each.processor for each in taken], 0.99)
    return (
        f"| {name} | {kind} | {p50 * 1e3:.1f} | {p99 * 1e3:.1f} | {times:.1f} | {used * 1e3:.1f} |"
    )


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--only", default="", metavar="TEXT", help="floods with this in their name")
    options = parser.parse_args()
    floods = [flood for flood in FLOODS if options.only in flood.name]
    port = free_port()
    cores = choose_cores()
    os.sched_setaffinity(0, {cores.load})
    with tempfile.TemporaryDirectory(prefix="tenantbase-bench-") as directory:
        database = Path(directory) / "x.db"
        command = ["taskset", "--cpu-list", str(cores.server), sys.executable, "-m", "tenantbase"]
        command += ["serve", "--port", str(port)]
        server = subprocess.Popen(
            [*command, "--database", str(database)], stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        try:
            if not server.stdout.readline().startswith("listening on "):
                raise SystemExit("bench: the server does not start")
            print("\n".join(_measure(port, server.pid, options.seconds, floods)))
        finally:
            server.terminate()
            server.wait(_READY_SECONDS)


if __name__ == "__main__":
    main()
