"""The schedule of faults: the seed determines it, and a long run has every fault."""

from __future__ import annotations

from collections import Counter

from tests.faults.faults import LANES
from tests.faults.schedule import drawn
from tests.faults.vitals import REST

ALL = [f"{lane}-" for lane in LANES]


def test_the_same_seed_gives_the_same_schedule() -> None:
    assert drawn(7, 600, ALL, 30) == drawn(7, 600, ALL, 30)
    assert drawn(7, 600, ALL, 30) != drawn(8, 600, ALL, 30)


def test_an_hour_has_every_fault_often_and_short_and_long() -> None:
    events = drawn(1, 3600, ALL, 30)
    times = Counter(event.fault for event in events)
    assert times.keys() == {fault for faults in LANES.values() for fault in faults}
    assert min(times.values()) >= 5
    lengths = [event.seconds for event in events if event.fault == "cache-stop"]
    assert min(lengths) < 1 and max(lengths) > 10


def test_a_run_ends_with_a_rest() -> None:
    assert max(event.at + event.seconds for event in drawn(1, 600, ALL, 30)) <= 600 - REST


def test_only_the_selected_faults() -> None:
    names = {event.fault for event in drawn(1, 600, ["net-", "cache-stop"], 30)}
    assert names == {*LANES["net"], "cache-stop"}
