"""Guests: extra servers that join for a while, and in which a system call fails or kills.

strace injects the faults. Guests have their own clients.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.faults.client import Client, Config
from tests.faults.cluster import TorturedServer, in_thread
from tests.faults.history import Operation, describe
from tests.faults.scene import Scene

_WRITES: Final = 60
_LATER: Final = "no more writes are taken"
_WORKER_ENDED: Final = " was killed by SIGKILL"
# The system calls that a writing thread makes while it holds the write lock, and some others.
_CALLS: Final = ("pwrite64", "fdatasync", "flock", "fcntl", "pread64")


@asynccontextmanager
async def killed_at_call(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """A server dies at its N-th call of some kind, during a write."""
    fault = f"{chance.choice(_CALLS)}:signal=SIGKILL:when={chance.randint(1, _WRITES)}"
    async with _guest(scene, chance, fault) as operations:
        killed = not operations or any(each.status == 0 for each in operations)
        scene.done.append(f"killed at a call: {killed}")
    yield


@asynccontextmanager
async def sync_failed(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """One fsync fails; any after it would succeed."""
    fault = f"fdatasync,fsync:error=EIO:when={chance.randint(1, _WRITES // 2)}"
    async with _guest(scene, chance, fault) as operations:
        writes = [each for each in operations if each.kind != "get" and not _excused(scene, each)]
        failed = [i for i, each in enumerate(writes) if each.outcome in ("failed", "unknown")]
        scene.done.append(f"fsync failed: {bool(failed)}")
        for later in writes[failed[0] :] if failed else ():
            if later.outcome == "ok":
                scene.broken.append(f"acknowledged after a failed fsync: {describe(later)}")
        # If the fsync was that of the sweeper's commit, this write was never begun.
        first = writes[failed[0]] if failed else None
        if first is not None and first.outcome == "failed" and _LATER not in first.detail:
            scene.broken.append(
                f"a failed fsync was reported as another problem: {describe(first)}"
            )
    yield


@asynccontextmanager
async def disk_full(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """The disk is full for some writes, then has room again."""
    first = chance.randint(1, _WRITES)
    fault = f"pwrite64:error=ENOSPC:when={first}..{first + chance.randint(0, 20)}"
    async with _guest(scene, chance, fault) as operations:
        writes = [each for each in operations if each.kind != "get"]
        statuses = [each.status for each in writes]
        scene.done.append(f"disk full: {507 in statuses}")
        for each in operations:
            if _excused(scene, each):
                continue
            if each.outcome in ("failed", "unknown") and each.status != 507:
                scene.broken.append(f"a full disk was not reported as such: {describe(each)}")
            elif each.kind == "get" and each.outcome == "failed":
                scene.broken.append(f"a full disk made a read fail: {describe(each)}")
        if writes and writes[-1].status == 507:
            scene.broken.append("writes did not continue once there was room again")
    yield


def _excused(scene: Scene, operation: Operation) -> bool:
    """Whether a fault that affects all servers excuses the guest, too."""
    write = operation.kind != "get"
    return scene.excuses.failure(operation.start, operation.heard, 0, write=write)


@asynccontextmanager
async def _guest(scene: Scene, chance: random.Random, fault: str) -> AsyncIterator[list[Operation]]:
    """The operations of a guest's clients."""
    cluster = scene.cluster
    server = cluster.server(cluster.memcached.address, injected=fault)
    name = f"guest-{time.monotonic_ns()}-"
    operations: list[Operation] = []
    # It is slow, because it is traced, and may hold the write lock meanwhile.
    with scene.excuses.slowness(), scene.referee.pending():
        try:
            if await _started(server):
                with scene.excuses.all_of(server.port):
                    operations = await _asked(scene, server, chance, name)
        finally:
            await in_thread(server.close)
        scene.referee.hear(operations)
    yield operations


async def _started(server: TorturedServer) -> bool:
    try:
        await in_thread(server.start)
    except AssertionError:
        return False  # the fault came during the start
    return True


async def _asked(
    scene: Scene, server: TorturedServer, chance: random.Random, name: str
) -> list[Operation]:
    config = Config(
        name=name,
        ports=[server.port],
        seed=chance.randrange(1 << 32),
        clients=1,
        readers=0,
        begin=0.0,
        seconds=0.0,
        slice_seconds=1.0,
        pause=0.0,
        token=scene.cluster.token,
    )
    client = Client(config, 0, {})
    (connection,) = client.servers
    async with connection:
        for _ in range(_WRITES):
            keys = scene.keys()
            key = chance.choice(keys["registers"])
            await client.set(connection, key)
            await client.get(connection, key)
            # Its supervisor replaces a killed worker, and the replacement is killed, too.
            if client.done[-1].status == 0 or _WORKER_ENDED in server.stderr:
                break
    return client.done
