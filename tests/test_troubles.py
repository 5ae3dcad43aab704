"""Troubles are logged once when they begin and once when they end."""

from __future__ import annotations

import pytest

from tenantbase.troubles import QUIET_SECONDS, Trouble, Troubles


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_line_when_it_begins_and_one_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    troubles = Troubles(clock)
    quiet = QUIET_SECONDS[Trouble.DISK_FULL]
    for _ in range(100):
        clock.now += quiet / 2
        troubles.met(Trouble.DISK_FULL, "no room")
        assert troubles.lasting == ["disk full"]
    clock.now += quiet / 2
    assert troubles.lasting == ["disk full"], "it was met a moment ago"
    assert troubles.next_look() == quiet / 2
    clock.now += quiet / 2
    assert troubles.lasting == []
    assert troubles.next_look() is None
    told = ["disk full: no room", "disk full: over; it was met 100 times in 495 s"]
    assert [record.getMessage() for record in caplog.records] == told
    troubles.met(Trouble.DISK_FULL, "again")
    assert [record.getMessage() for record in caplog.records] == [*told, "disk full: again"]


def test_a_trouble_with_an_explicit_end_does_not_time_out() -> None:
    clock = Clock()
    troubles = Troubles(clock)
    troubles.met(Trouble.READS_HANG, "a read does not return")
    clock.now += 1e6
    assert troubles.lasting == ["reads hang"]
    assert troubles.next_look() is None
    troubles.over(Trouble.READS_HANG)
    assert troubles.lasting == []
