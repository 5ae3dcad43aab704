"""Every bug planted on purpose is found. A torture that finds none of them proves nothing.

Not among the tests that always run: a hunt is a matter of chance and of an idle machine. Run it with
``scripts/test tests/faults/hunt_planted.py``.
"""

from __future__ import annotations

import pytest

from tests.faults import power_loss
from tests.faults.hunts import HUNTS
from tests.faults.planted import BUGS
from tests.faults.small import Hunt, hunt
from tests.model import RULES


def test_every_rule_has_its_bug_and_every_bug_its_hunt() -> None:
    assert RULES.keys() <= HUNTS.keys()
    assert {*HUNTS, "synchronous-off"} == BUGS.keys()


@pytest.mark.parametrize("bug", HUNTS)
async def test_a_planted_bug_is_found(bug: str) -> None:
    assert await hunt(HUNTS[bug], seed=1, seconds=40.0, bug=bug)


@pytest.mark.parametrize("bug", ["synchronous-off", "early-acknowledgement"])
def test_a_planted_loss_is_found_when_the_power_goes(bug: str) -> None:
    _, lost = power_loss.run(seed=1, count=100, rounds=30, processes=1, bug=bug)
    assert lost


@pytest.mark.parametrize(
    "plan",
    [
        Hunt(["net-refuse", "cache-poison"], ["odd", "committed", "selected"]),
        Hunt(["cache-resurrect"], ["locked", "unlocked"], restarts=True),
        Hunt(["net-cut-everywhere"]),
    ],
    ids=["poison", "restarts", "cuts"],
)
async def test_without_a_bug_nothing_is_found(plan: Hunt) -> None:
    assert await hunt(plan, seed=1, seconds=3.0, bug=None) == []
