"""For each planted bug, the schedule that exposes it. Without a bug, schedules are harmless."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from tests.faults.staged import Stage
from tests.servers import poll_async


async def _read_elsewhere_before_the_sequence_is_even(stage: Stage) -> None:
    await stage.set(stage.near, "old")
    async with stage.held_at("committed", stage.set(stage.near, "new")):
        await stage.get(stage.far)
        await stage.get(stage.near)


async def _fill_before_the_commit(stage: Stage) -> None:
    await stage.set(stage.near, "old")
    async with stage.held_at("odd", stage.set(stage.far, "new")):
        await stage.get(stage.near)
    await stage.get(stage.near)


async def _second_writer_before_the_first_is_done(stage: Stage) -> None:
    async with stage.held_at("committed", stage.set(stage.near, "old")) as first_goes_on:
        second = asyncio.create_task(stage.set(stage.far, "new"))
        # The second writer reaches its own COMMIT, unless the lock keeps it from beginning.
        gate = stage.gates.close("odd")
        with suppress(AssertionError):
            await poll_async(gate.reached.is_set, "it reaches it", 2.0)
        await first_goes_on()
        await stage.get(stage.near)
        gate.opened.set()
        await second
    await stage.get(stage.near)


async def _fill_while_odd(stage: Stage) -> None:
    await stage.set(stage.near, "old")
    async with stage.held_at("odd", stage.set(stage.far, "new")) as goes_on:
        await stage.get(stage.near)
        gate = stage.gates.close("committed")
        writing = asyncio.ensure_future(goes_on())
        while not gate.reached.is_set():
            await asyncio.sleep(0.001)
        await stage.get(stage.far)
        await stage.get(stage.near)
        gate.opened.set()
        await writing


async def _written_elsewhere(stage: Stage) -> None:
    await stage.set(stage.near, "old")
    await stage.get(stage.near)
    await stage.set(stage.far, "new")
    await stage.get(stage.near)


async def _commit_between_select_and_fill(stage: Stage) -> None:
    await stage.set(stage.far, "old")
    async with stage.held_at("selected", stage.get(stage.near)):
        await stage.set(stage.far, "new")
    await stage.get(stage.near)


async def _all_restarted_and_old_items_back(stage: Stage) -> None:
    await stage.set(stage.near, "old")
    item = await stage.item()
    await stage.close()
    await stage.open()
    await stage.set(stage.far, "new")
    await stage.put(item)
    await stage.get(stage.near)


async def _group_of_two(stage: Stage) -> None:
    async with stage.held_at("locked", stage.set(stage.near, "0", "r0/1")):
        # Both writes wait for the same next commit.
        group = [asyncio.create_task(stage.set(stage.near, value)) for value in ("old", "new")]
        await asyncio.sleep(0.05)
    await asyncio.gather(*group)
    await stage.get(stage.near)


async def _joined_after_a_write(stage: Stage) -> None:
    await stage.set(stage.far, "old")
    async with stage.held_at("selected", stage.get(stage.near)):
        await stage.set(stage.far, "new")
        late = asyncio.create_task(stage.get(stage.near))
        await stage.missed(stage.near, 2)
    await late


async def _overtaken_before_it_is_stored(stage: Stage) -> None:
    async with stage.held_at("unlocked", stage.set(stage.near, "old")):
        await stage.set(stage.far, "new")
    await stage.get(stage.near)


async def _damaged(stage: Stage) -> None:
    await stage.set(stage.near, "whole")
    name, item = await stage.item()
    await stage.put((name, item[:-1] + b"?"))
    await stage.get(stage.near)


async def _swapped(stage: Stage) -> None:
    await stage.set(stage.near, "one")
    await stage.set(stage.near, "other", "r0/1")
    _, item = await stage.item("r0/1")
    name, _ = await stage.item()
    await stage.put((name, item))
    await stage.get(stage.near)


async def _mortal(stage: Stage) -> None:
    await stage.set(stage.near, "mortal", "t0/0", expires_at=time.time() + 1000)
    await stage.get(stage.near, "t0/0")


async def _listed_after_a_write_elsewhere(stage: Stage) -> None:
    await stage.set(stage.near, "old")
    for _ in range(2):  # remembered from the second time on
        await stage.list(stage.near)
    await stage.set(stage.far, "new")
    await stage.list(stage.near)


async def _commit_between_page_and_memory(stage: Stage) -> None:
    await stage.set(stage.far, "old")
    await stage.list(stage.near)
    async with stage.held_at("listed", stage.list(stage.near)):
        await stage.set(stage.far, "new")
    await stage.list(stage.near)


async def _read_elsewhere_at_once(stage: Stage) -> None:
    await stage.set(stage.near, "old")
    await stage.get(stage.far)


SCHEDULES: Final[dict[str, Callable[[Stage], Awaitable[None]]]] = {
    "odd-before-commit": _read_elsewhere_before_the_sequence_is_even,
    "even-after-commit": _fill_before_the_commit,
    "one-lock": _second_writer_before_the_first_is_done,
    "skip-when-odd": _fill_while_odd,
    "compare": _written_elsewhere,
    "fresh-sequence": _written_elsewhere,
    "load-before-select": _commit_between_select_and_fill,
    "new-epoch": _all_restarted_and_old_items_back,
    "last-of-group": _group_of_two,
    "join-same-tag": _joined_after_a_write,
    "own-tag": _overtaken_before_it_is_stored,
    "checked-mac": _damaged,
    "own-key": _swapped,
    "own-expiry": _mortal,
    "forget-pages": _listed_after_a_write_elsewhere,
    "version-before-page": _commit_between_page_and_memory,
    "early-acknowledgement": _read_elsewhere_at_once,
}
