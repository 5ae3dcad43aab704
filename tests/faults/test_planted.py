"""Every planted bug is found by the schedule that is made for it.

``hunt_planted.py`` lets the torture test find them by chance, which takes longer.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.faults import power_loss, run
from tests.faults.cluster import Cluster
from tests.faults.hunts import HUNTS
from tests.faults.planted import BUGS
from tests.faults.referee import check_history
from tests.faults.schedule import Event
from tests.faults.schedules import SCHEDULES
from tests.faults.staged import staged
from tests.model import RULES

# Tested below, and in test_doubt.py, because they need a failing disk.
OF_DISKS = {"synchronous-off", "deaf-to-sync-errors", "doubt-stays-odd"}


def test_every_rule_has_its_bug_and_every_bug_its_schedule() -> None:
    assert RULES.keys() <= BUGS.keys()
    assert SCHEDULES.keys() == HUNTS.keys()
    assert {*SCHEDULES, *OF_DISKS} == BUGS.keys()


@pytest.mark.parametrize("bug", SCHEDULES)
async def test_a_planted_bug_is_found(tmp_path: Path, bug: str) -> None:
    async with staged(tmp_path, bug) as stage:
        await SCHEDULES[bug](stage)
    assert check_history(stage.history, clocks_jump=False)


@pytest.mark.parametrize("bug", SCHEDULES)
async def test_without_the_bug_nothing_is_found(tmp_path: Path, bug: str) -> None:
    async with staged(tmp_path, None) as stage:
        await SCHEDULES[bug](stage)
    assert check_history(stage.history, clocks_jump=False) == []


@pytest.mark.parametrize("bug", ["synchronous-off", "early-acknowledgement"])
def test_a_planted_durability_bug_is_found_by_a_power_loss(bug: str) -> None:
    _, lost = power_loss.run(seed=1, count=100, rounds=30, processes=1, bug=bug)
    assert lost


def test_the_torture_sees_a_failed_sync_and_its_report() -> None:
    events = [Event(0.2, 0.1, "disk-sync-fails", "seed")]
    result = run.run(run.Plan(seed=1, seconds=3.0, events=events, workers=1))
    assert result.done == ["fsync failed: True"]
    assert not result.broken and not result.violations


@pytest.mark.parametrize("bug", [None, "deaf-to-sync-errors"])
async def test_a_write_acknowledged_after_a_failed_sync_is_found(
    tmp_path: Path, bug: str | None
) -> None:
    # The torture test is no use here: the failing sync may be that of the sweeper's commit, which
    # no client misses. In this test nothing expires, so every sync belongs to a client's write.
    async with Cluster(tmp_path, servers=1, workers=1, bug=bug) as cluster:
        (healthy,) = cluster.servers
        fault = "fdatasync,fsync:error=EIO:when=4"
        server = cluster.server(cluster.memcached.address, injected=fault)
        try:
            await asyncio.to_thread(server.start)
            statuses = {}
            for number in range(8):
                body = b'{"key": "k%d", "value": 1}' % number
                answer = await asyncio.to_thread(server.ask, "POST", "/set-value", body)
                statuses[f"k{number}"] = answer.status
        finally:
            await asyncio.to_thread(server.close)
        cluster.memcached.flush()  # this read may return the lost write
        keys = json.dumps({"keys": list(statuses)}).encode()
        found = await asyncio.to_thread(healthy.ask, "POST", "/get-values", keys)
        acknowledged = {key for key, status in statuses.items() if status == 200}
        assert bool(acknowledged & set(found.json["missing"])) is bool(bug)
        assert (len(acknowledged) == len(statuses)) is bool(bug)
