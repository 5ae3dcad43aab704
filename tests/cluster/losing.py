"""Faults in which an operator gives up acknowledged writes, and declares them to the referee."""

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

# How many terms a server knows, and its position.
_STATE: Final = """
    SELECT (SELECT count(*) FROM tenantbase.terms), position FROM tenantbase.clock
"""
# The same, and the first position that its newest term has given, or would give next.
_TERM: Final = """
    SELECT (SELECT count(*) FROM tenantbase.terms), position, coalesce((
        SELECT min(changes.position) FROM tenantbase.changes WHERE changes.position > (
            SELECT inherited FROM tenantbase.terms ORDER BY number DESC LIMIT 1
        )
    ), position + 1) FROM tenantbase.clock
"""
_MORE: Final = 1 << 19
"""No server gives out this many positions between a question and its death."""
_OPENED_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 0.1


@asynccontextmanager
async def acknowledged_lost(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """The primary and its standby die, and a lagging asynchronous standby is promoted."""
    with scene.excuses.everything(), scene.referee.pending():
        await _lose(scene, chance, twice=False)
    yield


@asynccontextmanager
async def promoted_twice(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """The same, but after a failover that the asynchronous standby does not know of: two terms have the
    same timeline, and no positions in common. The first one's primary comes back."""
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
        terms, _ = await _ask(promoter.primary, _STATE)
        await scene.changed("promoted first", lambda: promoter.fail_over(keep_spare=True))
        await asyncio.sleep(chance.uniform(0.2, 3))
        known, last, first = await _ask(promoter.primary, _TERM)
        if known > terms:  # otherwise, no node has reached it
            lost.append((first - 1, last + _MORE))
    dead = promoter.primary
    assert promoter.candidate is not None
    begin = time.monotonic_ns()
    await asyncio.to_thread(dead.kill)
    await asyncio.to_thread(promoter.candidate.kill)
    end = time.monotonic_ns()
    await asyncio.to_thread(promoter.spare.start)
    terms, survived = await _ask(promoter.spare, _STATE)
    await scene.changed("lossy promotion", promoter.give_up)
    opened = time.monotonic() + _OPENED_SECONDS
    while (now := await _ask(promoter.primary, _TERM))[0] == terms:
        assert time.monotonic() < opened, "no node has opened the new primary"
        await asyncio.sleep(_LOOK_SECONDS)
    lost.insert(0, (survived, now[2] - 1))
    scene.referee.losses.append(Loss(since, begin, end, tuple(lost)))
    return dead


async def _ask(server: Server, question: str) -> list[int]:
    told = await asyncio.to_thread(server.sql, question)
    return [int(each) for each in told.split("|")]
