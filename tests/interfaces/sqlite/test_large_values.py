"""Large values: stored and read whole, in little more memory than their size."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest

from tenantbase.commands import Increment, Set
from tenantbase.entry import OCTETS, Entry
from tenantbase.errors import Damaged, LeftOut, WrongType
from tenantbase.interfaces.sqlite.large_values import LARGE_BYTES
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.listing import KeyRange, place_of
from tests.damage import damage
from tests.fakes import Granted, RecordingSeqlock

NOW = 1_000_000.0
MIB = 1 << 20
MARKER = b"damaged!"
SIZES = [LARGE_BYTES, LARGE_BYTES + 1, LARGE_BYTES + 1, 9 * MIB, LARGE_BYTES + 7, 5, 6 * MIB, 0]

# Runs an operation on a store, and prints by how many bytes it raised the peak memory.
PROGRAM = """
import asyncio, sys
from tenantbase.commands import Set
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.listing import KeyRange
from tests.fakes import Granted, RecordingSeqlock

def peak():
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) << 10

async def main(path, operation, size):
    store = await SqliteStore.open(path, RecordingSeqlock().lock)
    before = peak()
    if operation == "write":
        group = [Granted(Set("default/k", bytes(size), "a/b"))]
        (outcome,) = (await store.write(group, 1e6, RecordingSeqlock())).outcomes
        assert isinstance(outcome, tuple)
    elif operation == "read":
        (entry,) = await store.read(["default/k"], 1e6)
        assert len(entry.value) == size
    else:
        (entry,), _ = await store.scan(KeyRange(), 10, 1, 1e6)
        assert len(entry.value) == size
    print(peak() - before)
    await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


async def write(store: SqliteStore, *commands: Set | Increment) -> list[object]:
    group = [Granted(command) for command in commands]
    return list((await store.write(group, NOW, RecordingSeqlock())).outcomes)


async def opened(path: Path) -> SqliteStore:
    return await SqliteStore.open(path, RecordingSeqlock().lock)


async def test_values_of_all_sizes_replace_each_other(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")
    for size in SIZES:
        value = content(size)
        (outcome,) = await write(store, Set("default/k", value, OCTETS, expires_at=NOW + size + 1))
        assert isinstance(outcome, tuple)
        (found,) = await store.read(["default/k"], NOW)
        assert isinstance(found, Entry) and found.value == value
        assert (found.version, found.expires_at) == (outcome[0].entry.version, NOW + size + 1)
        (listed,), _ = await store.scan(KeyRange(), 10, 1, NOW)
        assert listed == found
    await store.close()


async def test_large_values_beside_small_ones(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")
    large = {key: content(LARGE_BYTES + n) for n, key in enumerate(("default/b", "default/d"), 1)}
    keys = ["default/a", "default/b", "default/c", "default/d"]
    await write(store, *(Set(key, large.get(key, key.encode()), OCTETS) for key in keys))
    await store.close()
    store = await opened(tmp_path / "x.db")
    read = await store.read([*keys, "default/e"], NOW)
    first, second, *left_out = read
    assert isinstance(first, Entry) and first.value == b"default/a"
    assert isinstance(second, Entry) and second.value == large["default/b"]
    assert [type(each) for each in left_out] == [LeftOut] * 3
    listed: list[Entry] = []
    wanted, more = KeyRange(), True
    while more:
        page, more = await store.scan(wanted, 10, MIB, NOW)
        listed += [item for item in page if isinstance(item, Entry)]
        wanted = wanted.after(place_of(page[-1])) if page else wanted
    assert {entry.key: entry.value for entry in listed} == {
        key: large.get(key, key.encode()) for key in keys
    }
    (outcome,) = await write(store, Increment("default/d", 1, 0))
    assert isinstance(outcome, WrongType)
    await store.close()


async def test_a_damaged_large_value_fails_alone(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")
    large = content(LARGE_BYTES + 1)
    await write(
        store,
        Set("default/bad", MARKER * (LARGE_BYTES // len(MARKER) + 1), OCTETS),
        Set("default/good", large, OCTETS),
    )
    await store.close()
    damage(tmp_path / "x.db", MARKER)
    store = await opened(tmp_path / "x.db")
    bad, good = await store.read(["default/bad", "default/good"], NOW)
    assert isinstance(bad, Damaged)
    assert isinstance(good, Entry) and good.value == large
    newer = content(LARGE_BYTES + 2)
    refused, written = await write(
        store, Set("default/bad", newer, OCTETS), Set("default/good", newer, OCTETS)
    )
    assert isinstance(refused, Damaged) and isinstance(written, tuple)
    (good,) = await store.read(["default/good"], NOW)
    assert isinstance(good, Entry) and good.value == newer
    await store.close()


@pytest.mark.parametrize("operation", ["write", "read", "scan"])
async def test_a_large_value_is_in_memory_once(tmp_path: Path, operation: str) -> None:
    size = 48 * MIB
    if operation != "write":
        store = await opened(tmp_path / "x.db")
        await write(store, Set("default/k", bytes(size), "a/b"))
        await store.close()
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        str(tmp_path / "x.db"),
        operation,
        str(size),
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await child.communicate()
    assert child.returncode == 0
    # Besides the value, SQLite's cache of pages: 16 MiB.
    assert int(told) < size + 32 * MIB
