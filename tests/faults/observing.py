"""Client processes, whose observations a referee hears and checks while they run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence

import msgspec

from tests.faults.client import Config
from tests.faults.history import Operation
from tests.faults.referee import Referee


async def check_slices(referee: Referee, ports: Sequence[int], stop: asyncio.Event) -> None:
    """Check each slice when it is complete, until the run ends."""
    while not stop.is_set():
        for number in referee.complete():
            await referee.check(number, ports)
        await asyncio.sleep(0.3)


async def run_clients(config: Config, referee: Referee) -> None:
    """Run a process of clients, and pass on everything that it reports."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.faults.client",
        msgspec.json.encode(config),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    referee.told(process, 0)
    try:
        async for line in process.stdout:
            if line.startswith(b"{"):
                referee.hear([msgspec.json.decode(line, type=Operation)])
            else:
                referee.told(process, int(line))
        status = await process.wait()
        assert status == 0, f"clients ended with status {status}"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
