"""Faults in which an operator gives up acknowledged writes, and the referee is told which."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.cluster.promoter import Server
from tests.cluster.scene import Scene
from tests.faults.loss import Loss

# What a primary's term has inherited, the first position that it has given, and one that it never will.
_TERM: Final = f"""
    WITH term AS (SELECT inherited FROM tenantbase.terms ORDER BY number DESC LIMIT 1)
    SELECT inherited, (SELECT min(position) FROM tenantbase.changes WHERE position > inherited),
        (SELECT position + {1 << 19} FROM tenantbase.clock) FROM term
"""


@asynccontextmanager
async def acknowledged_lost(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """The primary and its standby die, and an asynchronous standby is promoted that lags."""
    with scene.excuses.everything(), scene.referee.pending():
        await _lose(scene, chance, twice=False)
    yield


@asynccontextmanager
async def promoted_twice(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """The same, but after a failover of which the asynchronous standby has never heard: there are two
    terms with one timeline and nothing in common. The primary of the first of them comes back."""
    with scene.excuses.everything(), scene.referee.pending():
        first = await _lose(scene, chance, twice=True)
        await scene.changed("deposed primary back", first.start)
    yield


async def _lose(scene: Scene, chance: random.Random, *, twice: bool) -> Server:
    """Returns: the server that was the primary."""
    promoter = scene.cluster.promoter
    since = time.monotonic_ns()
    await asyncio.to_thread(promoter.attach_spare)
    # A stopped process would still receive what is in the kernel's buffers.
    await asyncio.to_thread(promoter.spare.kill)
    await asyncio.sleep(chance.uniform(0.2, 3))
    lost = []
    if twice:
        await scene.changed("promoted first", lambda: promoter.fail_over(keep_spare=True))
        await asyncio.sleep(chance.uniform(0.2, 3))
        _, first, last = await _term(promoter.primary)
        lost.append((first - 1, last))
    dead = promoter.primary
    assert promoter.candidate is not None
    begin = time.monotonic_ns()
    await asyncio.to_thread(dead.kill)
    await asyncio.to_thread(promoter.candidate.kill)
    end = time.monotonic_ns()
    await asyncio.to_thread(promoter.spare.start)
    await scene.changed("lossy promotion", promoter.give_up)
    inherited, first, _ = await _term(promoter.primary)
    lost.insert(0, (inherited, first - 1))
    scene.referee.losses.append(Loss(since, begin, end, tuple(lost)))
    return dead


async def _term(server: Server) -> list[int]:
    told = await asyncio.to_thread(server.sql, _TERM)
    return [int(each) for each in told.split("|")]
