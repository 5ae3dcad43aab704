"""A server dies or stops at each step of a write; the other continues to serve, correctly."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.cluster import Cluster, TorturedServer
from tests.faults.control import WRITE_STEPS
from tests.servers import poll_async
from tests.wire import Answer

_COMMITTED_AFTER = WRITE_STEPS.index("committed")


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, servers=2, workers=1) as running:
        yield running


async def ask(
    server: TorturedServer, method: str, target: str, body: bytes | None = None
) -> Answer:
    return await asyncio.to_thread(server.ask, method, target, body)


async def set_value(server: TorturedServer, value: int) -> Answer:
    return await ask(server, "POST", "/set-value", b'{"key": "k", "value": %d}' % value)


async def get_value(server: TorturedServer) -> int:
    answer = await ask(server, "GET", "/get-value?key=k")
    assert answer.status == 200
    return int(answer.json["value"])


async def test_a_server_killed_at_a_step_leaves_the_other_working(cluster: Cluster) -> None:
    survivor, victim = cluster.servers
    for number, step in enumerate(WRITE_STEPS):
        old, new = 10 * number, 10 * number + 1
        assert (await set_value(survivor, old)).status == 200
        assert await get_value(victim) == old
        cluster.control.arm(step, "kill")
        with pytest.raises(OSError):
            await set_value(victim, new)
        committed = number >= _COMMITTED_AFTER
        for _ in range(3):
            assert await get_value(survivor) == (new if committed else old), step
        assert (await set_value(survivor, new + 1)).status == 200
        for _ in range(3):
            assert await get_value(survivor) == new + 1
        assert await get_value(victim) == new + 1, "another worker has taken its place"


async def test_a_server_stopped_at_a_step_leaves_the_other_reading(cluster: Cluster) -> None:
    survivor, victim = cluster.servers
    for number, step in enumerate(WRITE_STEPS):
        old, new = 10 * number, 10 * number + 1
        assert (await set_value(survivor, old)).status == 200
        cluster.control.arm(step, "stop")
        writing = asyncio.create_task(set_value(victim, new))
        pids: list[int] = []

        def caught(pids: list[int] = pids) -> bool:
            pids.extend(cluster.control.caught())
            return bool(pids)

        await poll_async(caught, f"the server comes to the step {step}")
        seen = [await get_value(survivor) for _ in range(3)]
        assert seen == [new if number >= _COMMITTED_AFTER else old] * 3, step
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        assert (await writing).status == 200
        assert [await get_value(server) for server in cluster.servers] == [new, new]


async def test_a_write_that_times_out_behind_a_stopped_server_is_not_made(cluster: Cluster) -> None:
    survivor, victim = cluster.servers
    assert (await set_value(survivor, 1)).status == 200
    cluster.control.arm("odd", "stop")
    writing = asyncio.create_task(set_value(victim, 2))
    await poll_async(lambda: not cluster.control.armed("odd", "stop"), "the server stops")
    answer = await set_value(survivor, 3)
    assert answer.status == 503 and answer.json["type"].endswith(":store-unavailable")
    assert await get_value(survivor) == 1
    victim.resume()
    late = await writing
    # It was stopped for longer than the write timeout, but its commit still continues.
    assert late.status == 200 or late.json["type"].endswith(":outcome-unknown")
    after = await set_value(survivor, 4)
    assert after.status == 200 and after.json["version"] == 3
    assert [await get_value(server) for server in cluster.servers] == [4, 4]
