"""A short torture test of a cluster, and its report of a planted bug."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.cluster import run_torture
from tests.cluster.faults import LANES
from tests.cluster.hunts import HUNTS
from tests.cluster.planted import BUGS
from tests.cluster.schedules import SCHEDULES
from tests.cluster_model.state import RULES
from tests.faults.schedule import Event, drawn

# What a single node cannot break: they are rules for the operator, or need a lossy promotion.
_NOT_OF_A_NODE = {"one-candidate", "standby-behind", "term-items", "term-table"}
# The product has one place for both steps, so that a bug cannot swap them.
_NOT_SEPARABLE = {"fill-after-confirm", "publish-after-commit", "commit-order"}


def test_a_short_torture_finds_nothing() -> None:
    events = [
        Event(1.0, 0.5, "store-promote-twice", "1"),
        Event(1.5, 2.0, "cache-resurrect", "2"),
        Event(2.0, 1.0, "node-stop", "3"),
        Event(5.0, 1.0, "net-cut-everywhere", "4"),
        Event(7.0, 1.0, "store-stop-primary", "5"),
        Event(9.0, 1.0, "node-stop-at-step", "7"),
    ]
    result = run_torture.run(run_torture.Plan(seed=1, seconds=16.0, events=events, nodes=2))
    assert result.referee.violations == result.referee.lost == []
    assert result.broken == []
    assert len(result.referee.losses) == 1
    # Promises about time hold only on an idle machine.
    assert result.referee.checked > 100 and result.referee.kept > 5
    assert sum(result.faults.values()) > 2 and result.gaps


@pytest.mark.timeout(900)
def test_the_torture_reports_its_findings() -> None:
    for seconds in (10, 20, 40, 80):  # longer on a busy machine, until one is about a read
        command = [sys.executable, "-m", "tests.cluster.torture", "--seconds", f"{seconds}"]
        command += ["--nodes", "2", "--fault", "cache-resurrect", "--break", "compare"]
        done = subprocess.run(command, capture_output=True, text=True)
        if "FOUND: r" in done.stdout:
            break
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith(f"seed 1, {seconds} s, ")
    assert re.search("FOUND: r", done.stdout)
    assert done.stdout.endswith(" FOUND\n")


def test_a_short_torture_of_machines_finds_nothing() -> None:
    command = [sys.executable, "-m", "tests.cluster.torture", "--seconds", "15", "--nodes", "2"]
    for fault in ("store-split", "store-partition", "link-", "time-", "store-disk-full"):
        command += ["--fault", fault]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.startswith("seed 1, 15 s, "), done.stderr
    # Promises about time hold only on an idle machine.
    found = re.findall("^FOUND: (?!a request took long).*", done.stdout, re.MULTILINE)
    assert found == [], done.stdout
    assert re.search(r" 0 violations\n", done.stdout)


def test_every_rule_of_a_node_has_its_bug_and_every_bug_its_hunt_or_schedule() -> None:
    assert {*RULES} - _NOT_OF_A_NODE - _NOT_SEPARABLE <= BUGS.keys()
    assert sorted([*HUNTS, *SCHEDULES]) == sorted(BUGS)


@pytest.mark.parametrize("bug", HUNTS)
def test_the_faults_of_a_hunt_exist(bug: str) -> None:
    known = {fault for lane in LANES.values() for fault in lane}
    assert known.issuperset(HUNTS[bug])
    assert drawn(1, 30.0, HUNTS[bug], 5.0, LANES)
