"""Simulates a power loss at every moment of a writer's run, and checks what is left.

    python -m tests.faults.power_loss [--seed N] [--images N] [--rounds N] [--processes N]

A writer's system calls are recorded with strace. From the recording, it makes thousands of disk
images that a power loss could leave (see ``disk.py``), and opens each.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import json
import math
import random
import sqlite3
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final, NamedTuple

from tenantbase.coherence.tag_seqlock import WriteLock
from tenantbase.entry import Entry
from tenantbase.errors import TenantbaseError
from tenantbase.interfaces.sqlite import queries as sql_queries
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.interfaces.sqlite.usage import recount
from tenantbase.listing import KeyRange
from tests.faults.disk import Disk, file_of, written_by
from tests.faults.strace import Call, recorded
from tests.faults.writer import ACKS, DATABASE

_STORE_EVERY: Final = 20  # the product also opens one of this many images
_ALL: Final = 1 << 40
_PER_WRITER: Final = 2_000  # images per recording, close to one for each moment
_Row = tuple[int, str]  # version, value


class Lost(Exception):
    """An image that breaks a promise. The text names the promise, and how to reproduce the image."""


class Image(NamedTuple):
    """The files that a power loss may leave.

    Attributes:
        name: seed, call and number, which suffice to reproduce it.
        at: the index of the last call made.
        files: contents by name.
    """

    name: str
    at: int
    files: dict[str, bytes]


class _Acknowledged(NamedTuple):
    """One line of the writer's log: an acknowledged transaction."""

    at: int  # the index of the call that wrote the line
    first: int  # the transaction's first version
    last: int


@dataclass
class Recording:
    """A recorded writer: its calls, its acknowledgements, the contents at each version."""

    directory: Path
    calls: list[Call]
    acknowledged: list[_Acknowledged]
    values: dict[int, str]  # by version
    changes: Sequence[tuple[str, str]]  # (kind, key) of version 1, 2, ...

    def state(self, version: int) -> dict[str, _Row]:
        """The entries at a version."""
        state: dict[str, _Row] = {}
        for number, (kind, key) in enumerate(self.changes[:version], 1):
            if kind == "set":
                state[key] = (number, self.values[number])
            elif kind == "reset":  # the key is a prefix
                state = {other: row for other, row in state.items() if not other.startswith(key)}
            else:
                state.pop(key, None)
        return state


def record(
    directory: Path, *, seed: int = 1, rounds: int = 100, processes: int = 1, bug: str | None = None
) -> Recording:
    """Run a writer in an empty directory, and record it.

    Raises:
        RuntimeError: strace cannot be used here.
    """
    command = [sys.executable, "-m", "tests.faults.writer", str(directory)]
    command += ["--seed", str(seed), "--rounds", str(rounds), "--processes", str(processes)]
    calls = recorded(command + (["--break", bug] if bug else []))
    with closing(sqlite3.connect(directory / DATABASE)) as database:
        events, _ = sql_queries.changes(database, 0, _ALL)
    assert [each.version for each in events] == list(range(1, len(events) + 1))
    changes = [(each.kind, each.key) for each in events]
    acknowledged, values = _acknowledged(directory, calls, changes)
    return Recording(directory, calls, acknowledged, values, changes)


def _acknowledged(
    directory: Path, calls: Sequence[Call], changes: Sequence[tuple[str, str]]
) -> tuple[list[_Acknowledged], dict[int, str]]:
    deletes: dict[str, list[int]] = {}  # versions not acknowledged yet, the newest first
    for version in range(len(changes), 0, -1):
        kind, key = changes[version - 1]
        if kind != "set":
            deletes.setdefault(key, []).append(version)
    lines: list[_Acknowledged] = []
    values: dict[int, str] = {}
    for at, call in enumerate(calls):
        if call.name != "write" or file_of(call) != str(directory / ACKS):
            continue
        versions = []
        for key, version, value in json.loads(written_by(call)):
            if version is None:
                version = deletes[key].pop()
            else:
                values[version] = value
            versions.append(version)
        if versions:
            lines.append(_Acknowledged(at, min(versions), max(versions)))
    assert sum(line.last - line.first + 1 for line in lines) == len(changes)
    return lines, values


def images(recording: Recording, seed: int, count: int) -> Iterator[Image]:
    """About ``count`` images, spread over all moments at which something changed."""
    moments = _moments(recording)
    chance = random.Random(seed)
    disk = _disk(recording)
    for at, call in enumerate(recording.calls):
        disk.replay(call)
        if at in moments:
            for number in range(int(count / len(moments) + chance.random())):
                name = f"{seed}/{at}/{number}"
                yield Image(name, at, disk.found(random.Random(name)))


def _moments(recording: Recording) -> set[int]:
    disk = _disk(recording)
    changed = {at for at, call in enumerate(recording.calls) if disk.replay(call)}
    return changed | {line.at for line in recording.acknowledged}


def _disk(recording: Recording) -> Disk:
    files = {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-journal"}
    return Disk(str(recording.directory), files)


class Examiner:
    """Opens images and compares them with the acknowledged writes."""

    def __init__(self, recording: Recording, scratch: Path) -> None:
        self._recording = recording
        self._scratch = scratch
        self._times = [line.at for line in recording.acknowledged]
        self._highest = list(accumulate((line.last for line in recording.acknowledged), max))
        self._within = {
            version for line in recording.acknowledged for version in range(line.first, line.last)
        }

    def examine(self, image: Image) -> None:
        """Raises Lost."""
        told = bisect.bisect_right(self._times, image.at)
        least = self._highest[told - 1] if told else 0
        for name, contents in image.files.items():
            (self._scratch / name).write_bytes(contents)
        try:
            if not told or zlib.crc32(image.name.encode()) % _STORE_EVERY == 0:
                asyncio.run(self._open(least))
            if told:
                self._look(least)
        except (sqlite3.Error, TenantbaseError) as error:
            raise Lost(f"image {image.name} cannot be used: {error}") from error
        except Lost as lost:
            raise Lost(f"image {image.name}: {lost}") from None
        finally:
            for path in self._scratch.iterdir():
                path.unlink()

    def _look(self, least: int) -> None:
        with closing(sqlite3.connect(self._scratch / DATABASE)) as database:
            database.execute("PRAGMA synchronous = OFF")
            integrity = database.execute("PRAGMA integrity_check").fetchall()
            if integrity != [("ok",)]:
                raise Lost(f"the integrity check says {integrity}")
            version = sql_queries.last_version(database)
            changes, _ = sql_queries.changes(database, 0, _ALL)
            items, _ = sql_queries.scan(database, KeyRange(), _ALL, _ALL, 0.0)
            miscounted = recount(database)
        if miscounted:
            raise Lost(f"the usage of tenants is not that of their entries: {miscounted}")
        if version < least:
            raise Lost(f"it is at version {version}, though {least} was acknowledged")
        if version in self._within:
            raise Lost(f"it is at version {version}, in the middle of a transaction")
        if [(each.kind, each.key) for each in changes] != self._recording.changes[:version]:
            raise Lost(f"its change log is not that of version {version}")
        entries = [item for item in items if isinstance(item, Entry)]
        state = {each.key: (each.version, each.value.decode()) for each in entries}
        if state != self._recording.state(version):
            raise Lost(f"its entries are not those of version {version}")

    async def _open(self, least: int) -> None:
        """Open the image as the service would, and write to it."""
        lock = WriteLock(self._scratch / "lock")
        try:
            store = await SqliteStore.open(self._scratch / DATABASE, lock.held)
            try:
                version = await store.last_version()
                await store.check()
            finally:
                await store.close()
        finally:
            lock.close()
        if version < least:
            raise Lost(f"opened, it is at version {version}, though {least} was acknowledged")


def run(
    *, seed: int, count: int, rounds: int, processes: int, bug: str | None = None
) -> tuple[int, list[Lost]]:
    """Make and open about ``count`` images, recording a writer for every two thousand.

    Args:
        seed: of the first writer; each later one gets the next seed.

    Returns: the number of images, and the errors found.
    """
    number = 0
    lost: list[Lost] = []
    for each in range(seed, seed + math.ceil(count / _PER_WRITER)):
        wanted = min(_PER_WRITER, count - _PER_WRITER * (each - seed))
        with tempfile.TemporaryDirectory(prefix="tenantbase-power-") as directory:
            recording = record(
                Path(directory).resolve(), seed=each, rounds=rounds, processes=processes, bug=bug
            )
        made, broken = _examined(recording, each, wanted)
        number += made
        lost += broken
    return number, lost


def _examined(recording: Recording, seed: int, count: int) -> tuple[int, list[Lost]]:
    fast = "/dev/shm" if Path("/dev/shm").is_dir() else None
    number = 0
    lost: list[Lost] = []
    with tempfile.TemporaryDirectory(prefix="tenantbase-power-", dir=fast) as scratch:
        examiner = Examiner(recording, Path(scratch))
        for image in images(recording, seed, count):
            number += 1
            try:
                examiner.examine(image)
            except Lost as error:
                lost.append(error)
    return number, lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=150, help="of a handful of transactions")
    parser.add_argument("--processes", type=int, default=2, help="that write")
    given = parser.parse_args()
    count, lost = run(
        seed=given.seed, count=given.images, rounds=given.rounds, processes=given.processes
    )
    print(f"power loss: seed {given.seed}, {count:,} images, {len(lost)} broken")
    for each in lost[:20]:
        print(f"  {each}")
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
