"""Reading a large body in a process apart: what runs in that process. ``apart.py`` starts it.

The body comes in a file without a name, as standard input. The values that were found in it are
left in the same file, one after the other; standard output gets the rest of the answer.
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
from tenantbase.json_requests import SET_VALUE, Read, SetValue, content, read_many
from tenantbase.json_text import check_json, parse

_FILE: Final = 0
_ANSWER: Final = 1
_NOTHING: Final = msgspec.Raw(b"")


class Job(Enum):
    """What the body is."""

    VALUE = "value"  # a value that has to be JSON; nothing is found in it
    ENTRY = "entry"  # of set-value
    ENTRIES = "entries"  # of set-values


class Answer(NamedTuple):
    """What was found, in the order of the body.

    Attributes:
        entries: each without its value, and the value's size, or what is wrong with it.
        refused: what is wrong with what follows these, or None.
    """

    entries: list[tuple[SetValue, int | InvalidRequest]]
    refused: InvalidRequest | None


def main() -> None:
    """Do the job that the command line names."""
    job, seconds, max_entries = Job(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    signal.alarm(seconds)  # who started this may have died, or be stopped
    text = read_at(_FILE, os.fstat(_FILE).st_size, 0)
    os.ftruncate(_FILE, 0)  # frees the memory
    answer = pickle.dumps(_done(job, text, max_entries))
    with open(_ANSWER, "wb", closefd=False) as output:
        output.write(answer)


def _done(job: Job, text: bytes, max_entries: int) -> Answer:
    entries: list[tuple[SetValue, int | InvalidRequest]] = []
    at = 0
    try:
        for each in _read(job, text, max_entries):
            given = msgspec.structs.replace(each.given, value=_NOTHING)
            try:
                value = content(each.given)
            except InvalidRequest as error:
                entries.append((given, error))
                break
            write_at(_FILE, value, at)
            at += len(value)
            entries.append((given, len(value)))
    except InvalidRequest as error:
        return Answer(entries, error)
    return Answer(entries, None)


def _read(job: Job, text: bytes, max_entries: int) -> Iterator[Read]:
    if job is Job.ENTRIES:
        yield from read_many(text, max_entries)
    elif job is Job.ENTRY:
        yield Read(parse(SET_VALUE, text))
    else:
        check_json(text, "value")


def read_at(fd: int, size: int, at: int) -> bytes:
    """So many bytes of a file. The interpreter's lock is not held while they are copied."""
    data = os.pread(fd, size, at)
    if len(data) != size:
        raise OSError(f"{size} bytes were wanted and {len(data)} read")
    return data


def write_at(fd: int, data: bytes, at: int) -> None:
    """Write to a file, without holding the interpreter's lock."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, at)
        rest, at = rest[written:], at + written
