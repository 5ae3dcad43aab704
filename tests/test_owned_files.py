"""Our own files beside the database: creating them, and leaving nothing behind on failure."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from tenantbase.errors import CannotOpen
from tenantbase.owned_files import RESERVE_MARK, is_marked, open_beside


def test_it_is_made_with_its_mark_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "x.db-reserve"
    for made in (True, False):
        fd, was_made = open_beside(path, "reserve", RESERVE_MARK, None)
        os.close(fd)
        assert was_made is made
        assert path.read_bytes() == RESERVE_MARK
        assert path.stat().st_mode & 0o777 == 0o600
        assert is_marked(path)


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o640, 0o640), (0o666, 0o666), (0o755, 0o644), (0o4700, 0o600)]
)
def test_it_has_the_permissions_of_the_database_and_cannot_be_run(
    tmp_path: Path, mode: int, expected: int
) -> None:
    database, path = tmp_path / "x.db", tmp_path / "x.db-reserve"
    database.touch()
    database.chmod(mode)
    os.close(open_beside(path, "reserve", RESERVE_MARK, database)[0])
    assert path.stat().st_mode & 0o7777 == expected


def test_a_file_that_cannot_be_written_is_not_left(tmp_path: Path) -> None:
    path = tmp_path / "x.db-reserve"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(CannotOpen, match="cannot open the reserve"):
            open_beside(path, "reserve", RESERVE_MARK, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not path.exists()


@pytest.mark.timeout(60)
def test_a_missing_directory_is_not_a_race(tmp_path: Path) -> None:
    path = tmp_path / "none" / "x.db-reserve"
    with pytest.raises(CannotOpen, match="No such file or directory"):
        open_beside(path, "reserve", RESERVE_MARK, None)
