"""Planted bugs are found by the schedules that are made for them.

``hunt_planted.py`` lets the torture test find the others by chance.
"""

from __future__ import annotations

import pytest

from tests.cluster.schedules import SCHEDULES
from tests.cluster.staged import staged
from tests.faults.referee import check_history

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("bug", SCHEDULES)
async def test_a_planted_bug_is_found(bug: str) -> None:
    schedule = SCHEDULES[bug]
    async with staged(bug, schedule.mode) as stage:
        await schedule.play(stage)
    assert check_history(stage.history, clocks_jump=False)


@pytest.mark.parametrize("bug", SCHEDULES)
async def test_without_the_bug_nothing_is_found(bug: str) -> None:
    schedule = SCHEDULES[bug]
    async with staged(None, schedule.mode) as stage:
        await schedule.play(stage)
    assert check_history(stage.history, clocks_jump=False) == []
