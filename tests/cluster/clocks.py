"""Faults of clocks: each PostgreSQL server and each node gets a wrong time of its own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Final

from tests.cluster.clock import Clock
from tests.cluster.scene import Scene

_SERVER_SECONDS: Final = 20.0
_NODE_SECONDS: Final = 1e6
_NOTICED_SECONDS: Final = 2.0  # within this time, processes look at their clock again


@asynccontextmanager
async def servers_moved(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Only expiry depends on these clocks."""
    clocks = [server.clock for server in scene.cluster.remote]
    offsets = [chance.uniform(-_SERVER_SECONDS, _SERVER_SECONDS) for _ in clocks]
    # Replication may be interrupted: PostgreSQL measures its timeouts with them.
    with scene.referee.wrong_clocks():
        with scene.excuses.everything(), _moved(clocks, offsets):
            yield
            await asyncio.sleep(_NOTICED_SECONDS)
        # The database's time never goes back: it stands still until the clocks are right.
        await asyncio.sleep(max(0.0, *offsets) + _NOTICED_SECONDS)


@asynccontextmanager
async def nodes_moved(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Nothing depends on the nodes' clocks."""
    clocks = [member.clock for member in scene.cluster.members if member.clock is not None]
    with _moved(clocks, [chance.uniform(-_NODE_SECONDS, _NODE_SECONDS) for _ in clocks]):
        yield


def _moved(clocks: Sequence[Clock], offsets: Sequence[float]) -> ExitStack:
    stack = ExitStack()
    for clock, seconds in zip(clocks, offsets, strict=True):
        stack.callback(clock.move, 0.0)
        clock.move(seconds)
    return stack
