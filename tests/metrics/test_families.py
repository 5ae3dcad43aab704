"""What a scrape shows of the processes, the troubles and the tenants."""

from __future__ import annotations

import math
import os
import resource
import subprocess
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tenantbase.access import Tenant, TenantLimits
from tenantbase.figures import FIRST_REQUEST_CELL, PID
from tenantbase.interfaces.store import StoreSize
from tenantbase.metrics.board import Board
from tenantbase.metrics.families import Scraped, exposition
from tenantbase.metrics.processes import usage
from tenantbase.troubles import Trouble

NOTHING = Scraped([], {}, True, StoreSize(0, 0, 0, 0, None), [], [])
Labels = tuple[tuple[str, str], ...]


def samples(board: Board, scraped: Scraped) -> dict[tuple[str, Labels], float]:
    """The value of each sample, by its name and labels."""
    text = exposition(board, board.total(), scraped).decode()
    return {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def board() -> Board:
    return Board(2, FIRST_REQUEST_CELL)


@pytest.fixture
def worker(board: Board) -> Iterator[int]:
    """A process in a worker's place."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        board.cells(0)[PID] = process.pid
        yield process.pid
        process.kill()


def test_processes_are_the_supervisor_and_its_workers(board: Board, worker: int) -> None:
    board.give_back(1, 1_000.0)  # processor time of a worker that has ended
    shown = samples(board, NOTHING)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = limit == resource.RLIM_INFINITY
    assert shown["process_max_fds", ()] == (math.inf if unlimited else 2 * limit)
    both = usage([os.getpid(), worker])
    assert both is not None
    assert shown["process_virtual_memory_bytes", ()] == pytest.approx(both.virtual, rel=0.2)
    assert 1_000 <= shown["process_cpu_seconds_total", ()] <= 1_000 + both.cpu


def test_only_the_troubles_that_there_are_are_shown_as_such(board: Board) -> None:
    for trouble in Trouble:
        shown = samples(board, NOTHING._replace(troubles=[trouble]))
        kinds = {
            labels[0][1]: value
            for (name, labels), value in shown.items()
            if name == "tenantbase_trouble"
        }
        assert kinds == {str(each): each is trouble for each in Trouble}


def test_a_limit_of_zero_is_a_limit(board: Board) -> None:
    tenants = [
        Tenant("none", 0, 0, TenantLimits()),
        Tenant("zero", 0, 0, TenantLimits(max_entries=0, max_bytes=0)),
    ]
    shown = samples(board, NOTHING._replace(tenants=tenants))
    for name in ("tenantbase_tenant_max_entries", "tenantbase_tenant_max_bytes"):
        assert shown[name, (("tenant", "zero"),)] == 0
        assert (name, (("tenant", "none"),)) not in shown
    assert shown["tenantbase_tenant_entries", (("tenant", "none"),)] == 0
