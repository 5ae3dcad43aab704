"""An fsync fails, the service restarts without a reboot, and then the power fails.

The kernel may keep the pages of a failed fsync in memory as if they had been written. So the next
process to open the database reads them, although they are not on the disk.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from tenantbase.errors import StoreError
from tenantbase.interfaces.sqlite import queries as sql_queries
from tests.faults.disk import SECTOR, Disk, File, file_of, written_by
from tests.faults.strace import FILE_CALLS, Call, injecting, parsed, strace

ROOT = Path(__file__).parents[2]
SYNCS = ("fsync", "fdatasync")
FILES = {"x.db", "x.db-wal", "x.db-journal"}
IMAGES = 20  # images for each moment at which something changed

# Writes until an outcome is unknown, and logs each acknowledgement by one write.
SERVICE = """
    import asyncio, json, os, sys
    from contextlib import AsyncExitStack
    from pathlib import Path
    from tenantbase.process.config import Config
    from tenantbase.entry import JSON
    from tenantbase.errors import CannotOpen, OutcomeUnknown
    from tenantbase.interfaces.sqlite.recovery import LeftoverWal
    from tenantbase.commands import Set
    from tenantbase.process.wiring import open_cache

    directory, name, how = sys.argv[1:]
    if how == "careless":
        LeftoverWal.rewrite = lambda self: None

    async def main():
        acks = os.open(f"{directory}/acks", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        async with AsyncExitStack() as stack:
            try:
                opening = open_cache(Config(database=Path(directory) / "x.db"))
                cache = await stack.enter_async_context(opening)
            except CannotOpen:
                print("not opened")
                return
            for number in range(9):
                value = json.dumps(f"{name} {number} " + "x" * 6000)
                try:
                    (applied,) = await cache.write(Set("default/k", value.encode(), JSON))
                except OutcomeUnknown:
                    print("unknown")
                    break
                os.write(acks, json.dumps([applied.entry.version, value]).encode())
            if how == "killed":
                sys.stdout.flush()
                os._exit(0)

    asyncio.run(main())
"""


class Forgetful(Disk):
    """A disk under a kernel that considers pages written although their fsync has failed.

    When the same bytes are rewritten in place, each sector may arrive or not, but none is damaged:
    a completely written sector never holds anything else.
    """

    def __init__(self, directory: str) -> None:
        super().__init__(directory, FILES)
        self._memory: dict[str, bytearray] = {}
        self._again: list[tuple[Call, File]] = []

    def replay(self, call: Call) -> bool:
        file = self._file(call)
        if file is None:
            return super().replay(call)
        if call.name in SYNCS:
            return self._synced(call, file)
        memory = self._memory.setdefault(file_of(call) or "", bytearray())
        if call.name == "ftruncate":
            del memory[int(call.args.rpartition(", ")[2]) :]
        elif call.name == "pwrite64":
            if self._is_there(call, memory):
                self._again.append((call, file))
                return True
            at, data = _written(call)
            memory.extend(bytes(max(0, at - len(memory))))
            memory[at : at + len(data)] = data
        return super().replay(call)

    def found(self, chance: random.Random) -> dict[str, bytes]:
        files = super().found(chance)
        for call, file in self._again:
            for name in files:
                if self._names.get(name) is file:
                    contents = bytearray(files[name])
                    _put(contents, call, chance)
                    files[name] = bytes(contents)
        return files

    def _synced(self, call: Call, file: File) -> bool:
        due = [each for each in self._again if each[1] is file and each[0].began < call.began]
        self._again = [each for each in self._again if each not in due]
        if call.result < 0:
            file.pending = [each for each in file.pending if each[0] >= call.began]
            return True
        changed = super().replay(call)
        for each, _ in due:
            _put(file.safe, each)
        return changed

    def _is_there(self, call: Call, memory: bytearray) -> bool:
        at, data = _written(call)
        return memory[at : at + len(data)] == data


def _written(call: Call) -> tuple[int, bytes]:
    return int(call.args.rpartition(", ")[2]), written_by(call)


def _put(contents: bytearray, call: Call, chance: random.Random | None = None) -> None:
    """Apply a write call; with ``chance``, only to some of its sectors."""
    at, data = _written(call)
    for start in range(0, len(data), SECTOR):  # such writes begin at a sector boundary
        if chance is None or chance.random() < 0.5:
            piece = data[start : start + SECTOR]
            contents.extend(bytes(max(0, at + start - len(contents))))
            contents[at + start : at + start + len(piece)] = piece


class Moment(NamedTuple):
    """Possible contents, and the values, by version, that had been acknowledged by then."""

    files: dict[str, bytes]
    acknowledged: dict[int, str]


def serve(directory: Path, name: str, how: str, fault: str | None = None) -> tuple[str, list[Call]]:
    """Run the service to its end. Returns what it printed, and its calls."""
    with tempfile.NamedTemporaryFile("r", newline="\n") as trace:
        options = ["-f", "-y", "-xx", "-s", "99999999", "-e", "signal=none", "-o", trace.name]
        options += ["-e", f"trace={FILE_CALLS}"] + (["-e", f"inject={fault}"] if fault else [])
        told = output([strace(), *options, "--", *service(directory, name, how)])
        return told, list(parsed(trace))


def service(directory: Path, name: str, how: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(SERVICE), str(directory), name, how]


def output(command: list[str]) -> str:
    run = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, text=True, timeout=60, cwd=ROOT
    )
    return run.stdout


def moments(directory: Path, before: list[Call], after: list[Call]) -> Iterator[Moment]:
    """The outcomes of a power loss at every moment of the second of two runs."""
    disk = Forgetful(str(directory))
    acknowledged: dict[int, str] = {}
    lines = max(call.began for call in before) + 1
    for call in [*before, *(call._replace(began=call.began + lines) for call in after)]:
        changed = disk.replay(call)
        if call.name == "write" and file_of(call) == str(directory / "acks"):
            version, value = json.loads(written_by(call))
            acknowledged[version] = value
            changed = True
        if changed and acknowledged and call.began >= lines:
            for number in range(IMAGES):
                yield Moment(disk.found(random.Random(f"{call.began} {number}")), acknowledged)


def broken(moment: Moment, scratch: Path) -> str | None:
    """The promise that an image breaks, or None."""
    for name in FILES:
        (scratch / name).unlink(missing_ok=True)
    (scratch / "x.db-shm").unlink(missing_ok=True)
    for name, contents in moment.files.items():
        (scratch / name).write_bytes(contents)
    least = max(moment.acknowledged)
    with closing(sqlite3.connect(scratch / "x.db")) as database:
        database.execute("PRAGMA synchronous = OFF")
        try:
            integrity = database.execute("PRAGMA integrity_check").fetchall()
            version = sql_queries.last_version(database)
            (entry,) = sql_queries.read(database, ["default/k"], 0.0)
        except sqlite3.Error as error:
            return f"it cannot be read: {error}"
    if integrity != [("ok",)]:
        return f"the integrity check says {integrity}"
    if version < least:
        return f"it is at version {version}, though {least} was acknowledged"
    if entry is None or isinstance(entry, StoreError) or entry.version != version:
        return f"it is at version {version}, and has not what was written then"
    if entry.value.decode() != moment.acknowledged.get(version, entry.value.decode()):
        return f"of version {version} it has another value than was acknowledged"
    return None


def losses(directory: Path, scratch: Path, end: str, start: str) -> list[str]:
    """The promises that a power loss breaks after a failed fsync and a restart of the service."""
    # Opening a new database syncs 13 times, and each of the writes once.
    told, before = serve(directory, "first", end, "fdatasync,fsync:error=EIO:when=16")
    assert told == "unknown\n"
    told, after = serve(directory, "second", start)
    assert told == ""
    found = [broken(moment, scratch) for moment in moments(directory, before, after)]
    assert len(found) > 100
    return [each for each in found if each is not None]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path.resolve() / "disk"


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_after_a_failed_fsync_and_a_restart_nothing_is_lost(
    directory: Path, tmp_path: Path, end: str
) -> None:
    assert losses(directory, tmp_path, end, "careful") == []


def test_without_rewriting_the_log_writes_are_lost(directory: Path, tmp_path: Path) -> None:
    assert any("acknowledged" in each for each in losses(directory, tmp_path, "closed", "careless"))


def test_a_log_that_cannot_be_rewritten_is_left_as_it_is(directory: Path) -> None:
    assert output(service(directory, "first", "killed")) == ""
    left = {name: (directory / name).read_bytes() for name in ("x.db", "x.db-wal")}
    assert left["x.db-wal"]
    # SQLite syncs with fdatasync, so this is our own fsync of the log.
    failing = injecting("fsync:error=EIO", service(directory, "second", "careful"))
    assert output(failing) == "not opened\n"
    assert {name: (directory / name).read_bytes() for name in left} == left
    assert output(service(directory, "third", "careful")) == ""
    with closing(sqlite3.connect(directory / "x.db")) as database:
        assert sql_queries.last_version(database) == 18


def test_a_directory_that_cannot_be_synced_holds_no_database(directory: Path) -> None:
    # SQLite ignores that error, and a power loss may take the whole log.
    failing = injecting("fsync:error=EIO", service(directory, "first", "careful"))
    assert output(failing) == "not opened\n"
    assert output(service(directory, "second", "careful")) == ""
