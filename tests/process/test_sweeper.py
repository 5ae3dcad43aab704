"""The sweeper continues after errors, and ends when told to."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tenantbase.errors import Overloaded, StoreUnavailable
from tenantbase.process import sweeper
from tenantbase.process.sweeper import sweeping


class FakeCache:
    """Has a number of batches to sweep. Each call fails with the next error, or
    succeeds if that is None."""

    def __init__(self, batches: int, *failures: Exception | None) -> None:
        self.batches = batches
        self.calls = 0
        self.done = asyncio.Event()
        self._failures = list(failures)

    async def sweep(self) -> bool:
        self.calls += 1
        if self._failures and (failure := self._failures.pop(0)) is not None:
            raise failure
        self.batches = max(self.batches - 1, 0)
        if not self.batches:
            self.done.set()
        return self.batches > 0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "_INTERVAL_SECONDS", 0.01)


async def test_it_continues_while_there_is_more(monkeypatch: pytest.MonkeyPatch) -> None:
    class Long(FakeCache):
        async def sweep(self) -> bool:
            monkeypatch.setattr(sweeper, "_INTERVAL_SECONDS", 3_600.0)  # since the first batch
            return await super().sweep()

    cache = Long(20)
    async with sweeping(cache):
        await asyncio.wait_for(cache.done.wait(), 20)
    assert cache.calls == 20


async def test_it_survives_errors_and_logs_them_once(caplog: pytest.LogCaptureFixture) -> None:
    trouble = [StoreUnavailable("away"), Overloaded("busy"), StoreUnavailable("away")]
    cache = FakeCache(1, *trouble)
    with caplog.at_level(logging.WARNING):
        async with sweeping(cache):
            await asyncio.wait_for(cache.done.wait(), 10)
    assert cache.calls >= 4
    assert [message.partition(" in ")[0] for message in caplog.messages] == [
        "cannot remove expired entries: away",
        "expired entries are removed again; the trouble was met 3 times",
    ]


async def test_recurring_trouble_is_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    cache = FakeCache(2, StoreUnavailable("away"), None, StoreUnavailable("away"))
    with caplog.at_level(logging.WARNING):
        async with sweeping(cache):
            await asyncio.wait_for(cache.done.wait(), 10)
    assert [message.partition(" in ")[0] for message in caplog.messages] == [
        "cannot remove expired entries: away",
        "expired entries are removed again; the trouble was met once",
    ] * 2


async def test_after_trouble_it_waits_as_if_there_were_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There may be more work, but without a pause the error would recur at once."""
    monkeypatch.setattr(sweeper, "_BATCH_PAUSE_SECONDS", 3_600.0)
    cache = FakeCache(1, StoreUnavailable("away"), Overloaded("busy"))
    async with sweeping(cache):
        await asyncio.wait_for(cache.done.wait(), 10)
    assert cache.calls == 3


async def test_it_ends_in_the_middle_of_a_sweep() -> None:
    begun, never = asyncio.Event(), asyncio.Event()

    class Hanging(FakeCache):
        async def sweep(self) -> bool:
            begun.set()
            await never.wait()
            return True

    async with asyncio.timeout(10):
        async with sweeping(Hanging(1)):
            await begun.wait()
