"""A real full disk: reads continue, and once deleting has made room, so do writes.

The disk is in memory and visible to the server alone: unshare(1) lets any user mount one, if the
system allows that. It outlives the server.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.app_server import READY_SECONDS, AppServer
from tests.command import command, refused
from tests.servers import poll
from tests.wire import Answer

_MOUNTED = 'mount -t tmpfs -o size=3m none "$0" && echo && exec sleep 1000'


class SmallDisk:
    """A disk of three megabytes, mounted on a directory in its own mount namespace."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._holder = subprocess.Popen(
            ["unshare", "--map-root-user", "--mount", "--", "sh", "-c", _MOUNTED, str(directory)],
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.read(1) == b"\n"

    def close(self) -> None:
        """Release the disk; it disappears with the last process in its namespace."""
        self._holder.kill()
        self._holder.communicate()

    @property
    def enter(self) -> list[str]:
        """The start of a command line that runs in the namespace."""
        return ["nsenter", f"--target={self._holder.pid}", "--user", "--mount", "--"]

    @property
    def path(self) -> Path:
        """The disk's directory, as seen from outside the namespace."""
        return Path(f"/proc/{self._holder.pid}/root{self._directory}")

    def fill(self) -> None:
        """Fill the disk to the last byte, but not while a server has released its reserve to use it.

        That cannot be prevented, but lasts milliseconds: servers have the write lock meanwhile.
        """
        with ExitStack() as stack:
            file = stack.enter_context((self.path / "filling").open("ab", buffering=0))
            for path in self.path.glob("*-lock"):
                fcntl.flock(stack.enter_context(path.open("rb")), fcntl.LOCK_EX)
            for size in (65_536, 4096, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    def free(self, size: int) -> None:
        """Make so many bytes of room again."""
        filling = self.path / "filling"
        os.truncate(filling, filling.stat().st_size - size)

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
        """Set a value of this many bytes."""
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
        """The statuses of reading these keys, twice each."""
        return [self.ask("GET", f"/get-value?key={key}").status for key in keys * 2]

    def settled(self, key: str, size: int) -> bool:
        """Whether a set succeeds within seconds: a checkpoint frees some room."""
        deadline = time.monotonic() + READY_SECONDS
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


def test_a_backup_onto_a_full_disk_says_which_disk(tmp_path: Path, disk: SmallDisk) -> None:
    database = tmp_path / "x.db"
    value = json.dumps("x" * 50_000).encode()
    lines = b"".join(b'{"key":"k%d","value":%b}\n' % (number, value) for number in range(100))
    assert command("import", "--database", str(database), stdin=lines).returncode == 0
    directory = tmp_path.resolve() / "disk"
    backup = ("backup", str(directory / "copy"), "--database", str(database))
    done = command(*backup, before=disk.enter)
    assert refused(done, f"cannot write the copy in {directory}: No space left on device")
    assert list(disk.path.iterdir()) == []


def test_a_full_disk_refuses_writes_until_there_is_room(
    server: SmallDiskServer, disk: SmallDisk
) -> None:
    assert server.set("before", 3000).status == 200
    for again in range(3):
        disk.fill()
        # There may be room for a few inside the database's files.
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
    lines = map(json.loads, server.stderr.splitlines())
    told = [line["message"] for line in lines if line["logger"] != "tenantbase.memcache"]
    # The sweeper, which looks about once a second, may have met it, too.
    kinds = Counter(line.partition(": ")[0] for line in told)
    assert kinds.keys() <= {"disk full", "disk nearly full"}, told
    assert 1 <= kinds["disk full"] <= 6 and kinds["disk nearly full"] <= 6, told


@pytest.mark.parametrize("filler", ["its own data", "another program"])
def test_deleting_makes_room_on_a_full_disk(
    server: SmallDiskServer, disk: SmallDisk, filler: str
) -> None:
    keys = []
    if filler == "another program":
        keys = [f"early{number}" for number in range(60)]
        for key in keys:
            assert server.set(key, 10_000).status == 200
        disk.fill()
    keys += server.fill_with("k", 10_000)
    for number in range(15):  # repeatedly, because no deletion may use up the room of the next
        deleted, keys = keys[:4], keys[4:]
        for key in deleted:
            assert server.delete(key) == 204
        assert server.statuses(*deleted) == [404] * 8
        assert server.settled(f"again{number}", 10_000), "deleted entries make room for others"
        keys.append(f"again{number}")
        if number % 5 == 4:
            keys += server.fill_with(f"more{number}-", 10_000)
    answer = server.ask("POST", "/delete-values", b'{"prefix": ""}')
    assert answer.status == 200 and answer.json["deleted"] >= len(keys)
    assert server.settled("k", 100_000)
    assert server.statuses("k") == [200] * 2


def test_expired_entries_make_room(server: SmallDiskServer, disk: SmallDisk) -> None:
    for number in range(20):
        # Even on a busy machine, they must not expire before the disk is full.
        assert server.set(f"short{number}", 20_000, ttl=8).status == 200
    disk.fill()
    server.fill_with("k", 5_000)
    assert server.settled("late", 100_000)


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_deleting_makes_room_after_a_restart(
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
    """Deleting takes less room than it frees: deleted pages are not written again."""
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


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_small_writes_use_the_little_room_there_is(
    server: SmallDiskServer, disk: SmallDisk, end: str
) -> None:
    """The reserve, which is missing since the restart, does not take all of it."""
    (disk.path / "filling").write_bytes(bytes(700_000))
    keys = server.fill_with("k", 3_000)
    disk.fill()
    server.stop() if end == "stopped" else server.kill()
    # A stop removes the tag file. Only the reserve makes room for a new one on a full disk, and it may
    # have been given up for the last write.
    reserve = disk.path / f"{server.database.name}-reserve"
    if reserve.exists() and reserve.stat().st_blocks * 512 > 600_000:
        disk.fill()
    server.start()
    disk.free(540_000)
    for number in range(30):
        assert server.settled(f"small{number}", 10)
    assert server.settled("larger", 20_000)
    assert server.statuses(keys[0], keys[-1], "small0", "small29") == [200] * 8
    assert server.delete(keys[0]) == 204


def test_values_fit_into_freed_pages_of_an_otherwise_full_disk(
    server: SmallDiskServer, disk: SmallDisk
) -> None:
    keys = [f"k{number}" for number in range(14)]
    for key in keys:
        assert server.set(key, 100_000).status == 200
    server.stop()  # this copies the log's contents, so that it begins with an empty file
    server.start()
    disk.fill()
    body = {"keys": keys[1:]}
    assert server.ask("POST", "/delete-values", json.dumps(body).encode()).status == 200
    disk.fill()
    for number in range(20):
        assert server.settled(f"small{number % 5}", 10_000)
        assert server.settled("larger", 80_000 + number)
    assert server.statuses("k0", "small0", "larger") == [200] * 6
    assert server.delete("k0") == 204


def test_compact_beside_the_server_gives_space_back(
    server: SmallDiskServer, disk: SmallDisk
) -> None:
    def run(command: str) -> subprocess.CompletedProcess[bytes]:
        program = [*disk.enter, sys.executable, "-m", "tenantbase", command]
        return subprocess.run(
            [*program, "--database", str(server.database)], capture_output=True, timeout=60
        )

    def compacts() -> bool:
        done = run("compact")
        assert done.returncode == 0 or b"the disk is full" in done.stderr, done.stderr
        return done.returncode == 0

    file = disk.path / server.database.name
    keys = server.fill_with("k", 10_000)
    disk.fill()
    before = file.stat().st_size
    compacts()  # or not: it has nothing to give back, and no room
    assert server.statuses(*keys) == [200] * 2 * len(keys)
    for key in keys[:-5]:
        assert server.delete(key) == 204
    poll(compacts, "the reserve makes room", 60.0)
    assert file.stat().st_size < before / 2
    assert server.statuses(keys[0], *keys[-5:]) == [404, 200, 200, 200, 200, 200] * 2
    assert server.settled("late", 10_000)
    assert run("check").stdout == b"ok: 6 entries\n"
