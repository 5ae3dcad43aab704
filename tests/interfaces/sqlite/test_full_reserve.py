"""The reserve for deletions, on a real disk that is small and full."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenantbase.owned_files import MARK_BYTES
from tests.faults.test_small_disk import SmallDisk

KIB = 1 << 10
_PROGRAM = """
import json, sys
from tenantbase.interfaces.sqlite.reserve import Reserve
class Overstated(Reserve):
    def free_bytes(self):  # as a file system with a quota does
        return super().free_bytes() + (1 << 30)
reserve = (Overstated if sys.argv[2] == "quota" else Reserve)(sys.argv[1])
held = reserve.hold()
if sys.argv[2] == "remove":
    reserve.remove()
print(json.dumps([held, reserve.bytes]))
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    directory = tmp_path.resolve() / "disk"
    directory.mkdir()
    mounted = SmallDisk(directory)
    yield mounted
    mounted.close()


@pytest.fixture
def database(tmp_path: Path, disk: SmallDisk) -> Path:
    return tmp_path.resolve() / "disk" / "x.db"


def held(disk: SmallDisk, database: Path, then: str = "") -> tuple[bool, int]:
    """Hold a reserve there. Returns: whether it is complete, and its full size."""
    command = [*disk.enter, sys.executable, "-c", _PROGRAM, str(database), then]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=50).stdout
    whole, size = json.loads(output)
    return whole, size


def test_on_a_small_disk_it_takes_a_fraction(disk: SmallDisk, database: Path) -> None:
    whole, size = held(disk, database)
    assert whole
    assert size == (disk.path / "x.db-reserve").stat().st_size < 1 << 20


@pytest.mark.parametrize("then", ["", "quota"])
def test_on_a_full_disk_it_takes_most_of_the_free_space(
    disk: SmallDisk, database: Path, then: str
) -> None:
    disk.fill()
    assert not held(disk, database, then)[0]
    with (disk.path / "filling").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 300 * KIB)
    for _ in range(5):  # again, it does not take more
        whole, size = held(disk, database, then)
        assert not whole
        assert 200 * KIB < (disk.path / "x.db-reserve").stat().st_size <= 230 * KIB < size
    disk.empty()
    assert held(disk, database) == (True, size)
    assert (disk.path / "x.db-reserve").stat().st_size == size > MARK_BYTES


def test_it_stays_as_long_as_there_is_little_room(disk: SmallDisk, database: Path) -> None:
    _, size = held(disk, database)
    disk.fill()
    held(disk, database, "remove")
    assert (disk.path / "x.db-reserve").stat().st_size == size
    disk.empty()
    held(disk, database, "remove")
    assert not (disk.path / "x.db-reserve").exists()
