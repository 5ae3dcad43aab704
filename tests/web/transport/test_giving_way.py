"""Evicting bodies: only stalled ones are evicted."""

from __future__ import annotations

import asyncio

import pytest

from tenantbase.web.problems import OverLimit
from tenantbase.web.transport import budget as budget_module
from tenantbase.web.transport.budget import Budget, Holding


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_module, "STALLED_SECONDS", 0.05)


async def stall() -> None:
    await asyncio.sleep(0.1)


async def test_bodies_are_evicted_in_order_of_last_growth() -> None:
    budget = Budget(100)
    first, second, third = (Holding(budget) for _ in range(3))
    first.grow(50)
    second.grow(40)
    await stall()
    first.grow(10)
    third.grow(30)
    assert second.evicted and not first.evicted
    assert (first.size, second.size, third.size, budget.used) == (60, 0, 30, 90)


async def test_a_complete_body_is_not_evicted() -> None:
    budget = Budget(100)
    arrived, other = Holding(budget), Holding(budget)
    arrived.grow(100)
    arrived.arrived()
    await stall()
    with pytest.raises(OverLimit):
        other.grow(1)
    assert not arrived.evicted
    arrived.release()
    other.grow(100)


async def test_a_body_is_admitted_if_stalled_ones_can_be_evicted() -> None:
    budget = Budget(100)
    stalled, other = Holding(budget), Holding(budget)
    stalled.grow(80)
    await stall()
    other.begin(None, 100)
    other.grow(20)
    assert not stalled.evicted, "not before its room is needed"
    other.grow(80)
    assert stalled.evicted
    assert budget.used == other.size == 100


async def test_eviction_ends_a_bodys_arrival() -> None:
    budget = Budget(100)
    stalled, other = Holding(budget), Holding(budget)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(600) as arrival:
            stalled.begin(arrival, 100)
            stalled.grow(100)
            await stall()
            other.grow(1)
            await asyncio.sleep(600)
    assert stalled.evicted
