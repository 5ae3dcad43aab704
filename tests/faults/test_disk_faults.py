"""A failing disk, simulated with strace: errors are reported, and what can continues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.cluster import Cluster, TorturedServer
from tests.wire import Answer

VALUE = "x" * 3000  # about a page, so that every write needs new space


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, servers=1, workers=1) as running:
        yield running


async def ask(
    server: TorturedServer, method: str, target: str, body: bytes | None = None
) -> Answer:
    return await asyncio.to_thread(server.ask, method, target, body)


async def set_values(server: TorturedServer, count: int, name: str) -> list[Answer]:
    return [
        await ask(
            server,
            "POST",
            "/set-value",
            b'{"key": "%b", "value": "%b %d"}' % (name.encode(), VALUE.encode(), number),
        )
        for number in range(count)
    ]


def kind(answer: Answer) -> str:
    return "ok" if answer.status == 200 else str(answer.json["type"]).rpartition(":")[2]


async def guest(cluster: Cluster, fault: str) -> TorturedServer:
    server = cluster.server(cluster.memcached.address, injected=fault)
    await asyncio.to_thread(server.start)
    return server


async def test_after_a_failed_fsync_nothing_is_acknowledged(cluster: Cluster) -> None:
    (healthy,) = cluster.servers
    server = await guest(cluster, "fdatasync,fsync:error=EIO:when=4")
    try:
        answers = await set_values(server, 8, "k")
        kinds = [kind(answer) for answer in answers]
        told = kinds.index("outcome-unknown")
        assert kinds[:told] == ["ok"] * told
        assert kinds[told + 1 :] == ["store-unavailable"] * (7 - told)
        health = await ask(server, "GET", "/health-check")
        assert health.status == 503 and health.json["store"] == "unavailable"
        # The write may have taken effect or not, but all readers agree.
        seen = [(await ask(each, "GET", "/get-value?key=k")).json for each in (server, healthy)]
        assert seen[0] == seen[1]
        assert seen[0]["version"] in (told, told + 1)
        assert [kind(answer) for answer in await set_values(healthy, 2, "k")] == ["ok", "ok"]
        assert (await ask(server, "GET", "/get-value?key=k")).json["value"] == f"{VALUE} 1"
    finally:
        await asyncio.to_thread(server.close)


async def test_a_full_disk_refuses_writes_until_there_is_room(cluster: Cluster) -> None:
    server = await guest(cluster, "pwrite64:error=ENOSPC:when=9..16")
    try:
        kinds = [kind(answer) for answer in await set_values(server, 3, "before")]
        read: list[int] = []
        while kinds[-1] == "ok" or "disk-full" not in kinds:
            kinds.append(kind((await set_values(server, 1, "k"))[0]))
            read.append((await ask(server, "GET", "/get-value?key=before")).status)
            assert len(kinds) < 40
        while kinds[-1] != "ok":
            kinds.append(kind((await set_values(server, 1, "k"))[0]))
            read.append((await ask(server, "GET", "/get-value?key=before")).status)
            assert len(kinds) < 40
        assert set(kinds) == {"ok", "disk-full"}
        assert set(read) == {200}
    finally:
        await asyncio.to_thread(server.close)
