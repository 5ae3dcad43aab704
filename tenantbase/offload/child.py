"""The program of the child process that parses a large body. ``runner.py`` starts it.

The body comes in an unnamed file, as standard input. The values found in the body are written back
to that file, one after the other; the rest of the answer goes to standard output.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

import msgspec

from tenantbase.errors import InvalidRequest
from tenantbase.json_requests import (
    SET_VALUE,
    Read,
    SetValue,
    content_pieces,
    read_many,
    split_many,
)
from tenantbase.json_text import Text, check_json, parse

_FILE: Final = 0
_ANSWER: Final = 1
_NOTHING: Final = msgspec.Raw(b"")


class Job(Enum):
    """How to parse the body."""

    VALUE = "value"  # a value, only checked to be valid JSON; it stays in the file
    ENTRY = "entry"  # of set-value
    ENTRIES = "entries"  # of set-values


class Answer(NamedTuple):
    """The parsed body.

    Attributes:
        entries: in the body's order; each has its value's size, or the error in it, in place of the
            value.
        refused: the error in the rest of the body, or None.
    """

    entries: list[tuple[SetValue, int | InvalidRequest]]
    refused: InvalidRequest | None


def main() -> None:
    """Do the job that the command line names."""
    job, seconds, max_entries = Job(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    signal.alarm(seconds)  # the parent may be dead or stopped
    text = read_at(_FILE, os.fstat(_FILE).st_size, 0)
    if job is not Job.VALUE:
        os.ftruncate(_FILE, 0)  # frees the memory
    answer = pickle.dumps(_done(job, text, max_entries))
    with open(_ANSWER, "wb", closefd=False) as output:
        output.write(answer)


def _done(job: Job, text: bytes, max_entries: int) -> Answer:
    entries: list[tuple[SetValue, int | InvalidRequest]] = []
    at = 0
    try:
        if job is Job.VALUE:
            check_json(text, "value")
            return Answer([(SetValue("", _NOTHING), len(text))], None)
        for each in _read(job, text, max_entries):
            given = msgspec.structs.replace(each.given, value=_NOTHING)
            begin = at
            try:
                for piece in content_pieces(each.given):
                    write_at(_FILE, piece, at)
                    at += len(piece)
            except InvalidRequest as error:
                entries.append((given, error))
                break
            entries.append((given, at - begin))
    except InvalidRequest as error:
        return Answer(entries, error)
    return Answer(entries, None)


def _read(job: Job, text: bytes, max_entries: int) -> Iterator[Read]:
    if job is Job.ENTRIES:
        yield from read_many(split_many(text, max_entries))
    else:
        yield Read(parse(SET_VALUE, text))


def read_at(fd: int, size: int, at: int) -> bytes:
    """Read ``size`` bytes of a file without holding the interpreter's lock."""
    data = os.pread(fd, size, at)
    if len(data) != size:
        raise OSError(f"{size} bytes were expected and {len(data)} read")
    return data


def write_at(fd: int, data: Text, at: int) -> None:
    """Write to a file without holding the interpreter's lock."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, at)
        rest, at = rest[written:], at + written
