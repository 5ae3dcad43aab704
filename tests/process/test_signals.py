"""Signals and closed descriptors, from the first moment of a process to its last."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.app_server import READY_SECONDS, AppServer, clean_environment
from tests.process.test_supervisor import processes
from tests.process.test_worker import WORKERS, set_value
from tests.servers import free_port, poll

# Starts the service, and pauses where a module is about to be imported.
_SLOW_START = """
import importlib.util, sys, time
slow = sys.argv.pop(1)
assert importlib.util.find_spec(slow), slow
class Slow:
    def find_spec(name, path=None, target=None):
        if name == slow:
            print("here", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow)
from tenantbase.__main__ import run
run()
"""


class SignalledServer(AppServer):
    """A server whose next worker can be sent SIGTERM right after its fork."""

    program = (
        "-c",
        """if True:
        import os, signal, sys
        asked = sys.argv[sys.argv.index("--database") + 1] + ".signal"
        def signalled():
            if os.path.exists(asked):
                os.unlink(asked)
                os.kill(os.getpid(), signal.SIGTERM)
        os.register_at_fork(after_in_child=signalled)
        from tenantbase.main import main
        main()
        """,
    )


def test_a_signal_to_a_new_worker_is_not_taken_for_one_to_the_supervisor(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    with SignalledServer(database) as server:
        Path(f"{database}.signal").touch()
        os.kill(server.workers[0], signal.SIGKILL)
        poll(lambda: len(server.stderr.splitlines()) == 2, "both have died")
        assert "was killed by SIGTERM; starting another in" in server.stderr.splitlines()[1]
        set_value(server, "k", 1)
        assert server.stop() == 0


@pytest.mark.parametrize("workers", WORKERS)
def test_a_hangup_is_ignored(tmp_path: Path, workers: tuple[str, ...]) -> None:
    with AppServer(tmp_path / "x.db", *workers) as server:
        set_value(server, "k", 1)
        tree = [server.pid]
        table = processes()
        for parent in tree:
            tree += [pid for pid, of, command in table if of == parent and "ps -A" not in command]
        assert len(tree) > 1 + len(server.workers), "memcached and its guard are among them"
        for pid in tree:
            os.kill(pid, signal.SIGHUP)
        for _ in range(3):
            answer = server.ask("GET", "/get-value?key=k")
            assert answer.json["value"] == 1
        assert answer.headers["X-Cache"] == "HIT"
        assert {pid for pid, _, _ in processes()} >= {*tree}
        assert server.stop() == 0
        assert server.stderr == ""


@pytest.mark.parametrize("first", [True, False], ids=["as process 1", "as another"])
@pytest.mark.parametrize(
    ("standing_at", "statuses"),
    [
        ("tenantbase.main", {143, -signal.SIGTERM}),  # before the command line is parsed
        ("tenantbase.process.supervisor", {0}),
    ],
)
def test_a_signal_during_the_start_ends_it(
    tmp_path: Path, first: bool, standing_at: str, statuses: set[int]
) -> None:
    # Process 1 of a container has no default actions: without a handler the kernel drops signals.
    alone = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child"] if first else []
    command = [*alone, sys.executable, "-c", _SLOW_START, standing_at]
    command += ["serve", "--database", str(tmp_path / "x.db"), "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # says why, if it does not get that far
        env=clean_environment(),
        text=True,
        errors="surrogateescape",
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line == "here\n", line + process.stdout.read()
            (pid,) = children(process.pid) if first else [process.pid]
            os.kill(pid, signal.SIGTERM)
            assert process.wait(READY_SECONDS) in statuses
        finally:
            process.kill()
    assert list(tmp_path.iterdir()) == []


def test_startup_imports_next_to_nothing() -> None:
    """Until then, process 1 cannot be ended."""
    program = """if True:
        import sys
        before = {*sys.modules}
        import tenantbase.process.startup
        print(*sorted({*sys.modules} - before - {"__future__", "_signal"}))
    """
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    package = "tenantbase.process.startup"
    assert run.stdout.split() == ["tenantbase", "tenantbase.process", package], run.stderr


def test_process_1_drains(tmp_path: Path) -> None:
    port = free_port()
    command = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child"]
    command += [sys.executable, "-W", "error", "-m", "tenantbase", "serve"]
    command += ["--database", str(tmp_path / "x.db"), "--port", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env=clean_environment(), text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"listening on http://127.0.0.1:{port}\n"
            (pid,) = children(process.pid)
            os.kill(pid, signal.SIGTERM)
            assert process.wait(READY_SECONDS) == 0
        finally:
            process.kill()
    assert list(tmp_path.iterdir()) == [tmp_path / "x.db"]


def children(pid: int) -> list[int]:
    return [child for child, parent, _ in processes() if parent == pid]


class ClosedServer(AppServer):
    """A server started with some of its standard streams closed."""

    def __init__(self, database: Path, redirections: str) -> None:
        super().__init__(database)
        self._redirections = redirections
        self.base_url = f"http://127.0.0.1:{free_port()}"

    def spawn(self) -> None:
        command = ["sh", "-c", f'exec "$@" {self._redirections}', "sh", sys.executable]
        command += ["-W", "error", "-m", "tenantbase", "serve"]
        command += ["--database", str(self.database), "--port", str(self.port)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._stderr, env=self._environment
        )

    def _output(self, lines: int = 0) -> bytes:
        super()._output(lines)
        return b""  # if standard output is open, the server reports that it is listening

    def serves(self) -> bool:
        assert self.process.poll() is None, self.stderr
        try:
            return self.ask("GET", "/livez").status == 200
        except OSError:
            return False


@pytest.mark.parametrize("redirections", ["<&- >&-", "<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(tmp_path: Path, redirections: str) -> None:
    with closing(ClosedServer(tmp_path / "x.db", redirections)) as server:
        server.spawn()
        poll(server.serves, "it serves")
        set_value(server, "k", 1)
        for pid in (server.pid, *server.workers):
            opened = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)}
            for fd, sign in enumerate(("<&-", " >&-", "2>&-")):
                if sign in f" {redirections}":
                    assert opened[fd] == "/dev/null"
        assert server.stop() == 0
        assert server.stderr == ""
    assert list(tmp_path.iterdir()) == [tmp_path / "x.db"]
