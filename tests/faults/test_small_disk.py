"""A real disk that is full: writes are refused, reads go on, and with room writes go on too.

The disk is in memory and the server's alone: unshare(1) lets anybody mount one, where the system
allows that.
"""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app_server import Answer, AppServer

_MOUNTED = 'mount -t tmpfs -o size=2m none "$0" && exec "$@"'


class SmallDiskServer(AppServer):
    """A server whose database lies on a disk of two megabytes."""

    def spawn(self) -> None:
        assert self._process is None, "the server runs already"
        command = ["unshare", "--map-root-user", "--mount", "--", "sh", "-c", _MOUNTED]
        command += [str(self.database.parent), sys.executable, "-W", "error", "-m", "tenantbase"]
        command += ["serve", "--database", str(self.database), "--port", "0", *self._options]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._stderr, env=self._environment
        )

    @property
    def disk(self) -> Path:
        """Its disk, seen from outside."""
        return Path(f"/proc/{self.pid}/root{self.database.parent}")

    def fill(self) -> None:
        """Leave no byte of room."""
        with (self.disk / "filling").open("wb", buffering=0) as file:
            for size in (65_536, 4096, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    def empty(self) -> None:
        """Make room again."""
        (self.disk / "filling").unlink()

    def set(self, key: str, size: int) -> Answer:
        """Set a value of so many bytes."""
        body = b'{"key": "%b", "value": "%b"}' % (key.encode(), b"x" * size)
        return self.ask("POST", "/set-value", body)

    def statuses(self, *keys: str) -> list[int]:
        """Of reading these keys, twice each."""
        return [self.ask("GET", f"/get-value?key={key}").status for key in keys * 2]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SmallDiskServer]:
    directory = tmp_path.resolve() / "disk"
    directory.mkdir()
    running = SmallDiskServer(directory / "x.db")
    with running:
        yield running


def test_a_full_disk_refuses_writes_until_there_is_room(server: SmallDiskServer) -> None:
    assert server.set("before", 3000).status == 200
    for again in range(3):
        server.fill()
        # There may be room left inside the database's files, for a few.
        answers = [server.set(f"{again}/{number}", 3000) for number in range(100)]
        refused = [answer.status for answer in answers].index(507)
        assert {answer.status for answer in answers} <= {200, 507}
        assert answers[refused].json["type"].endswith(":disk-full")
        assert answers[-1].status == 507
        assert server.statuses("before", f"{again}/99") == [200, 404] * 2
        assert server.ask("GET", "/health-check").status == 200
        server.empty()
        assert server.set(f"{again}/99", 3000).status == 200
        assert server.statuses("before", f"{again}/99") == [200, 200] * 2
        made = [number for number, answer in enumerate(answers[:99]) if answer.status == 200]
        assert server.statuses(*(f"{again}/{number}" for number in made)) == [200] * 2 * len(made)
