"""Measures maximum throughput with wrk: a closed loop, usually over 64 connections."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.processes import BenchmarkError, Cores, busy_seconds, cpu_seconds

CONNECTIONS: Final = 64

_SCRIPT: Final = Path(__file__).with_name("wrk.lua")
_MARK: Final = "RESULT "


@dataclass(frozen=True)
class Throughput:
    """The result of one load.

    Attributes:
        rate: answers per second.
        answers: the number of answers.
        answer_bytes: the average size of an answer with its head.
        cost: the processor time of the service's processes for one answer, in seconds.
        load_busy: the share of time that wrk's core was busy. Near 1, wrk, or something else on its
            core, is the bottleneck.
        others: the share of the server's core that other programs used. Above a few hundredths the
            figures are noise.
    """

    rate: float
    answers: int
    answer_bytes: float
    cost: float
    load_busy: float
    others: float


def measure(
    port: int,
    requests: Path,
    status: int,
    seconds: int,
    cores: Cores,
    connections: int = CONNECTIONS,
) -> Throughput:
    """Send the requests of a file (see `write`) for ``seconds``.

    Args:
        status: the status of every correct answer.

    Raises:
        BenchmarkError: a connection failed, or an answer had another status.
    """
    command = ["wrk", "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{seconds}s", "--timeout", "10s"]
    command += ["--script", str(_SCRIPT), f"http://127.0.0.1:{port}", "--", str(requests)]
    begun, used = time.monotonic(), cpu_seconds()
    server, load = busy_seconds(cores.server), busy_seconds(cores.load)
    finished = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    elapsed = time.monotonic() - begun
    if finished.returncode or _MARK not in finished.stdout:
        raise BenchmarkError(f"wrk failed:\n{finished.stdout}{finished.stderr}")
    result = json.loads(finished.stdout.partition(_MARK)[2])
    # wrk counts every status from 400 on as an error, but 404 is correct for a key that does not
    # exist.
    refused = result["answers"] if status >= 400 else 0
    if result["broken"] or result["refused"] != refused or not result["answers"]:
        raise BenchmarkError(f"not every answer was a {status}: {result}")
    used = cpu_seconds() - used
    return Throughput(
        rate=result["answers"] / result["microseconds"] * 1e6,
        answers=result["answers"],
        answer_bytes=result["bytes"] / result["answers"],
        cost=used / result["answers"],
        load_busy=(busy_seconds(cores.load) - load) / elapsed,
        others=max(0.0, (busy_seconds(cores.server) - server - used) / elapsed),
    )


def write(path: Path, requests: list[bytes]) -> None:
    """Write requests to a file for `measure`."""
    with path.open("wb") as file:
        for request in requests:
            file.write(b"%d\n%b" % (len(request), request))
