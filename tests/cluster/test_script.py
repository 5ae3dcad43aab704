"""`scripts/cluster` starts what it says, and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import wire
from tests.cluster.patroni import lives
from tests.servers import READY_SECONDS, poll

_JSON = {"Content-Type": "application/json"}
_MEMBERS = ["primary", "standby", "memcached 1", "memcached 2", "memcached 3"]


class Started:
    """A cluster that has started.

    Attributes:
        process: the command.
        addresses, pids: of its members, by name.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.addresses: dict[str, str] = {}
        self.pids: dict[str, int] = {}
        while (line := self.line()) != "Ctrl-C ends the cluster.":
            found = re.fullmatch(r"(.+?) +(?:http://)?127\.0\.0\.1:(\d+) +process (\d+)", line)
            assert found, line
            self.addresses[found[1]] = found[2]
            self.pids[found[1]] = int(found[3])

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.endswith("\n"), "it has ended"
        return line.removesuffix("\n")


@contextmanager
def started(directory: Path, *, nodes: int = 0, before: Sequence[str] = ()) -> Iterator[Started]:
    """Start a cluster, and wait until it has ended.

    Args:
        before: a command that runs the one after it.
    """
    program = [*before, sys.executable, "-m", "tests.cluster"]
    command = [*program, "--nodes", str(nodes), "--directory", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            cluster = Started(process)
            yield cluster
            assert process.wait(READY_SECONDS) in (0, -signal.SIGKILL)
        finally:
            process.terminate()
    poll(lambda: not any(map(lives, cluster.pids.values())), "its processes have ended")


@pytest.fixture
def shared(short_path: Path) -> Path:
    """A directory that PostgreSQL's user can reach."""
    short_path.chmod(0o711)
    return short_path


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it(end: signal.Signals, shared: Path) -> None:
    with started(shared) as cluster:
        assert list(cluster.pids) == _MEMBERS
        for port in cluster.addresses.values():
            socket.create_connection(("127.0.0.1", int(port)), READY_SECONDS).close()
        cluster.process.send_signal(end)
    assert list(shared.iterdir()) == []


def test_nodes_serve_behind_haproxy(shared: Path) -> None:
    with started(shared, nodes=2) as cluster:
        assert list(cluster.pids) == [*_MEMBERS, "node 1", "node 2", "HAProxy"]
        front = int(cluster.addresses["HAProxy"])
        body = b'{"key": "a", "value": 1}'
        assert wire.ask(front, "POST", "/set-value", body, _JSON).status == 200
        for name in ("node 1", "node 2", "HAProxy"):
            answer = wire.ask(int(cluster.addresses[name]), "GET", "/get-value?key=a")
            assert answer.json["value"] == 1
        cluster.process.send_signal(signal.SIGINT)
    assert list(shared.iterdir()) == []


def test_it_ends_in_the_background_of_a_script_too(shared: Path) -> None:
    with started(shared, before=["env", "--ignore-signal=INT"]) as cluster:
        cluster.process.send_signal(signal.SIGTERM)
    assert list(shared.iterdir()) == []


def test_members_that_die_are_reported(shared: Path) -> None:
    with started(shared) as cluster:
        for name in ("primary", "memcached 2"):
            os.kill(cluster.pids[name], signal.SIGKILL)
            assert cluster.line() == f"{name}: process {cluster.pids[name]} has ended"
        cluster.process.send_signal(signal.SIGINT)
    assert list(shared.iterdir()) == []


def test_its_servers_end_even_if_it_is_killed(shared: Path) -> None:
    with started(shared) as cluster:
        cluster.process.kill()
