"""Many workers: real processes, killed and replaced."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.app_server import AppServer
from tests.process.test_worker import SlowRequest, drains, set_value
from tests.servers import poll


def processes() -> list[tuple[int, int, str]]:
    """The number, the parent and the command line of every process that runs."""
    # Without -ww, ps cuts lines at 80 columns, and the interpreter's path comes first in them.
    command = ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="]
    listed = subprocess.run(
        command, capture_output=True, text=True, errors="surrogateescape", check=True
    )
    rows = [line.split(maxsplit=3) for line in listed.stdout.splitlines()]
    return [
        (int(row[0]), int(row[1]), row[3])
        for row in rows
        if len(row) == 4 and not row[2].startswith("Z")
    ]


def workers(server: AppServer) -> set[int]:
    return {
        pid
        for pid, parent, command in processes()
        if parent == server.pid and "tenantbase serve" in command
    }


def alive(pid: int) -> bool:
    return any(pid == each for each, _, _ in processes())


def ask_all(server: AppServer, count: int = 50) -> None:
    """Send requests on many connections at once; every answer must be correct."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.ask("GET", "/get-value?key=k"), range(count)))
    assert {answer.status for answer in answers} == {200}


def test_workers_share_the_port_and_the_cache(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db", "--workers", "3") as server:
        assert len(workers(server)) == 3
        for value in range(30):
            set_value(server, "k", value)
            answers = [server.ask("GET", "/get-value?key=k") for _ in range(5)]
            assert [answer.json["value"] for answer in answers] == [value] * 5
        hits = [answer.headers["X-Cache"] for answer in answers]
        assert hits == ["HIT"] * 5
        assert server.stop() == 0
        assert server.stderr == ""


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db", "--workers", "2") as server:
        set_value(server, "k", 1)
        before = workers(server)
        victim, survivor = sorted(before)
        os.kill(victim, signal.SIGKILL)
        poll(lambda: not alive(victim), "it is dead")
        ask_all(server)
        poll(lambda: len(workers(server)) == 2, "another is there")
        assert victim not in workers(server) and survivor in workers(server)
        os.kill(survivor, signal.SIGKILL)  # the new one must be able to serve alone
        poll(lambda: not alive(survivor), "it is dead")
        ask_all(server)
        poll(lambda: server.stderr.count("was killed") == 2, "the supervisor knows")
        assert server.stop() == 0
        lines = server.stderr.splitlines()
        assert len(lines) == 2
        assert f"worker {victim} was killed by SIGKILL; starting another in" in lines[0]
        assert f"worker {survivor} was killed by SIGKILL; starting another in" in lines[1]
    assert list(tmp_path.iterdir()) == [tmp_path / "x.db"]


# Starts the service with a second worker that gets SIGTERM right after its fork, before it can
# install its own handlers.
_SIGNALLED = """if True:
    import os, signal
    from tenantbase.main import main
    forks = []
    def after_fork():
        if len(forks) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
    os.register_at_fork(before=lambda: forks.append(1), after_in_child=after_fork)
    main()
"""


def test_a_signal_right_after_the_fork_is_the_workers_own(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db", "--memcached", "off") as server:
        server.stop()
        server.program = ("-c", _SIGNALLED)
        server.start()
        (first,) = server.workers
        os.kill(first, signal.SIGKILL)
        poll(lambda: "killed by SIGTERM" in server.stderr, "the second one has ended")
        poll(lambda: len(server.workers) == 1, "a third one is there")
        assert server.stop() == 0


def test_a_worker_that_gets_sigterm_finishes_its_requests(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db", "--workers", "2") as server:
        before = workers(server)
        requests = [SlowRequest(server) for _ in range(4)]
        for pid in before:
            os.kill(pid, signal.SIGTERM)
        assert [request.finish() for request in requests] == [200] * 4
        poll(lambda: len(workers(server) - before) == 2, "both are replaced")
        assert server.stop() == 0


def test_the_pause_before_a_replacement_grows(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db", "--workers", "2") as server:
        pauses = []
        for count in range(3):
            poll(lambda: len(workers(server)) == 2, "both are there")
            os.kill(max(workers(server)), signal.SIGKILL)  # the newest: its life was short
            poll(lambda n=count: len(server.stderr.splitlines()) > n, "it was noticed")  # type: ignore[misc]
            pauses.append(server.stderr.rpartition(" in ")[2].partition('"')[0])
        assert pauses == ["0.1 s", "0.2 s", "0.4 s"]


def test_a_signal_to_the_whole_group_drains_too(tmp_path: Path) -> None:
    # Ctrl-C at a terminal, and a service manager's signals, reach workers and supervisor.
    for number in (signal.SIGINT, signal.SIGTERM):
        with AppServer(tmp_path / "x.db", "--workers", "2", own_group=True) as server:
            requests = [SlowRequest(server) for _ in range(4)]
            os.killpg(server.pid, number)
            poll(lambda: drains(server), "the signal has arrived")
            assert [request.finish() for request in requests] == [200] * 4
            assert server.wait() == 0
            assert server.stderr == ""
        assert list(tmp_path.iterdir()) == [tmp_path / "x.db"]


def test_nothing_outlives_the_supervisor(tmp_path: Path, short_path: Path) -> None:
    database = tmp_path / "db" / "x.db"
    database.parent.mkdir()
    environment = {"TMPDIR": str(short_path)}
    with AppServer(database, "--workers", "2", environment=environment) as server:
        request = SlowRequest(server)
        (private,) = short_path.iterdir()
        children = workers(server)
        server.signal(signal.SIGKILL)
        assert request.finish() == 200  # its worker still answers
        assert server.wait() == -signal.SIGKILL
        poll(lambda: not any(alive(pid) for pid in children), "the workers end")
        poll(lambda: not any(str(private) in row[2] for row in processes()), "memcached ends")
        poll(lambda: not private.exists(), "its directory is removed")
        assert list(database.parent.iterdir()) == [database]
        server.start()
        assert server.stop() == 0
