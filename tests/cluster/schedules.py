"""For planted bugs that random faults seldom expose, the schedules that do.

Without a bug, schedules are harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from tenantbase.interfaces.postgres.confirmation import Confirm
from tests.cluster.staged import Stage
from tests.servers import poll_async


class Schedule(NamedTuple):
    """What happens, and how the nodes confirm answers meanwhile."""

    play: Callable[[Stage], Awaitable[None]]
    mode: Confirm


async def _read_during_a_question(stage: Stage) -> None:
    await stage.set(stage.near, "old")
    await stage.get_cached()
    first, gate = await stage.held_at("asked", stage.get(stage.near))
    await stage.set(stage.far, "new")
    asked = stage.questions
    second = asyncio.create_task(stage.get(stage.near))
    await poll_async(lambda: stage.questions > asked, "the second read asks")
    gate.opened.set()
    await asyncio.gather(first, second)


async def _hit_by_the_word_of_a_deposed_primary(stage: Stage) -> None:
    await stage.set(stage.near, "old")
    await stage.get_cached()
    stage.promote()
    await stage.set(await stage.node(), "new")
    await stage.get(stage.near)


async def _row_that_the_standby_lacks(stage: Stage) -> None:
    await stage.set(stage.near, "old")
    reading, gate = await stage.held_at("reading", stage.get(stage.far))
    stage.standby.kill()
    writing = asyncio.create_task(stage.set(stage.near, "new"))
    await stage.cancel_wait("commit_group")
    gate.opened.set()
    await poll_async(
        lambda: reading.done() or stage.waits_for_standby("entries.key"),
        "the row was returned, or waits for the standby",
    )
    stage.fail_over()
    await asyncio.gather(reading, writing)
    await stage.get(stage.far)


async def _commit_that_arrives_late(stage: Stage) -> None:
    await stage.set(stage.near, "old")
    writing, commit = await stage.cut_off_commit(stage.set(stage.near, "new"))
    await writing
    await stage.deliver(commit)
    await stage.get(stage.far)


async def _outcome_that_the_standby_lacks(stage: Stage) -> None:
    await stage.set(stage.near, "old")
    marking = stage.close_gate("marking")
    writing, commit = await stage.cut_off_commit(stage.set(stage.near, "new"))
    await marking.reach()  # the node has joined again
    stage.standby.kill()
    delivering = asyncio.create_task(stage.deliver(commit))
    await stage.cancel_wait("commit_group")
    await delivering
    marking.opened.set()
    await poll_async(
        lambda: writing.done() or stage.waits_for_standby("token"),
        "the outcome was told, or waits for the standby",
    )
    stage.fail_over()
    await writing
    await stage.get(stage.far)


SCHEDULES: Final = {
    "ask-after-begin": Schedule(_read_during_a_question, Confirm.STANDBY),
    "confirm-index": Schedule(_hit_by_the_word_of_a_deposed_primary, Confirm.STANDBY),
    "confirm-row": Schedule(_row_that_the_standby_lacks, Confirm.COMMIT),
    "token": Schedule(_commit_that_arrives_late, Confirm.STANDBY),
    "outcome-confirmed": Schedule(_outcome_that_the_standby_lacks, Confirm.COMMIT),
}
