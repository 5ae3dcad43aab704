"""A commit of unknown outcome that reappears after all processes have died.

Its bytes are in the log although their fsync failed, and a recovery finds them there. The tag file
outlives the writers if a process that is starting already has it open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tenantbase.coherence.tag_file import TagFile
from tests.faults.cluster import Cluster, TorturedServer
from tests.wire import Answer

Start = Callable[..., Awaitable[TorturedServer]]


@pytest.fixture
async def cluster(tmp_path: Path, bug: str | None) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, servers=1, bug=bug) as running:
        yield running


@pytest.fixture
async def start(cluster: Cluster) -> AsyncIterator[Start]:
    """Starts one more server with these options and this fault."""
    async with AsyncExitStack() as stack:

        async def started(*options: str, injected: str | None = None) -> TorturedServer:
            server = cluster.server(cluster.memcached.address, *options, injected=injected)
            await asyncio.to_thread(server.start)
            stack.push_async_callback(asyncio.to_thread, server.close)
            return server

        yield started


async def set_value(server: TorturedServer, value: bytes) -> Answer:
    body = b'{"key": "k", "value": "%b"}' % value
    return await asyncio.to_thread(server.ask, "POST", "/set-value", body)


async def value(server: TorturedServer) -> object:
    answer = await asyncio.to_thread(server.ask, "GET", "/get-value?key=k")
    return answer.json["value"]


@pytest.mark.parametrize(("bug", "believed"), [(None, "new"), ("doubt-stays-odd", "old")])
async def test_items_cached_in_doubt_are_invalid_afterwards(
    cluster: Cluster, start: Start, believed: str
) -> None:
    (healthy,) = cluster.servers
    full = await start(injected="pwrite64:error=ENOSPC")
    failing = await start(injected="fdatasync:error=EIO")
    assert (await set_value(healthy, b"old")).status == 200
    assert (await set_value(failing, b"new")).json["type"].endswith(":outcome-unknown")
    assert (await set_value(full, b"refused")).status == 507
    assert await value(healthy) == "old", "no process has recovered the log yet"

    starting = TagFile.open(Path(f"{cluster.database}-tags"))
    try:
        for server in (failing, full, healthy):
            await asyncio.to_thread(server.kill)
        cached, uncached = await start(), await start("--memcached", "off")
    finally:
        starting.close()
    assert await value(uncached) == "new", "the premise of this test"
    assert await value(cached) == believed
