"""The log that an earlier process left: when it is rewritten, and when it is not."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tenantbase.coherence.tag_file import TagFile
from tenantbase.commands import Set
from tenantbase.entry import JSON
from tenantbase.errors import CannotOpen
from tenantbase.interfaces.sqlite import opening as sql_opening
from tenantbase.interfaces.sqlite.recovery import LeftoverWal, WalNotSafe
from tenantbase.process.config import Config
from tenantbase.process.wiring import open_cache

LONG_AGO = 1_000_000_000


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(database=tmp_path / "x.db")


def log_of(config: Config) -> Path:
    return Path(f"{config.file}-wal")


async def opening_writes_the_log(config: Config) -> bool:
    """Whether opening the database rewrites its log. The contents stay the same."""
    log = log_of(config)
    before = log.read_bytes()
    assert before
    os.utime(log, (LONG_AGO, LONG_AGO))
    async with open_cache(config) as cache:
        assert await cache.get("default/k") is not None
        assert log.read_bytes() == before
        return log.stat().st_mtime != LONG_AGO


async def test_beside_other_processes_the_log_is_not_rewritten(config: Config) -> None:
    async with open_cache(config) as cache:
        await cache.write(Set("default/k", b"1", JSON))
        assert not await opening_writes_the_log(config)


async def test_after_an_unfinished_commit_the_log_is_rewritten(config: Config) -> None:
    async with open_cache(config) as cache:
        await cache.write(Set("default/k", b"1", JSON))
        tags = TagFile.open(Path(f"{config.file}-tags"))
        tags.sequences[1234] |= 1
        assert await opening_writes_the_log(config)
        tags.sequences[1234] += 1
        assert not await opening_writes_the_log(config)
        tags.close()


async def test_with_only_the_tag_file_open_elsewhere_the_log_is_rewritten(config: Config) -> None:
    async with open_cache(config) as cache:
        await cache.write(Set("default/k", b"1", JSON))
        kept = {path: path.read_bytes() for path in (config.file, log_of(config))}
    for path, contents in kept.items():  # as after kill -9
        path.write_bytes(contents)
    starting = TagFile.open(Path(f"{config.file}-tags"))  # the first of two that start at once
    assert await opening_writes_the_log(config)
    starting.close()


class WatchingMark:
    """Stands for a tag file; records whether the log was rewritten before it was called safe."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.written: list[bool] = []

    @property
    def wal_is_safe(self) -> bool:
        return False

    def is_alone(self) -> bool:
        return True

    def wal_was_made_safe(self) -> None:
        self.written.append(self.log.stat().st_mtime != LONG_AGO)


async def left_after_a_crash(config: Config) -> None:
    """A database whose log holds a commit, as it is after ``kill -9``."""
    async with open_cache(config) as cache:
        await cache.write(Set("default/k", b"1", JSON))
        kept = {path: path.read_bytes() for path in (config.file, log_of(config))}
    for path, contents in kept.items():
        path.write_bytes(contents)
    os.utime(log_of(config), (LONG_AGO, LONG_AGO))


async def test_a_log_is_declared_safe_after_it_was_rewritten(config: Config) -> None:
    await left_after_a_crash(config)
    mark = WatchingMark(log_of(config))
    sql_opening.open_writer(str(config.file), 1.0, mark).connection.close()
    assert mark.written == [True]


async def test_a_log_that_was_not_rewritten_is_not_declared_safe(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_opening, "_OPEN_WAIT", 0.1)
    await left_after_a_crash(config)
    mark = WatchingMark(log_of(config))
    with closing(sqlite3.connect(config.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # the log may be unsafe meanwhile
        with pytest.raises(CannotOpen, match="locked"):
            sql_opening.open_writer(str(config.file), 0.1, mark)
    assert mark.written == []


def test_the_same_bytes(tmp_path: Path) -> None:
    log = tmp_path / "x.db-wal"
    contents = os.urandom(3_000_001)  # more than one chunk, and not a multiple of any block size
    log.write_bytes(contents)
    os.utime(log, (LONG_AGO, LONG_AGO))
    (tmp_path / "link.db").symlink_to("x.db")
    LeftoverWal(str(tmp_path / "link.db")).rewrite()
    assert log.read_bytes() == contents
    assert log.stat().st_mtime != LONG_AGO


def test_no_log(tmp_path: Path) -> None:
    LeftoverWal(str(tmp_path / "x.db")).rewrite()
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_changes_meanwhile_is_not_safe(tmp_path: Path) -> None:
    log = tmp_path / "x.db-wal"
    log.write_bytes(b"one")
    left = LeftoverWal(str(tmp_path / "x.db"))
    log.write_bytes(b"two")
    with pytest.raises(WalNotSafe, match="x.db-wal"):
        left.rewrite()


async def test_a_log_that_cannot_be_read_is_named(config: Config) -> None:
    log_of(config).mkdir()
    with pytest.raises(CannotOpen, match="x.db-wal is in the way"):
        async with open_cache(config):
            pass


async def test_a_file_with_another_name_is_refused(config: Config, tmp_path: Path) -> None:
    async with open_cache(config) as cache:
        await cache.write(Set("default/k", b"1", JSON))
    other = tmp_path / "elsewhere.db"
    other.hardlink_to(config.file)
    contents = other.read_bytes()
    for path in (config.file, other):
        with pytest.raises(CannotOpen, match=f"{path}: the file has 2 names .hard links."):
            async with open_cache(Config(database=path)):
                pass
    assert other.read_bytes() == contents
    assert {path.name for path in tmp_path.iterdir()} == {"x.db", "elsewhere.db"}
    other.unlink()
    async with open_cache(config) as cache:
        assert await cache.get("default/k") is not None
