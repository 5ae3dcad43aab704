"""Machines in namespaces: packets are lost in one direction only, clocks move, disks fill up.

The tests run this module as a program of its own, which may enter namespaces.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.clock import Clock
from tests.cluster.disk import Disk
from tests.cluster.network import Machine, Network, isolated
from tests.servers import poll

_SECONDS = 30.0
_TICK = "import time; print(time.time(), time.monotonic(), flush=True); input()"


def _run(check: str) -> None:
    command = [sys.executable, "-m", __name__, check]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * _SECONDS)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize("check", ["directions", "disk"])
def test_on_machines(check: str) -> None:
    _run(check)


def test_a_moved_clock() -> None:
    clock = Clock()
    try:
        with subprocess.Popen(
            [sys.executable, "-c", f"while True: {_TICK}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ) | dict(clock.environment),
        ) as process:
            assert process.stdin is not None and process.stdout is not None

            def error() -> float:
                """How many seconds the clock is ahead. The monotonic one must be right."""
                assert process.stdin is not None and process.stdout is not None
                before = time.monotonic()
                told, monotonic = map(float, process.stdout.readline().split())
                process.stdin.write("\n")
                process.stdin.flush()
                assert abs(monotonic - before) < _SECONDS
                return told - time.time()

            assert abs(error()) < _SECONDS
            for seconds in (1_000.0, -5_000.0, 0.0):
                clock.move(seconds)
                poll(lambda: abs(error() - seconds) < _SECONDS, "it has moved")  # noqa: B023
            process.kill()
    finally:
        clock.close()


def test_namespaces_end_with_the_program() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", __name__, "wait"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert _namespace_of(process.pid) != _namespace_of(os.getpid())
        process.kill()
    assert "machine-of-this-test" not in Path("/proc/mounts").read_text()
    assert not Path("/run/netns/machine-of-this-test").exists()


def _namespace_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


# Inside


class _Mailbox:
    """Receives UDP packets that are sent to a machine: UDP needs no answer."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._socket = machine.run(lambda: socket.socket(type=socket.SOCK_DGRAM))
        self._socket.bind((machine.address, 5000))
        self._socket.settimeout(0.2)

    def receives_from(self, machine: Machine) -> bool:
        """Whether a packet from a machine arrives."""
        with machine.run(lambda: socket.socket(type=socket.SOCK_DGRAM)) as sender:
            for _ in range(10):
                sender.sendto(machine.name.encode(), (self._machine.address, 5000))
                try:
                    return self._socket.recv(100) == machine.name.encode()
                except TimeoutError:
                    continue
        return False


@contextmanager
def _machines() -> Iterator[tuple[Network, Machine, Machine]]:
    with Network() as network:
        yield network, network.add("one"), network.add("two")


def _directions() -> None:
    with _machines() as (network, one, two):
        first, second = _Mailbox(one), _Mailbox(two)
        assert first.receives_from(two) and second.receives_from(one)
        with network.cut([(one, two)]):
            assert first.receives_from(two) and not second.receives_from(one)
            with network.cut([(one, two), (two, one)]):
                assert not first.receives_from(two) and not second.receives_from(one)
            assert first.receives_from(two) and not second.receives_from(one)
        with network.slow(two, 1_000):
            assert second.receives_from(one)
        assert first.receives_from(two) and second.receives_from(one)


def _disk() -> None:
    with tempfile.TemporaryDirectory() as name:
        disk, file = Disk(Path(name)), Path(name) / "file"
        try:
            file.write_bytes(bytes(10))
            disk.fill()
            try:
                file.write_bytes(bytes(10_000))
            except OSError as error:
                assert error.errno == errno.ENOSPC
            else:
                raise AssertionError("the disk is not full")
            disk.free()
            file.write_bytes(bytes(10_000))
        finally:
            disk.close()


def _wait() -> None:
    with Network() as network:
        network.add("machine-of-this-test")
        print("ready", flush=True)
        time.sleep(_SECONDS)


def main() -> None:
    refused = isolated("tests.cluster.test_network")
    if refused:
        sys.exit(refused)
    {"directions": _directions, "disk": _disk, "wait": _wait}[sys.argv[1]]()
    print("done")


if __name__ == "__main__":
    main()
