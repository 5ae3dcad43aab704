"""Faults that stop a node at the worst moments, for seconds to a minute."""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.cluster.cluster import Connected, write
from tests.cluster.scene import Scene
from tests.cluster.steps import STEPS

_REACHED_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.02
_PROVOKE_SECONDS: Final = 0.3
_LONGEST_SECONDS: Final = 60.0
_COMMITS: Final = 20
# Steps that are reached only after a session was lost.
_PROVOKED: Final = ("W7-", "J")
_POSITIONS: Final = "SELECT position, trimmed FROM tenantbase.clock"
_DISCONNECT: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE usename = 'tenantbase' AND random() < 0.3
"""


@asynccontextmanager
async def stopped_at_step(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """A node is stopped when it reaches a step of the protocol."""
    member, step = chance.choice(scene.cluster.members), chance.choice(STEPS)
    # It may hold the lock of all writes, and other nodes may be disconnected, too.
    with scene.away(member), scene.excuses.everything():
        member.control.arm(step, "stop")
        try:
            reached = await _reached(scene, member, step)
            for proxy in member.stores:
                await proxy.pass_through()
            scene.steps[step] += reached
            yield
        finally:
            member.control.disarm()
            await asyncio.to_thread(member.node.resume)


async def _reached(scene: Scene, member: Connected, step: str) -> bool:
    """Wait until the node has stopped. Returns: whether it has in time."""
    begin = time.monotonic()
    provoked = begin
    while not member.control.caught():
        now = time.monotonic()
        if now > begin + _REACHED_SECONDS:
            return False
        if step.startswith(_PROVOKED) and now > provoked + _PROVOKE_SECONDS:
            provoked = now
            for proxy in member.stores:
                proxy.cut_existing_after(0)
            if not member.stores:
                await _ask(scene, _DISCONNECT)
        await asyncio.sleep(_LOOK_SECONDS)
    return True


@asynccontextmanager
async def stopped_behind_the_log(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """A node is stopped until the log no longer has the commits after the last one it knows."""
    member = chance.choice(scene.cluster.members)
    with scene.away(member), scene.excuses.writes():
        await asyncio.to_thread(member.node.pause)
        try:
            stopped_at = await _ask(scene, _POSITIONS)
            yield
            others = [each for each in scene.cluster.members if each is not member]
            begin = time.monotonic()
            while time.monotonic() < begin + _LONGEST_SECONDS:
                # The clients soon wait for the stopped node, most of the time.
                for _ in range(_COMMITS):
                    await write(chance.choice(others))
                now = await _ask(scene, _POSITIONS)
                if stopped_at and now and now[1] > stopped_at[0]:
                    scene.steps["behind the log"] += 1
                    break
        finally:
            await asyncio.to_thread(member.node.resume)


async def _ask(scene: Scene, question: str) -> list[int]:
    """A row of the primary. Empty: it is away, or is being replaced."""
    try:
        told = await asyncio.to_thread(scene.cluster.promoter.primary.sql, question)
    except (OSError, subprocess.SubprocessError):
        return []
    return [int(each) for each in told.split("|") if each.isdigit()]
