"""The primary's disk is full, and PostgreSQL may end because of it."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

from tests.cluster.machines import RemoteServer
from tests.cluster.scene import Scene, repeating
from tests.servers import poll

_STEP_SECONDS: Final = 0.05
_RUNS_SECONDS: Final = 60.0


@asynccontextmanager
async def full_disk(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """The disk is kept full. Then space is freed, or there is a failover."""
    promoter = scene.cluster.promoter
    full = promoter.primary
    assert isinstance(full, RemoteServer)

    async def fill() -> None:
        await asyncio.to_thread(full.disk.fill)
        # So that it soon needs another file for its log.
        with suppress(subprocess.SubprocessError):
            await asyncio.to_thread(partial(full.sql, "SELECT pg_switch_wal()", seconds=1.0))
        await asyncio.sleep(_STEP_SECONDS)

    with scene.excuses.everything():
        async with repeating(fill):
            yield
            replaced = chance.random() < 0.5
            if replaced:
                await scene.changed("disk full, replaced", promoter.fail_over)
        await asyncio.to_thread(full.disk.free)
        if not replaced:
            await asyncio.to_thread(
                poll, lambda: _runs(scene, full), "it runs again", _RUNS_SECONDS
            )
            await scene.changed("disk full, freed", lambda: None)


def _runs(scene: Scene, server: RemoteServer) -> bool:
    """Whether a server answers. If it has stopped by itself, start it first."""
    if server.has_ended():
        scene.steps["ended by a full disk"] += 1
        server.start()
    try:
        return server.sql("SELECT NOT pg_is_in_recovery()", seconds=1.0) == "t"
    except subprocess.SubprocessError:
        return False
