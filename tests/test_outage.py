"""Trouble that lasts has two lines in the log, however often it is met."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tenantbase.outage import Outage
from tests.servers import let_pass, poll_async

log = logging.getLogger("tests.outage")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message.partition(" in ")[0] for message in caplog.messages]


def test_one_line_when_it_begins_and_one_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(log, "it works again")
    outage.over()
    for round_number in (1, 2):
        for number in range(100):
            outage.met("it fails: %d", number)
        assert len(caplog.messages) == 2 * round_number - 1
        outage.over()
        outage.over()
    assert told(caplog) == ["it fails: 0", "it works again; the trouble was met 100 times"] * 2


async def test_it_ends_when_it_was_not_met_for_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr("tenantbase.outage.monotonic", lambda: now)
    outage = Outage(log, "it works again", quiet_seconds=3_600)
    outage.met("it fails")
    now += 3_000
    outage.met("it fails")
    let_pass(3_000 + 700)
    now += 700
    await asyncio.sleep(0.01)  # its first timer has run
    assert told(caplog) == ["it fails"], "it was met 700 s ago"
    now += 3_000
    let_pass(3_000)
    await poll_async(lambda: len(caplog.messages) == 2, "it is over")
    assert caplog.messages[1] == "it works again; the trouble was met 2 times in 3000 s"


def test_what_is_seen_to_end_lasts_until_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr("tenantbase.outage.monotonic", lambda: now)
    outage = Outage(log, "it works again")
    for seconds in (11.0, 0.4):
        outage.met("it fails")
        outage.met("it fails")
        now += seconds
        outage.over()
    assert [message.partition("times in ")[2] for message in caplog.messages[1::2]] == [
        "11 s",
        "less than 1 s",
    ]
