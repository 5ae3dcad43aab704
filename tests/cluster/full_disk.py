"""The primary's disk is full, and PostgreSQL may end because of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.cluster.machines import RemoteServer
from tests.cluster.scene import Scene, repeating

_STEP_SECONDS: Final = 0.05


@asynccontextmanager
async def full_disk(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Every byte that becomes free is taken at once. Then there is room again, or a failover."""
    promoter = scene.cluster.promoter
    full = promoter.primary
    assert isinstance(full, RemoteServer)

    async def fill() -> None:
        await asyncio.to_thread(full.disk.fill)
        await asyncio.sleep(_STEP_SECONDS)

    with scene.excuses.everything():
        async with repeating(fill):
            yield
            replaced = chance.random() < 0.5
            if replaced:
                await scene.changed("disk full, replaced", promoter.fail_over)
        await asyncio.to_thread(full.disk.free)
        if full.has_ended():
            scene.steps["ended by a full disk"] += 1
            if not replaced:
                await asyncio.to_thread(full.start)
        if not replaced:
            await scene.changed("disk full, freed", lambda: None)
