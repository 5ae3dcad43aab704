"""The private memcached: guarded, restarted, and stopped with the process that started it."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenantbase.interfaces.memcached.private import PrivateMemcached
from tests.servers import READY_SECONDS, connect, poll

pytestmark = pytest.mark.integration  # the package starts processes

KEY = b"a" * 32


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The parent of socket directories; it must be empty at the end."""
    with tempfile.TemporaryDirectory(prefix="tb-") as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)
        poll(lambda: not list(Path(directory).iterdir()), "nothing is left behind")


@pytest.fixture
def private(temporary: Path) -> Iterator[PrivateMemcached]:
    private = PrivateMemcached.start()
    assert private is not None
    with private:
        yield private


def ask(address: str, command: bytes, end: bytes) -> bytes:
    """The complete answer to a command; empty if there is none."""
    try:
        with connect(address) as connection, connection.makefile("rwb") as stream:
            stream.write(command)
            stream.flush()
            lines = []
            while line := stream.readline():
                lines.append(line)
                if line == end:
                    break
            return b"".join(lines)
    except OSError:
        return b""


def memcached_pid(address: str) -> int:
    """The process that answers there; 0: none does."""
    for line in ask(address, b"stats\r\n", b"END\r\n").split(b"\r\n"):
        if line.startswith(b"STAT pid "):
            return int(line.split()[-1])
    return 0


def running_pid(address: str) -> int:
    """The process that answers there, to be sent signals: 0 would be this process's own group."""
    pid = 0

    def answers() -> bool:
        nonlocal pid
        pid = memcached_pid(address)
        return pid != 0

    poll(answers, "memcached answers")
    return pid


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return shown.stdout.strip()[:1] not in {"", "Z"}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_private_and_stops_on_request(temporary: Path) -> None:
    private = PrivateMemcached.start()
    assert private is not None
    path = Path(private.address.path)
    assert path.parent.parent == temporary
    assert (mode(path.parent), mode(path)) == (0o700, 0o600)
    pid = running_pid(str(private.address))
    assert alive(pid)
    assert os.getsid(pid) != os.getsid(0), "Ctrl-C at the terminal does not reach it"
    private.stop()
    assert not alive(pid)
    assert not path.parent.exists()
    private.stop()


def test_it_takes_the_items_it_was_made_for(temporary: Path) -> None:
    private = PrivateMemcached.start(64, (1 << 20) + 200)
    assert private is not None
    with private:
        assert private.max_item_bytes == 2 << 20
        value = b"x" * ((1 << 20) + 200)
        command = b"set %b 0 0 %d\r\n%b\r\n" % (KEY, len(value), value)
        assert ask(str(private.address), command, b"STORED\r\n") == b"STORED\r\n"


def test_an_item_takes_half_of_the_memory_at_most(temporary: Path) -> None:
    private = PrivateMemcached.start(5, 64 << 20)
    assert private is not None
    with private:
        assert private.max_item_bytes == 2 << 20
        assert memcached_pid(str(private.address))


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_it_is_started_again(private: PrivateMemcached, by: signal.Signals) -> None:
    address = str(private.address)
    seen = {0}
    for _ in range(2):
        poll(lambda: memcached_pid(address) not in seen, "a new one answers")
        pid = running_pid(address)
        seen.add(pid)
        os.kill(pid, by)
    poll(lambda: memcached_pid(address) not in seen, "a new one answers")
    assert mode(Path(private.address.path)) == 0o600


def test_it_can_be_stopped_while_it_is_dead(private: PrivateMemcached) -> None:
    os.kill(running_pid(str(private.address)), signal.SIGKILL)
    private.stop()
    assert memcached_pid(str(private.address)) == 0


def test_it_can_be_stopped_while_it_is_paused(private: PrivateMemcached) -> None:
    pid = running_pid(str(private.address))
    os.kill(pid, signal.SIGSTOP)
    private.stop()
    assert not alive(pid)


def test_nothing_is_left_when_its_guard_was_killed(private: PrivateMemcached) -> None:
    pid = running_pid(str(private.address))
    os.kill(os.getsid(pid), signal.SIGKILL)
    private.stop()
    poll(lambda: not alive(pid), "memcached is gone")


def test_its_guard_survives_a_hangup(private: PrivateMemcached) -> None:
    pid = running_pid(str(private.address))
    guard = os.getsid(pid)
    for each in (guard, pid):
        os.kill(each, signal.SIGHUP)
    os.kill(pid, signal.SIGKILL)  # only a running guard starts another
    poll(lambda: memcached_pid(str(private.address)) not in (0, pid), "a new one answers")
    assert alive(guard)


OWNER = """
import os, signal, sys, tempfile
from tenantbase.interfaces.memcached.private import PrivateMemcached
tempfile.tempdir = sys.argv[1]
private = PrivateMemcached.start()
worker = 0
if sys.argv[2].startswith("forked"):
    heard, said = os.pipe()
    worker = os.fork()
    if not worker:
        if sys.argv[2] == "forked and stopped":
            private.stop()
        os.write(said, b".")
        signal.pause()
    os.read(heard, 1)
print(private.address, worker, flush=True)
signal.pause()
"""


@pytest.mark.parametrize(
    "case", ["plain", "forked", "forked and stopped", "paused", "guard killed"]
)
def test_nothing_outlives_a_killed_owner(temporary: Path, case: str) -> None:
    command = [sys.executable, "-c", OWNER, str(temporary), case]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        address, text = owner.stdout.readline().split()
        worker = int(text)
        try:
            pid = running_pid(address)
            guard = os.getsid(pid)
            assert alive(pid)
            assert alive(guard)
            if case == "guard killed":
                os.kill(guard, signal.SIGKILL)
            if case in {"guard killed", "paused"}:
                os.kill(pid, signal.SIGSTOP)
            owner.kill()
            owner.wait(READY_SECONDS)
            poll(lambda: not alive(pid), "memcached is gone")
            poll(lambda: not alive(guard), "its guard is gone")
            assert not worker or alive(worker)
        finally:
            owner.kill()
            if worker:
                os.kill(worker, signal.SIGKILL)


def test_a_missing_program(temporary: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert PrivateMemcached.start(program="no-such-memcached") is None
    assert caplog.messages == ["no cache: the program no-such-memcached is not installed"]
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#!/bin/sh\nexit 71\n", "does not start: it says nothing"),
        ("#!/bin/sh\necho no luck >&2\nexit 71\n", "does not start: no luck"),
        ("no program at all\n", "does not start: "),
    ],
)
def test_a_program_that_does_not_work(
    tmp_path: Path,
    temporary: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    text: str,
    reason: str,
) -> None:
    program = tmp_path / "memcached"
    program.write_text(text)
    program.chmod(0o755)
    assert PrivateMemcached.start(program=str(program)) is None
    assert len(caplog.messages) == 1
    assert f"{program} -s" in caplog.text and reason in caplog.text
    assert tuple(capfd.readouterr()) == ("", ""), "standard output and error are the service's"


def test_what_it_says_goes_to_the_log(
    tmp_path: Path, temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "memcached"
    program.write_text(f'#!/bin/sh\necho "a\nb" >&2\nexec {shutil.which("memcached")} "$@"\n')
    program.chmod(0o755)
    private = PrivateMemcached.start(program=str(program))
    assert private is not None
    with private:
        assert private.log_messages(), "it can say more"
        assert caplog.messages == ["memcached says: a", "memcached says: b"]
        assert private.log_messages()
    assert len(caplog.messages) == 2


def test_without_a_shell(
    tmp_path: Path,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    program = shutil.which("memcached")
    assert program is not None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert PrivateMemcached.start(program=program) is None
    assert len(caplog.messages) == 1
    assert "the shell" in caplog.text


def test_without_a_directory(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short_path / "absent"))
    assert PrivateMemcached.start() is None
    assert len(caplog.messages) == 1


def test_a_directory_too_deep_for_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    private = PrivateMemcached.start()
    assert private is not None
    with private:
        assert memcached_pid(str(private.address))
        assert private.address.path.startswith("/tmp/tenantbase-")
