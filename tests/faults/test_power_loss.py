"""A power loss at any moment loses no acknowledged write, unless the disk lies."""

from __future__ import annotations

import random

from tests.faults import power_loss
from tests.faults.disk import SECTOR, Disk
from tests.faults.strace import Call


def test_no_acknowledged_write_is_lost_in_a_power_loss() -> None:
    number, lost = power_loss.run(seed=1, count=400, rounds=40, processes=2)
    assert number > 300
    assert lost == []


def printed(data: str | bytes) -> str:
    """A text as strace prints it with -xx."""
    data = data.encode() if isinstance(data, str) else data
    return "".join(f"\\x{byte:02x}" for byte in data)


def opened(name: str) -> Call:
    path = f"/d/{name}"
    return Call(0, "openat", f'AT_FDCWD, "{printed(path)}", O_RDWR|O_CREAT, 0600', 3, path)


def on(file: str) -> str:
    return f"3<{printed(file)}>"


def wrote(began: int, data: bytes, offset: int = 0) -> Call:
    args = f'{on("/d/x")}, "{printed(data)}", {len(data)}, {offset}'
    return Call(began, "pwrite64", args, len(data), None)


def synced(began: int, what: str = "/d/x") -> Call:
    return Call(began, "fsync", on(what), 0, None)


def found(*calls: Call) -> set[bytes | None]:
    """The possible contents of the file x after a power loss, from a few hundred samples."""
    disk = Disk("/d", {"x"})
    for call in calls:
        disk.replay(call)
    return {disk.found(random.Random(seed)).get("x") for seed in range(300)}


MADE = (opened("x"), synced(1, "/d"))


def test_a_file_may_be_missing_until_its_directory_was_synced() -> None:
    assert found(opened("x")) == {None, b""}
    assert found(*MADE) == {b""}


def test_only_synced_data_is_certain() -> None:
    old = (*MADE, wrote(2, b"old"), synced(3))
    assert found(*old) == {b"old"}
    assert {b"old", b"new"} <= found(*old, wrote(4, b"new"))
    assert found(*old, wrote(4, b"new"), synced(5)) == {b"new"}


def test_a_sync_does_not_cover_a_write_that_began_after_it() -> None:
    # The sync returned after the write, but began before it, and need not cover it.
    assert {b"", b"late"} <= found(*MADE, wrote(5, b"late"), synced(4))


def test_sectors_may_be_lost_one_by_one() -> None:
    both = found(*MADE, wrote(2, b"a" * SECTOR + b"b" * SECTOR))
    assert bytes(SECTOR) + b"b" * SECTOR in both
    assert b"a" * SECTOR in both


def test_writes_may_arrive_in_another_order() -> None:
    either = found(*MADE, wrote(2, b"a"), wrote(3, b"b", SECTOR))
    assert bytes(SECTOR) + b"b" in either and b"a" in either
