"""Percentiles, and the event loop's lag."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from time import monotonic_ns

import pytest

from tenantbase.figures import (
    ALL_REQUESTS,
    BEAT_DUE,
    ERRORS,
    FINE_BOUNDS,
    FIRST_REQUEST_CELL,
    LAG,
    PID,
    REQUEST_BOUNDS,
    SECOND,
)
from tenantbase.metrics import pulse as pulse_module
from tenantbase.metrics.board import Board
from tenantbase.metrics.pulse import Pulse, beating, lag, percentile
from tests.servers import poll_async


def counts(seconds: list[float]) -> list[int]:
    found = [0] * (len(FINE_BOUNDS) + 1)
    for each in seconds:
        found[bisect_left(FINE_BOUNDS, int(each * SECOND))] += 1
    return found


@pytest.mark.parametrize(
    ("seconds", "p50", "p99"),
    [
        ([0.003] * 10, 0.003, 0.003),
        ([0.0002] * 50 + [0.2] * 50, 0.0002, 0.2),
        ([0.001 * n for n in range(1, 101)], 0.050, 0.099),
        ([0.001] * 99 + [5.0], 0.001, 0.001),
        ([100.0], 30.0, 30.0),  # above all bounds
        ([0.0], 0.00005, 0.0001),
    ],
)
def test_percentiles_are_15_percent_off_at_most(
    seconds: list[float], p50: float, p99: float
) -> None:
    found = counts(seconds)
    assert percentile(found, 0.5) == pytest.approx(p50, rel=0.15)
    assert percentile(found, 0.99) == pytest.approx(p99, rel=0.15)


def test_without_requests_there_is_no_percentile() -> None:
    assert percentile(counts([]), 0.5) is None


def test_the_fine_bounds_include_those_of_the_histogram() -> None:
    assert set(REQUEST_BOUNDS) <= set(FINE_BOUNDS) and sorted(FINE_BOUNDS) == [*FINE_BOUNDS]
    assert all(high / low < 1.15 for low, high in zip(FINE_BOUNDS, FINE_BOUNDS[1:], strict=False))


async def test_recent_figures_are_those_of_all_workers_since_the_first_look() -> None:
    board = Board(2, FIRST_REQUEST_CELL)
    board.cells(1)[ALL_REQUESTS.first + 5] = board.cells(1)[ERRORS] = 1_000  # long ago
    with beating(Pulse(board, board.cells(0), lambda: None)) as pulse:
        assert pulse.recent().p50 is None and pulse.recent().per_second == 0
        for slot in (0, 1):
            board.cells(slot)[ALL_REQUESTS.first + bisect_left(FINE_BOUNDS, 3_000_000)] += 5
            board.cells(slot)[ERRORS] += 1
        recent = pulse.recent()
    assert recent.p50 == pytest.approx(0.003, rel=0.15)
    assert recent.per_second == pytest.approx(5 * recent.errors_per_second)
    assert recent.per_second > 0


async def test_requests_leave_the_recent_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse_module, "_BEAT_SECONDS", 0.001)
    board = Board(1, FIRST_REQUEST_CELL)
    cells = board.cells(0)
    with beating(Pulse(board, cells, lambda: None)) as pulse:
        cells[ALL_REQUESTS.first] += 1
        assert pulse.recent().per_second > 0
        await poll_async(lambda: pulse.recent().per_second == 0, "the window has moved on")


async def test_a_delay_is_forgotten_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse_module, "_LAG_NANOSECONDS", SECOND // 100)
    board = Board(1, FIRST_REQUEST_CELL)
    board.cells(0)[LAG] = 1_000 * SECOND
    with beating(Pulse(board, board.cells(0), lambda: None)):
        assert lag(board) >= 1_000
        await poll_async(lambda: lag(board) < 1_000, "it has passed")


async def test_a_pulse_that_was_stopped_is_never_late() -> None:
    board = Board(1, FIRST_REQUEST_CELL)
    with beating(Pulse(board, board.cells(0), lambda: None)):
        assert board.of_each(BEAT_DUE) != [0]
    assert board.of_each(BEAT_DUE) == [0]


async def test_a_blocked_event_loop_is_seen_by_all_and_remembered() -> None:
    board = Board(2, FIRST_REQUEST_CELL)
    # Another worker hangs: its beat is two seconds late.
    other = board.cells(1)
    other[PID], other[BEAT_DUE] = 1, monotonic_ns() - 2 * SECOND
    with beating(Pulse(board, board.cells(0), lambda: True)):
        assert lag(board) >= 2
        other[BEAT_DUE] = 0
        assert lag(board) < 2
        await asyncio.sleep(0)
        time.sleep(0.4)
        await poll_async(lambda: lag(board) >= 0.3, "the delay is noted")
        await asyncio.sleep(0.3)
        assert lag(board) >= 0.3
