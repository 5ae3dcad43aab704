"""Figures of several workers: what is counted where, and what outlives whom."""

from __future__ import annotations

import os
import signal

from tenantbase.figures import COMMITS, CONNECTIONS, FIRST_REQUEST_CELL, HITS, PID
from tenantbase.metrics.board import Board


def counted_in_child(board: Board, slot: int) -> int:
    """Fork a worker that counts and is killed. Returns: its process."""
    pid = os.fork()
    if pid == 0:
        cells = board.cells(slot)
        cells[PID] = os.getpid()
        cells[HITS] += 3
        cells[CONNECTIONS] = 7
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    return pid


def test_counters_outlive_a_killed_worker_and_gauges_do_not() -> None:
    board = Board(2, FIRST_REQUEST_CELL)
    own = board.take()
    board.cells(own)[HITS] += 2
    board.cells(own)[PID] = os.getpid()
    slot = board.take()
    assert slot != own
    pid = counted_in_child(board, slot)
    total = board.total()
    assert (total[HITS], total[CONNECTIONS], total[COMMITS]) == (5, 7, 0)
    assert board.of_each(PID) == [os.getpid(), pid]
    board.give_back(slot, 1.5, restarts=True)
    total = board.total()
    assert (total[HITS], total[CONNECTIONS]) == (5, 0)
    assert board.of_each(PID) == [os.getpid()]
    assert (board.restarts, board.ended_cpu) == (1, 1.5)
    # Its successor goes on in the same place.
    assert board.take() == slot
    counted_in_child(board, slot)
    assert board.total(HITS, HITS + 1) == [8]


def test_a_worker_that_overlaps_its_predecessor_has_a_slot_of_its_own() -> None:
    board = Board(3, FIRST_REQUEST_CELL)
    assert [board.take() for _ in range(3)] == [0, 1, 2]
    board.give_back(1)
    assert board.take() == 1
