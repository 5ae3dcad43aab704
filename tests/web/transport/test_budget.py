"""The memory budget for bodies: large bodies cannot keep small ones out."""

from __future__ import annotations

import asyncio

import pytest

from tenantbase.web.problems import OverLimit
from tenantbase.web.transport.budget import SMALL_BYTES, Budget, Holding

LARGE = 4 * SMALL_BYTES


async def test_large_bodies_leave_room_for_small_ones() -> None:
    budget = Budget(8 * SMALL_BYTES, reserved=2 * SMALL_BYTES)
    large = Holding(budget)
    large.begin(None, LARGE)
    large.grow(LARGE)
    other = Holding(budget)
    with pytest.raises(OverLimit):  # refused by its announced length
        other.begin(None, LARGE)
    other.begin(None, None)
    other.grow(2 * SMALL_BYTES)
    with pytest.raises(OverLimit):  # refused by the bytes that have arrived
        other.grow(1)
    small = [Holding(budget) for _ in range(2)]
    for each in small:
        each.begin(None, SMALL_BYTES)
        each.grow(SMALL_BYTES)
    assert budget.used == 8 * SMALL_BYTES
    with pytest.raises(OverLimit):
        Holding(budget).begin(None, 1)
    large.release()
    other.release()
    Holding(budget).begin(None, LARGE)


async def test_what_arrives_in_one_turn_is_bounded_by_the_room_that_is_left() -> None:
    budget = Budget(4 * LARGE)
    holding = Holding(budget)
    holding.begin(None, LARGE)
    assert budget.receive(LARGE)
    assert budget.receive(3 * LARGE) and not budget.receive(1)
    await asyncio.sleep(0)
    holding.grow(LARGE)  # as the request does in its next turn
    assert budget.receive(3 * LARGE) and not budget.receive(1)
    holding.release()
    await asyncio.sleep(0)
    assert budget.receive(4 * LARGE)
