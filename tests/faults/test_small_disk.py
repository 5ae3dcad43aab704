"""A real disk that is full: reads go on, deleting makes room, and with room writes go on too.

The disk is in memory and the server's alone: unshare(1) lets anybody mount one, where the system
allows that. It outlives the server.
"""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app_server import AppServer
from tests.wire import Answer

_MOUNTED = 'mount -t tmpfs -o size=3m none "$0" && echo && exec sleep 1000'


class SmallDisk:
    """A disk of three megabytes, mounted on a directory for those who enter it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._holder = subprocess.Popen(
            ["unshare", "--map-root-user", "--mount", "--", "sh", "-c", _MOUNTED, str(directory)],
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.read(1) == b"\n"

    def close(self) -> None:
        """Give it up; it ends with the last process that is in it."""
        self._holder.kill()
        self._holder.communicate()

    @property
    def enter(self) -> list[str]:
        """What begins a command that runs there."""
        return ["nsenter", f"--target={self._holder.pid}", "--user", "--mount", "--"]

    @property
    def path(self) -> Path:
        """It, seen from outside."""
        return Path(f"/proc/{self._holder.pid}/root{self._directory}")

    def fill(self) -> None:
        """Leave no byte of room."""
        with (self.path / "filling").open("ab", buffering=0) as file:
            for size in (65_536, 4096, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    def empty(self) -> None:
        """Make room again."""
        (self.path / "filling").unlink()


class SmallDiskServer(AppServer):
    """A server whose database lies on a small disk."""

    def __init__(self, disk: SmallDisk, database: Path, *options: str) -> None:
        super().__init__(database, *options)
        self.disk = disk

    def spawn(self) -> None:
        assert self._process is None, "the server runs already"
        command = [*self.disk.enter, sys.executable, "-W", "error", "-m", "tenantbase", "serve"]
        command += ["--database", str(self.database), "--port", str(self.port), *self._options]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._stderr, env=self._environment
        )

    def set(self, key: str, size: int, ttl: float | None = None) -> Answer:
        """Set a value of so many bytes."""
        more = b"" if ttl is None else b', "ttl": %f' % ttl
        body = b'{"key": "%b", "value": "%b"%b}' % (key.encode(), b"x" * size, more)
        return self.ask("POST", "/set-value", body)

    def fill_with(self, prefix: str, size: int) -> list[str]:
        """Set values until there is no more room. Returns: their keys."""
        made: list[str] = []
        while (answer := self.set(f"{prefix}{len(made)}", size)).status == 200:
            made.append(f"{prefix}{len(made)}")
            assert len(made) < 10_000
        assert answer.status == 507
        return made

    def delete(self, key: str) -> int:
        return self.ask("DELETE", f"/delete-value?key={key}").status

    def statuses(self, *keys: str) -> list[int]:
        """Of reading these keys, twice each."""
        return [self.ask("GET", f"/get-value?key={key}").status for key in keys * 2]

    def settled(self, key: str, size: int) -> bool:
        """Whether a set succeeds within seconds: some room comes back with a checkpoint."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if self.set(key, size).status == 200:
                return True
            time.sleep(0.05)
        return False


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    directory = tmp_path.resolve() / "disk"
    directory.mkdir()
    mounted = SmallDisk(directory)
    yield mounted
    mounted.close()


@pytest.fixture
def server(tmp_path: Path, disk: SmallDisk) -> Iterator[SmallDiskServer]:
    running = SmallDiskServer(disk, tmp_path.resolve() / "disk" / "x.db")
    with running:
        yield running


def test_a_full_disk_refuses_writes_until_there_is_room(
    server: SmallDiskServer, disk: SmallDisk
) -> None:
    assert server.set("before", 3000).status == 200
    for again in range(3):
        disk.fill()
        # There may be room left inside the database's files, for a few.
        answers = [server.set(f"{again}/{number}", 3000) for number in range(200)]
        refused = [answer.status for answer in answers].index(507)
        assert {answer.status for answer in answers} <= {200, 507}
        assert answers[refused].json["type"].endswith(":disk-full")
        assert answers[-1].status == 507
        assert server.statuses("before", f"{again}/199") == [200, 404] * 2
        assert server.ask("GET", "/health-check").status == 200
        disk.empty()
        assert server.set(f"{again}/199", 3000).status == 200
        assert server.statuses("before", f"{again}/199") == [200, 200] * 2
        made = [number for number, answer in enumerate(answers[:199]) if answer.status == 200]
        assert server.statuses(*(f"{again}/{number}" for number in made)) == [200] * 2 * len(made)


@pytest.mark.parametrize("filler", ["its own data", "another program"])
def test_a_full_disk_is_left_by_deleting(
    server: SmallDiskServer, disk: SmallDisk, filler: str
) -> None:
    keys = []
    if filler == "another program":
        keys = [f"early{number}" for number in range(60)]
        for key in keys:
            assert server.set(key, 10_000).status == 200
        disk.fill()
    keys += server.fill_with("k", 10_000)
    for number in range(15):  # again and again: no deletion uses up the room of the next
        deleted, keys = keys[:4], keys[4:]
        for key in deleted:
            assert server.delete(key) == 204
        assert server.statuses(*deleted) == [404] * 8
        assert server.settled(f"again{number}", 10_000), "what was deleted is room for others"
        keys.append(f"again{number}")
        if number % 5 == 4:
            keys += server.fill_with(f"more{number}-", 10_000)
    answer = server.ask("POST", "/delete-values", b'{"prefix": ""}')
    assert answer.status == 200 and answer.json["deleted"] >= len(keys)
    assert server.settled("k", 100_000)
    assert server.statuses("k") == [200] * 2


def test_what_expires_makes_room(server: SmallDiskServer, disk: SmallDisk) -> None:
    for number in range(20):
        assert server.set(f"short{number}", 20_000, ttl=3).status == 200
    disk.fill()
    server.fill_with("k", 5_000)
    assert server.settled("late", 100_000)


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_full_disk_is_left_by_deleting_after_a_restart(
    server: SmallDiskServer, disk: SmallDisk, end: str
) -> None:
    keys = server.fill_with("k", 10_000)
    server.stop() if end == "stopped" else server.kill()
    disk.fill()
    server.start()
    assert server.statuses(*keys) == [200] * 2 * len(keys)
    for key in keys[:20]:
        assert server.delete(key) == 204
    assert server.settled("late", 10_000)
    assert server.statuses(keys[0], keys[-1], "late") == [404, 200, 200] * 2


@pytest.mark.parametrize("left", ["prefix", "keys"])
def test_deleting_much_takes_little_room(
    server: SmallDiskServer, disk: SmallDisk, left: str
) -> None:
    """Not as much as it gives: what is deleted is not written once more."""
    keys = [f"k{number}" for number in range(10)]
    for key in keys:
        assert server.set(key, 100_000).status == 200
    server.stop()
    disk.fill()
    server.start()
    body = {"prefix": "k"} if left == "prefix" else {"keys": keys}
    answer = server.ask("POST", "/delete-values", json.dumps(body).encode())
    assert (answer.status, answer.json) == (200, {"deleted": len(keys)})
    assert server.statuses(*keys) == [404] * 2 * len(keys)
    disk.empty()
    assert server.settled("late", 100_000)
    assert server.statuses("late") == [200, 200]
