"""Models a disk that loses power: the contents that a recorded program's writes may leave.

It assumes only what POSIX promises, and sectors of 512 bytes:

- what was written before an fsync of its file began is durable once the fsync has returned 0;
- after that, each sector may hold its old contents, any of the newer ones or, if it was being
  written, garbage, in any combination; and the file may have any size that it has had since;
- a file is certainly created or removed only after an fsync of its directory.

A write does not damage other bytes of its sector: SQLite assumes this ("powersafe overwrite"), and
disks of the last decades guarantee it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from tests.faults.strace import Call, text

SECTOR: Final = 512


@dataclass(frozen=True)
class _Write:
    offset: int
    data: bytes


@dataclass(frozen=True)
class _Resize:
    size: int


_Change = _Write | _Resize


@dataclass
class File:
    """A file's durable contents, and its later changes."""

    safe: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, _Change]] = field(default_factory=list)

    def sync(self, began: int) -> None:
        """An fsync that began at that moment has returned."""
        for _, change in (each for each in self.pending if each[0] < began):
            _apply(self.safe, change)
        self.pending = [each for each in self.pending if each[0] >= began]

    def found(self, chance: random.Random) -> bytes:
        """The possible contents if power is lost now."""
        changes = [change for _, change in self.pending]
        contents = bytearray(self.safe)
        for change in chance.choice(_LOSSES)(chance, changes):
            _apply(contents, change)
        return bytes(contents)


def _apply(contents: bytearray, change: _Change) -> None:
    if isinstance(change, _Resize):
        del contents[change.size :]
        contents.extend(bytes(change.size - len(contents)))
    else:
        contents.extend(bytes(max(0, change.offset - len(contents))))
        contents[change.offset : change.offset + len(change.data)] = change.data


_Loss = Callable[[random.Random, Sequence[_Change]], list[_Change]]


def _all_kept(chance: random.Random, changes: Sequence[_Change]) -> list[_Change]:
    return list(changes)


def _all_lost(chance: random.Random, changes: Sequence[_Change]) -> list[_Change]:
    return []


def _end_lost(chance: random.Random, changes: Sequence[_Change]) -> list[_Change]:
    return list(changes[: chance.randint(0, len(changes))])


def _beginning_lost(chance: random.Random, changes: Sequence[_Change]) -> list[_Change]:
    return list(changes[chance.randint(0, len(changes)) :])


def _some_lost(chance: random.Random, changes: Sequence[_Change]) -> list[_Change]:
    share = chance.random()
    return [change for change in changes if chance.random() < share]


def _torn(chance: random.Random, changes: Sequence[_Change]) -> list[_Change]:
    """Each sector, independently, is new, old, or garbage."""
    kept, rubbish = chance.random(), chance.choice((0.0, 0.0, 0.1))
    survivors: list[_Change] = []
    for change in changes:
        if isinstance(change, _Resize):
            survivors += [change] if chance.random() < kept else []
            continue
        for piece in _sectors(change):
            if chance.random() < kept:
                survivors.append(piece)
            elif chance.random() < rubbish:
                survivors.append(_Write(piece.offset, chance.randbytes(len(piece.data))))
    return survivors


def _size_only(chance: random.Random, changes: Sequence[_Change]) -> list[_Change]:
    """The file has grown, but the data written there is missing."""
    ends = [c.offset + len(c.data) for c in changes if isinstance(c, _Write)]
    return [_Write(max(ends) - 1, b"\0")] if ends else []


def _last_torn(chance: random.Random, changes: Sequence[_Change]) -> list[_Change]:
    """Writes arrive in order, and power is lost in the middle of one."""
    if not changes:
        return []
    at = chance.randrange(len(changes))
    return [*changes[:at], *_torn(chance, changes[at : at + 1])]


_LOSSES: Final[Sequence[_Loss]] = (
    _all_kept,
    _all_lost,
    _end_lost,
    _beginning_lost,
    _some_lost,
    _torn,
    _size_only,
    _last_torn,
)


def _sectors(write: _Write) -> list[_Write]:
    pieces = []
    at, end = write.offset, write.offset + len(write.data)
    while at < end:
        until = min(end, (at // SECTOR + 1) * SECTOR)
        pieces.append(_Write(at, write.data[at - write.offset : until - write.offset]))
        at = until
    return pieces


class Disk:
    """The files of one directory, changed by the calls of a trace.

    Args:
        directory: an absolute path, empty at first. Everything outside it is ignored.
        names: the files to model; all others are ignored.
    """

    def __init__(self, directory: str, names: Collection[str]) -> None:
        self._directory = PurePosixPath(directory)
        self._matter = names
        self._names: dict[str, File] = {}
        self._safe_names: dict[str, File] = {}
        self._renames: list[tuple[int, str, File | None]] = []

    def replay(self, call: Call) -> bool:
        """Apply one call. Returns: whether the possible contents have changed."""
        if call.result < 0:
            return False
        match call.name:
            case "openat":
                return self._open(call)
            case "write" | "pwrite64":
                return self._write(call)
            case "ftruncate":
                file = self._file(call)
                if file is not None:
                    size = int(call.args.rpartition(", ")[2])
                    file.pending.append((call.began, _Resize(size)))
                return file is not None
            case "fsync" | "fdatasync":
                return self._sync(call)
            case "unlink":
                return self._name(call, _paths(call)[0], None)
            case "unlinkat":
                return self._name(call, _paths(call)[-1], None)
            case "fallocate" if self._file(call) is None:
                return False  # the reserve, whose contents are never read
            case _:
                # Not used by SQLite today. If it ever is, this model must support it.
                if str(self._directory) in text(call.args).decode("latin-1"):
                    raise NotImplementedError(f"{call.name} on the database's files")
                return False

    def found(self, chance: random.Random) -> dict[str, bytes]:
        """The files, by name, if power is lost now."""
        names = dict(self._safe_names)
        for _, name, file in self._renames[: chance.randint(0, len(self._renames))]:
            _rename(names, name, file)
        return {name: file.found(chance) for name, file in names.items()}

    def _open(self, call: Call) -> bool:
        name = self._inside(call.file)
        if name is None or name in self._names or "O_CREAT" not in call.args:
            return False
        return self._name(call, str(self._directory / name), File())

    def _write(self, call: Call) -> bool:
        file = self._file(call)
        if file is None:
            return False
        if call.name == "write":
            raise NotImplementedError("a write at the position of the descriptor")
        offset = int(call.args.rpartition(", ")[2])
        file.pending.append((call.began, _Write(offset, written_by(call))))
        return True

    def _sync(self, call: Call) -> bool:
        path = file_of(call)
        if path == str(self._directory):
            for began, name, file in self._renames:
                if began < call.began:
                    _rename(self._safe_names, name, file)
            self._renames = [each for each in self._renames if each[0] >= call.began]
            return True
        synced = self._file(call)
        if synced is not None:
            synced.sync(call.began)
        return synced is not None

    def _name(self, call: Call, path: str, file: File | None) -> bool:
        name = self._inside(path)
        if name is None:
            return False
        _rename(self._names, name, file)
        self._renames.append((call.began, name, file))
        return True

    def _file(self, call: Call) -> File | None:
        name = self._inside(file_of(call))
        return None if name is None else self._names.get(name)

    def _inside(self, path: str | None) -> str | None:
        if path is None:
            return None
        found = PurePosixPath(path)
        return (
            found.name if found.parent == self._directory and found.name in self._matter else None
        )


def _rename(names: dict[str, File], name: str, file: File | None) -> None:
    if file is None:
        names.pop(name, None)
    else:
        names[name] = file


def file_of(call: Call) -> str | None:
    """The path of the file behind the first argument, a descriptor."""
    number, bracket, rest = call.args.partition("<")
    if not bracket or not number.isdigit():
        return None
    return text(rest.partition(">")[0]).decode()


def written_by(call: Call) -> bytes:
    """The data of a write or pwrite64."""
    quoted, _, rest = call.args.partition('"')[2].partition('"')
    if rest.startswith("..."):
        raise ValueError("strace has shortened what was written")
    return text(quoted)[: call.result]


def _paths(call: Call) -> list[str]:
    return [text(part).decode() for part in call.args.split('"')[1::2]]
