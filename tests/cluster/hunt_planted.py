"""Random faults find most planted bugs, without a schedule made for them.

Not part of the regular tests, because a hunt needs luck and an idle machine. Run it with
``scripts/test tests/cluster/hunt_planted.py``. ``test_planted.py`` stages the races of the others.
"""

from __future__ import annotations

import pytest

from tests.cluster import run_torture
from tests.cluster.faults import LANES
from tests.cluster.hunts import HUNTS
from tests.faults.schedule import drawn

_SECONDS = 60.0

pytestmark = [pytest.mark.torture, pytest.mark.timeout(6 * _SECONDS)]


@pytest.mark.parametrize("bug", HUNTS)
def test_a_planted_bug_is_found(bug: str) -> None:
    events = drawn(1, _SECONDS, HUNTS[bug], 5.0, LANES)
    result = run_torture.run(run_torture.Plan(1, _SECONDS, events, nodes=2, bug=bug))
    assert result.referee.violations or result.referee.lost
