"""A page that stays open while keys change: its memory must not grow."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import CDPSession, expect

from tests.app_server import AppServer
from tests.console.browser import Console
from tests.console.entries import row

pytestmark = pytest.mark.integration

KEYS = 500
ROUNDS = 16  # of KEYS changes each, and as many again that make and delete keys
MIB = 1 << 20
# The design allows 10 MiB in an hour of 50 changes a second. This is a fraction of it.
MAX_GROWTH_BYTES = 3 * MIB


def write(service: AppServer, kind: str, number: int) -> None:
    values = [{"key": f"{kind}/{i:04}", "value": [number] * 20} for i in range(KEYS)]
    body = json.dumps({"values": values}).encode()
    assert service.ask("POST", "/set-values", body).status == 200


def used(session: CDPSession) -> dict[str, Any]:
    """Bytes of the heap, and counts of nodes and listeners, without what nothing refers to."""
    for _ in range(2):
        session.send("HeapProfiler.collectGarbage")
    heap = session.send("Runtime.getHeapUsage")["usedSize"]
    return {"heap": heap, **session.send("Memory.getDOMCounters")}


def test_memory_does_not_grow_with_changes(
    service: AppServer, console: Callable[..., Console]
) -> None:
    write(service, "hour/kept", 0)
    page = console().open("#/t/default/p/hour%2F?all=1")
    row(page, "kept/0000").wait_for()
    row(page, "kept/0000").click()
    page.get_by_role("button", name="Show value").click()
    value = page.get_by_role("region", name="Value of hour/kept/0000")
    session = page.context.new_cdp_session(page)

    def rounds(first: int, last: int) -> None:
        for number in range(first, last):
            write(service, "hour/made", number)
            write(service, "hour/kept", number)
            body = b'{"prefix": "hour/made/"}'
            assert service.ask("POST", "/delete-values", body).status == 200
            # The page keeps up: it shows what was stored last.
            expect(value).to_contain_text(f"{number},")

    def settled() -> dict[str, Any]:
        # Counted again, without those that were deleted, and no change is marked any more.
        expect(page.get_by_text(re.compile(f" of {KEYS}$"))).to_be_visible()
        expect(page.locator("[data-live]")).to_have_count(0)
        return used(session)

    rounds(1, 4)  # compiled, cached and allocated are once
    before = settled()
    rounds(4, 4 + ROUNDS)
    after = settled()
    assert after["heap"] - before["heap"] < MAX_GROWTH_BYTES, (before, after)
    for each in ("nodes", "jsEventListeners"):
        assert after[each] < 1.2 * before[each] + 100, (before, after)
