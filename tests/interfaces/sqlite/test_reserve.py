"""The reserve for deletions: taken, released, and never a foreign file."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from tenantbase.commands import Delete, Set
from tenantbase.entry import JSON
from tenantbase.interfaces.sqlite.reserve import RESERVE_BYTES, Reserve
from tenantbase.process.config import Config
from tenantbase.process.wiring import open_cache


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db-reserve"


@pytest.fixture
def reserve(tmp_path: Path) -> Reserve:
    return Reserve(str(tmp_path / "x.db"))


def test_it_is_taken_given_up_and_taken_again(reserve: Reserve, path: Path) -> None:
    for _ in range(2):
        assert reserve.hold()
        assert path.stat().st_size == reserve.bytes <= RESERVE_BYTES
        assert path.stat().st_blocks * 512 >= reserve.bytes, "no hole"
        assert path.stat().st_mode & 0o777 == 0o600
        reserve.release()
        assert path.stat().st_blocks * 512 <= 65_536
    reserve.hold()
    reserve.remove()
    assert not path.exists()


@pytest.mark.parametrize("contents", [b"notes", bytes(8), b"notes of mine\n" * 1000])
def test_a_foreign_file_is_left_alone(reserve: Reserve, path: Path, contents: bytes) -> None:
    path.write_bytes(contents)
    os.utime(path, (1, 1))
    assert reserve.hold()
    reserve.release()
    reserve.remove()
    assert path.read_bytes() == contents
    assert path.stat().st_mtime == 1


def test_an_empty_file_is_used_and_stays(reserve: Reserve, path: Path) -> None:
    """It may be ours: a crash can come between creating the file and writing its mark."""
    path.touch()
    assert reserve.hold()
    assert path.stat().st_size == reserve.bytes
    reserve.release()
    assert reserve.hold()
    assert path.stat().st_size == reserve.bytes
    reserve.remove()
    assert path.read_bytes() == b""


def test_it_has_the_mode_and_owner_of_the_database(reserve: Reserve, path: Path) -> None:
    """It may be created by root, but other processes need it, too."""
    database = path.with_name("x.db")
    database.touch()
    database.chmod(0o640)
    reserve.hold()
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_is_not_a_file_is_left_alone(
    reserve: Reserve, path: Path, tmp_path: Path, kind: str
) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"tbspare\nand more")
    if kind == "link":
        path.symlink_to(target)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert reserve.hold()
    reserve.release()
    reserve.remove()
    assert os.path.lexists(path)
    assert target.read_bytes() == b"tbspare\nand more"


def test_a_disk_that_does_not_let_it_be_made_is_not_a_full_one(
    reserve: Reserve, path: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        assert reserve.hold(), "nothing limits the growth of the database itself"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    missing = Reserve(str(path.parent / "missing" / "x.db"))
    assert missing.hold()


async def test_without_it_the_service_works_all_the_same(tmp_path: Path, path: Path) -> None:
    path.write_bytes(b"notes")
    async with open_cache(Config(database=tmp_path / "x.db")) as cache:
        await cache.write(Set("default/k", b"1", JSON))
        await cache.write(Delete("default/k"))
    assert path.read_bytes() == b"notes"


async def test_the_last_process_removes_it(tmp_path: Path, path: Path) -> None:
    config = Config(database=tmp_path / "x.db")
    async with open_cache(config):
        async with open_cache(config):
            assert path.exists()
        assert path.exists()
    assert not path.exists()
