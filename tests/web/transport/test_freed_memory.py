"""Memory goes back to the system once the requests that needed it have ended."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from tests.app_server import AppServer
from tests.faults.cluster import memory_of
from tests.wire import Wire, request

JSON = {"Host": "localhost", "Content-Type": "application/json"}
_MIB = 1 << 20
_BODY_BYTES = 4 * _MIB
_CLIENTS = 40  # their bodies are three times the budget
_EVICTED = 50


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.timeout(120)
async def test_bodies_that_were_held_back_leave_nothing_in_memory(tmp_path: Path) -> None:
    options = ("--memcached", "off", "--workers", "1")
    with AppServer(tmp_path / "x.db", *options) as server:
        workers = server.workers
        before = sum(memory_of(workers).values())
        body = request("POST", "/set-values", b"[" * _BODY_BYTES, JSON)[:-1]
        evicted = 0

        async def hold_back() -> None:
            nonlocal evicted
            while evicted < _EVICTED:
                wire = await Wire.connect(server.port)
                try:
                    wire.writer.write(body)
                    answer = await wire.reader.read(12)
                    evicted += answer == b"HTTP/1.1 503"
                finally:
                    wire.abort()

        holding = [asyncio.create_task(hold_back()) for _ in range(_CLIENTS)]
        deadline = time.monotonic() + 60
        while evicted < _EVICTED:
            assert time.monotonic() < deadline, evicted
            await asyncio.sleep(0.05)
        for task in holding:
            task.cancel()
        await asyncio.wait(holding)
        deadline = time.monotonic() + 45
        while (held := sum(memory_of(workers).values()) - before) > 30 * _MIB:
            assert time.monotonic() < deadline, f"{held / _MIB:.0f} MiB"
            await asyncio.sleep(0.1)
