"""Copying a live database leaves processor time and the disk to others."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tenantbase.interfaces.sqlite.copying import copy_database, unjournaled
from tenantbase.interfaces.sqlite.pacing import Pace, due_bytes, sync_in_pieces
from tests.cli.test_maintenance import fill

ENTRIES = 900
VALUE_BYTES = 40_000  # two syncs are due
PIECE_BYTES = 4 << 20


class Counted(Pace):
    """Counts pauses, and takes none."""

    def __init__(self) -> None:
        super().__init__()
        self.rests = 0

    def rest(self) -> None:
        self.rests += 1


@pytest.fixture
def source(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    fill(tmp_path / "x.db", ENTRIES, size=VALUE_BYTES)
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as connection:
        yield connection


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "copy.db", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def test_it_is_synced_now_and_then_and_never_in_a_snapshot(
    source: sqlite3.Connection, file: int, tmp_path: Path
) -> None:
    pace, sizes = Counted(), []

    def sync() -> None:
        # While anyone holds a snapshot, the servers' log cannot start over.
        source.execute("PRAGMA wal_checkpoint(RESTART)")
        sizes.append(os.fstat(file).st_size)

    with unjournaled(str(tmp_path / "copy.db"), file) as target:
        copied = copy_database(source, target, lambda count: None, sync, pace)
    assert copied.entries == ENTRIES
    assert len(sizes) == ENTRIES * VALUE_BYTES // due_bytes(0)
    assert sizes[0] >= due_bytes(0)  # what was copied so far has been written to the file
    steps = ENTRIES * VALUE_BYTES // (1 << 20)  # of a mebibyte
    assert pace.rests >= steps


def test_a_large_copy_is_synced_a_bounded_number_of_times() -> None:
    size = syncs = 0
    while size < 1 << 40:
        size += due_bytes(size)
        syncs += 1
    assert syncs < 300


def test_each_piece_is_followed_by_a_pause(file: int) -> None:
    pace = Counted()
    sync_in_pieces(file, pace)  # an empty file has none
    assert pace.rests == 0
    os.ftruncate(file, 2 * PIECE_BYTES + 1)
    sync_in_pieces(file, pace)
    assert pace.rests == 3
