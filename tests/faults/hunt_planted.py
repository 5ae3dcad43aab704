"""Random faults find every planted bug, too, without a schedule made for it.

Not part of the regular tests, because a hunt needs luck and an idle machine. Run it with
``scripts/test tests/faults/hunt_planted.py``. ``test_planted.py`` stages the races instead.
"""

from __future__ import annotations

import pytest

from tests.faults.hunts import HUNTS
from tests.faults.small import hunt


@pytest.mark.parametrize("bug", HUNTS)
async def test_a_planted_bug_is_found(bug: str) -> None:
    assert await hunt(HUNTS[bug], seed=1, seconds=40.0, bug=bug)
