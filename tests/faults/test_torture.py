"""A short torture test with real processes and mixed faults, and its report of a planted bug."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from tests.faults import run, stalls, vitals
from tests.faults.cluster import Cluster
from tests.faults.excuses import GRACE, Excuses
from tests.faults.faults import LANES
from tests.faults.history import Operation
from tests.faults.judge import Judge
from tests.faults.schedule import drawn
from tests.faults.small import Hunt, hunt
from tests.servers import poll

BUSY = pytest.mark.timeout(900)  # on a busy machine, a run is repeated for longer


@BUSY
def test_a_short_torture_finds_nothing() -> None:
    events = drawn(1, 15.0, [f"{lane}-" for lane in LANES], 2.0)

    def enough(result: run.Result) -> bool:
        return result.checked > 500 and result.kept > 10 and sum(result.faults.values()) > 5

    result = run.run_enough(run.Plan(seed=1, seconds=15.0, events=events), enough)
    assert result.violations == result.lost == []
    assert result.broken == []
    # Promises about time hold only on an idle machine.
    assert enough(result)


@BUSY
def test_a_short_torture_of_a_ring_finds_nothing() -> None:
    events = drawn(2, 8.0, ["cache-", "net-"], 2.0)

    def enough(result: run.Result) -> bool:
        return result.judge.sources["HIT"] > 20 and bool(result.faults)

    result = run.run_enough(run.Plan(seed=2, seconds=8.0, events=events, memcacheds=3), enough)
    assert result.violations == result.lost == result.broken == []
    assert enough(result)


@pytest.mark.parametrize(
    "plan",
    [
        Hunt(["net-refuse", "cache-poison"], ["odd", "committed", "selected"]),
        Hunt(["cache-resurrect"], ["locked", "unlocked"], restarts=True),
        Hunt(["net-cut-everywhere"]),
    ],
    ids=["poison", "restarts", "cuts"],
)
async def test_the_small_torture_finds_nothing_either(plan: Hunt) -> None:
    assert await hunt(plan, seed=1, seconds=2.5, bug=None) == []


@BUSY
def test_the_torture_reports_its_findings() -> None:
    for seconds in (8, 16, 32, 64):  # longer on a busy machine, until one is about a version
        command = [sys.executable, "-m", "tests.faults.torture", "--seconds", f"{seconds}"]
        command += ["--seed", "5", "--fault", "net-refuse", "--images", "0", "--break", "compare"]
        done = subprocess.run(command, capture_output=True, text=True)
        if "a newer version was seen" in done.stdout:
            break
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith(f"seed 5, {seconds} s, ")
    assert re.search("FOUND: (default|second): r", done.stdout)
    assert "a newer version was seen" in done.stdout
    assert done.stdout.endswith(" FOUND\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_torture_leaves_nothing_behind(
    short_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "tests.faults.torture", "--fault", "process-stop"]
    environment = os.environ | {"TMPDIR": str(short_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as torture:
        assert torture.stdout is not None
        assert any("process-stop for" in line for line in torture.stdout)
        assert _mentioning(short_path), "servers run"
        torture.send_signal(number)
        assert torture.wait(90) == 128 + number
    # A killed process may take a moment to end, and its guard to remove its files.
    poll(lambda: _mentioning(short_path) == [], "nothing runs")
    poll(lambda: list(short_path.iterdir()) == [], "no file is left")


def _mentioning(path: Path) -> list[bytes]:
    """The command lines, of all processes, that contain this path."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            lines.append((process / "cmdline").read_bytes())
    return [line for line in lines if os.fsencode(path) in line]


async def test_a_stalled_event_loop_is_noticed(tmp_path: Path) -> None:
    watching = asyncio.create_task(stalls.watch(tmp_path))
    await asyncio.sleep(0.05)
    time.sleep(0.25)
    await asyncio.sleep(0.05)
    watching.cancel()
    assert max(stall.seconds - stall.waited for stall in stalls.told(tmp_path)) > 0.2


async def test_missing_hits_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vitals, "REST", 0.0)
    async with Cluster(tmp_path, servers=1) as cluster:
        watched = vitals.Vitals(cluster, Excuses())
        watched.disturb()
        begin = time.monotonic_ns()
        assert watched.disturbed(begin, begin)
        watched.calm()
        begin = time.monotonic_ns()
        assert not watched.disturbed(begin, begin)
        watched.ended()
        assert len(watched.never_back()) == len(watched.slow([])) == 1
        watched.disturb()
        watched.calm()
        begin = time.monotonic_ns()
        (port,) = cluster.ports
        watched.hear(Operation("k", "get", begin, begin, cache="HIT", port=port, heard=begin))
        assert watched.never_back() == watched.slow([]) == []
        assert len(watched.returns()) == 1


def asked(outcome: str, *, began: int = 0, port: int = 1) -> Operation:
    now = time.monotonic_ns()
    return Operation("k", "set", now - began, now, outcome, port=port, heard=now)  # type: ignore[arg-type]


def test_a_request_that_fails_or_takes_long_breaks_a_promise_unless_excused() -> None:
    excuses = Excuses()
    judge = Judge(excuses, slowest_allowed=1.0)
    judge.hear(asked("ok"))
    assert not judge.broken and not judge.slow
    judge.hear(asked("failed"))
    judge.hear(asked("unknown"))
    judge.hear(asked("ok", began=2_000_000_000))
    assert len(judge.broken) == 2 and len(judge.slow) == 1
    with excuses.all_of(1), excuses.slowness():
        judge.hear(asked("failed"))
        judge.hear(asked("ok", began=2_000_000_000, port=2))
        assert len(judge.broken) == 2 and len(judge.slow) == 1
        judge.hear(asked("failed", port=2))
    assert len(judge.broken) == 3
    end = time.monotonic_ns()
    assert excuses.failure(end, end, 1, write=False)
    assert not excuses.failure(end + 2 * GRACE, end + 2 * GRACE, 1, write=False)


def test_an_excuse_for_writes_does_not_cover_reads() -> None:
    excuses = Excuses()
    with excuses.writes():
        now = time.monotonic_ns()
    judge = Judge(excuses, slowest_allowed=1.0)
    read = Operation("k", "get", now, now, "failed", heard=now)
    judge.hear(read)  # the command line takes the write lock to open the database
    assert not judge.broken
    judge.hear(msgspec.structs.replace(read, port=1))
    assert judge.broken
    assert excuses.failure(now, now, 1, write=True)
    assert not excuses.failure(now, now, 1, write=False)
