"""Hanging workers are replaced, even a single one; workers that were only suspended are not."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.app_server import AppServer
from tests.process.test_worker import WORKERS, set_value
from tests.servers import poll

_WATCHDOG_SECONDS = 1.5
_WATCHED = ("--watchdog-seconds", str(_WATCHDOG_SECONDS))


class BlockingServer(AppServer):
    """A server in which a request to ``/livez`` blocks the event loop forever."""

    program = (
        "-c",
        """if True:
        from tenantbase.main import main
        from tenantbase.web.handlers.health import Health
        async def block(self, request):
            while True:
                pass
        Health.alive = block
        main()
        """,
    )


@pytest.mark.parametrize("workers", WORKERS)
def test_a_stopped_worker_is_replaced(tmp_path: Path, workers: tuple[str, ...]) -> None:
    with AppServer(tmp_path / "x.db", *_WATCHED, *workers) as server:
        set_value(server, "k", 1)
        before = server.workers
        victim = before[0]
        os.kill(victim, signal.SIGSTOP)
        poll(lambda: replaced(server, before, victim), "another is there")
        for _ in range(20):
            assert server.ask("GET", "/get-value?key=k").json["value"] == 1
        set_value(server, "k", 2)
        assert server.stop() == 0
        (line,) = server.stderr.splitlines()
        assert f"worker {victim} was killed: its event loop was blocked for " in line
        assert "; starting another in " in line
    assert list(tmp_path.iterdir()) == [tmp_path / "x.db"]


@pytest.mark.parametrize("workers", WORKERS)
def test_a_worker_with_a_blocked_event_loop_is_replaced(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    with BlockingServer(tmp_path / "x.db", *_WATCHED, *workers) as server:
        set_value(server, "k", 1)
        before = server.workers
        with pytest.raises(OSError):  # the worker is killed, which breaks the connection
            server.ask("GET", "/livez")
        poll(lambda: len(server.workers) == len(before) and server.workers != before, "another")
        assert server.ask("GET", "/get-value?key=k").json["value"] == 1
        assert server.stop() == 0
        assert "its event loop was blocked for " in server.stderr


def test_a_worker_that_hangs_while_closing_is_killed(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db", *_WATCHED) as server:
        os.kill(server.workers[0], signal.SIGSTOP)
        assert server.stop() == 1
        assert "its event loop was blocked for " in server.stderr


def test_workers_that_do_not_end_in_time_are_killed(tmp_path: Path) -> None:
    options = ("--watchdog-seconds", "0", "--drain-timeout", "0", "--write-timeout", "0.1")
    with AppServer(tmp_path / "x.db", *options, "--workers", "2") as server:
        os.kill(server.workers[0], signal.SIGSTOP)
        assert server.stop() == 1
        assert "killing 1 workers that did not exit in time" in server.stderr


@pytest.mark.parametrize("workers", WORKERS)
def test_nothing_is_killed_after_the_machine_was_suspended(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    with AppServer(tmp_path / "x.db", *_WATCHED, *workers) as server:
        before = server.workers
        server.pause()
        time.sleep(2 * _WATCHDOG_SECONDS)
        server.signal(signal.SIGCONT)
        time.sleep(_WATCHDOG_SECONDS / 5)  # the supervisor runs again, its workers do not yet
        server.resume()
        time.sleep(_WATCHDOG_SECONDS)
        assert server.workers == before
        assert server.ask("GET", "/livez").status == 200
        assert server.stop() == 0
        assert server.stderr == ""


def test_nothing_is_killed_after_the_supervisor_alone_was_stopped(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db", *_WATCHED) as server:
        before = server.workers
        server.signal(signal.SIGSTOP)
        time.sleep(2 * _WATCHDOG_SECONDS)
        assert server.ask("GET", "/livez").status == 200
        server.signal(signal.SIGCONT)
        time.sleep(_WATCHDOG_SECONDS)
        assert server.workers == before
        assert server.stop() == 0


def test_an_idle_worker_is_left_alone(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db", *_WATCHED) as server:
        before = server.workers
        time.sleep(2 * _WATCHDOG_SECONDS)
        assert server.workers == before
        assert server.stop() == 0


def test_without_a_watchdog_a_stopped_worker_is_not_replaced(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db", "--watchdog-seconds", "0") as server:
        before = server.workers
        os.kill(before[0], signal.SIGSTOP)
        time.sleep(1)
        os.kill(before[0], signal.SIGCONT)
        assert server.ask("GET", "/livez").status == 200
        assert server.workers == before


def test_a_single_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db") as server:
        set_value(server, "k", 1)
        before = server.workers
        os.kill(before[0], signal.SIGKILL)
        poll(lambda: replaced(server, before, before[0]), "another is there")
        # Until the new worker listens, the kernel queues connections: none is refused.
        assert server.ask("GET", "/get-value?key=k").json["value"] == 1
        assert server.stop() == 0


def replaced(server: AppServer, before: list[int], victim: int) -> bool:
    workers = server.workers
    return len(workers) == len(before) and victim not in workers
