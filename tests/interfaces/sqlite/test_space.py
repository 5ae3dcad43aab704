"""The write-ahead log stays bounded; when it cannot, and when the disk fills up, that is said in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tenantbase.commands import Set
from tenantbase.entry import OCTETS
from tenantbase.interfaces.sqlite import checkpoints, sizes
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.listing import KeyRange
from tenantbase.troubles import Trouble
from tests.fakes import Granted, RecordingSeqlock
from tests.interfaces.sqlite.test_store import Files
from tests.servers import poll_async

MIB = 1 << 20
NOW = 1_000.0


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[Files]:
    files = Files(tmp_path)
    yield files
    await files.close()


async def fill(store: SqliteStore, mebibytes: int) -> None:
    """Write, in groups of 2 MiB, over the same few keys."""
    for group in range(mebibytes // 2):
        sets = [
            Granted(Set(f"default/k{n}", bytes([group % 256]) * (128 << 10), OCTETS))
            for n in range(16)
        ]
        written = await store.write(sets, NOW, RecordingSeqlock())
        assert all(isinstance(each, tuple) for each in written.outcomes)


async def test_readers_that_never_leave_a_gap_do_not_make_the_log_grow(files: Files) -> None:
    store = await files.open()
    await fill(store, 2)

    async def read_for_ever() -> None:
        while True:
            await store.scan(KeyRange(), 100, 4 * MIB, NOW)

    readers = [asyncio.create_task(read_for_ever()) for _ in range(8)]
    await fill(store, 96)
    size = files.wal.stat().st_size
    assert not any(reader.done() for reader in readers)
    for reader in readers:
        reader.cancel()
    await asyncio.wait(readers)
    assert size < 48 * MIB
    assert (await store.size()).log_bytes < 48 * MIB
    assert store.troubles == []


async def test_a_foreign_reader_that_never_ends_is_reported_until_it_does(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sizes, "_GROWN_BYTES", 24 * MIB)
    monkeypatch.setattr(checkpoints, "_KEPT_LOG_BYTES", 16 * MIB)
    store = await files.open()
    await fill(store, 2)
    with files.foreign() as foreign:
        foreign.execute("BEGIN")
        foreign.execute("SELECT count(*) FROM entries").fetchone()
        await fill(store, 32)
        for _ in range(3):
            assert (await store.size()).log_bytes > 24 * MIB
            assert store.troubles == [Trouble.LOG_GROWS]
        foreign.execute("COMMIT")
    # Without any further write: the log gives its space back.
    for _ in range(2):
        await store.size()
        await poll_async(lambda: files.wal.stat().st_size < MIB, "the log is truncated")
    assert store.troubles == []
    said = [record.getMessage() for record in caplog.records]
    assert len([each for each in said if each.startswith("log grows: the write-ahead log")]) == 1
    assert len([each for each in said if each.startswith("log grows: over")]) == 1


async def test_a_disk_that_is_nearly_full_is_said_once(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = await files.open()
    await store.size()
    assert store.troubles == []
    monkeypatch.setattr(sizes, "_FLOOR_BYTES", 1 << 60)
    monkeypatch.setattr(sizes, "_FLOOR_SHARE", 1)  # whatever is left is too little
    for _ in range(3):
        size = await store.size()
        assert store.troubles == [Trouble.DISK_NEARLY_FULL]
    assert size.free_bytes is not None
    monkeypatch.undo()
    await store.size()
    assert store.troubles == []
    said = [each.getMessage() for each in caplog.records if "disk nearly full" in each.getMessage()]
    assert len(said) == 2 and said[0].endswith("MiB are left for the database")


async def test_a_full_disk_stays_nearly_full_while_the_reserve_is_used(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reserve of a small disk is larger than the space below which it is nearly full."""
    store = await files.open()
    left = (await store.size()).free_bytes
    assert left is not None
    monkeypatch.setattr(sizes, "_FLOOR_SHARE", 1)
    monkeypatch.setattr(sizes, "_OVER_SHARE", 1)
    monkeypatch.setattr(sizes, "_OVER_BYTES", left)  # whatever others write meanwhile
    monkeypatch.setattr(sizes, "_FLOOR_BYTES", 2 * left)
    await store.size()
    assert store.troubles == [Trouble.DISK_NEARLY_FULL]
    monkeypatch.setattr(sizes, "_FLOOR_BYTES", left // 2)  # as if half of it were free again
    await store.size()
    assert store.troubles == [Trouble.DISK_NEARLY_FULL]
    monkeypatch.setattr(sizes, "_OVER_BYTES", 0)
    await store.size()
    assert store.troubles == []
