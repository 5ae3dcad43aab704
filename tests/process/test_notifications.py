"""What the supervisor tells a service manager, by systemd's own protocol (sd_notify(3))."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest

from tenantbase.process.config import Config
from tenantbase.process.notifier import Notifier
from tenantbase.process.service_manager import ServiceManager
from tests.app_server import READY_SECONDS, AppServer

pytestmark = pytest.mark.integration  # it binds sockets

WATCHDOG_SECONDS = 0.6
# Much longer than the pause between two heartbeats, so that a busy machine is not taken for silence.
SILENCE_SECONDS = 3.0


class Manager:
    """The receiving end of the protocol."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)

    def heard(self, seconds: float = READY_SECONDS) -> str:
        """The next message. Raises TimeoutError."""
        self.socket.settimeout(seconds)
        return self.socket.recv(4096).decode()

    def until(self, wanted: str) -> list[str]:
        """The messages up to this one, without heartbeats."""
        deadline = time.monotonic() + READY_SECONDS
        messages: list[str] = []
        while wanted not in messages:
            message = self.heard(deadline - time.monotonic())
            if message != "WATCHDOG=1" or message == wanted:
                messages.append(message)
        return messages

    def is_silent(self) -> bool:
        """Whether no message comes for long, before the deadline."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            try:
                self.heard(SILENCE_SECONDS)
            except TimeoutError:
                return True
        return False


def test_life_of_a_service(tmp_path: Path) -> None:
    told = Manager(f"\0{tmp_path}")  # not in the file system, which is written as @
    environment = {
        "NOTIFY_SOCKET": f"@{tmp_path}",
        "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1e6)),
    }
    options = ("--watchdog-seconds", "0", "--memcached", "off")
    with told.socket, AppServer(tmp_path / "x.db", *options, environment=environment) as server:
        assert told.until("STATUS=1 of 1 workers serve") == [
            "READY=1",
            "STATUS=1 of 1 workers serve",
        ]
        assert server.ask("GET", "/health-check").status == 200
        told.until("WATCHDOG=1")
        # A reload without certificates has nothing to do, but systemd waits for its end.
        server.signal(signal.SIGHUP)
        reloading, *_ = told.until("READY=1")
        begun = int(reloading.removeprefix("RELOADING=1\nMONOTONIC_USEC="))
        assert 0 < begun <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        # The only worker hangs.
        (worker,) = server.workers
        os.kill(worker, signal.SIGSTOP)
        assert told.is_silent()
        os.kill(worker, signal.SIGCONT)
        told.until("WATCHDOG=1")
        os.kill(worker, signal.SIGKILL)
        told.until("STATUS=0 of 1 workers serve")
        told.until("STATUS=1 of 1 workers serve")
        told.until("WATCHDOG=1")
        server.signal()
        told.until("STOPPING=1\nSTATUS=finishing requests")
        assert server.wait() == 0


def test_not_ready_if_it_cannot_serve(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    (tmp_path / "x.db").write_text("not a database, but longer than a header" * 10)
    server = AppServer(
        tmp_path / "x.db",
        "--memcached",
        "off",
        environment={"NOTIFY_SOCKET": str(tmp_path / "notify")},
    )
    with manager.socket:
        with pytest.raises(AssertionError, match="the server said"):
            server.start()
        manager.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                assert not manager.socket.recv(4096).startswith(b"READY=1")


def test_a_manager_with_a_path(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    with (
        manager.socket,
        closing(Notifier(ServiceManager((), str(tmp_path / "notify")))) as notifier,
    ):
        notifier.ready()
        assert manager.heard() == "READY=1"
        for text in ("a", "a", "b"):
            notifier.status(text)
        assert [manager.heard(), manager.heard()] == ["STATUS=a", "STATUS=b"]


def test_a_manager_that_is_gone_is_no_trouble(tmp_path: Path) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "absent"), "WATCHDOG_USEC": "1000000"}
    with AppServer(tmp_path / "x.db", "--memcached", "off", environment=environment) as server:
        assert server.ask("GET", "/livez").status == 200
        assert server.stop() == 0
        assert server.stderr == ""


@pytest.mark.parametrize(
    ("variables", "manager"),
    [
        ({}, ServiceManager()),
        ({"WATCHDOG_USEC": "1000000"}, ServiceManager()),
        ({"NOTIFY_SOCKET": "/n"}, ServiceManager((), "/n")),
        ({"NOTIFY_SOCKET": "@n"}, ServiceManager((), "@n")),
        ({"NOTIFY_SOCKET": "vsock:2:1"}, ServiceManager()),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "2500000"}, ServiceManager((), "/n", 2.5)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "x"}, ServiceManager((), "/n")),
        (
            {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "1"},
            ServiceManager((), "/n"),
        ),
        (
            {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "2500000", "WATCHDOG_PID": str(os.getpid())},
            ServiceManager((), "/n", 2.5),
        ),
    ],
)
def test_variables_of_the_manager(variables: dict[str, str], manager: ServiceManager) -> None:
    assert Config.load({}, variables).manager == manager
