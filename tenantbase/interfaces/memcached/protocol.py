"""The part of memcached's text protocol that is used here, over an asyncio stream.

Each function sends its commands, reads the answer to the last byte and returns. If it raises or is
cancelled, the stream is out of step and must not be used again. None of them has a timeout.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import cast

from tenantbase.errors import CacheUnavailable
from tenantbase.figures import CacheFailure
from tenantbase.interfaces.cache import ABSENT, LEFT_OUT, UNCHANGED, Answer, Fetched, Item

LONGEST_ANSWER_BYTES = 128 << 20
"""The longest answer that is read."""

KEPT_BYTES = 8 << 20
"""How much of the answers to a batch is kept, up to the item that exceeds it, so that memcached
cannot fill our memory."""

_NAME_BYTES = 32
_NAME_ALPHABET = b"0123456789abcdef"

# The answers to a slice of sets are read before the next slice is sent. They are much smaller than
# our buffers, so the two sides cannot deadlock, each waiting for the other to read.
_COMMANDS_PER_SLICE = 1_000
_SLICE_BYTES = 256 << 10
_LARGE_BYTES = 64 << 10

# After a refusal memcached is in step: it has read the value and discarded it.
_SET_ANSWERS = frozenset(
    [
        b"STORED",
        b"SERVER_ERROR object too large for cache",
        b"SERVER_ERROR out of memory storing object",
    ]
)

# The line before an item's bytes, or instead of them, as they are ended by CRLF. An item's length has at
# most nine digits, and a CAS value has 64 bits.
_LINE = re.compile(rb"(?:HD |VA (\d{1,9}) )c(\d{1,20})\r\n|EN\r\n")
_BEGUN_LINE = re.compile(rb"(?:[A-Z]{0,2}(?: [ c\d]{0,32})?|ERRO?R?)\r?")
_UNKNOWN_COMMAND = b"ERROR\r\n"
_ALIVE = b"MN\r\n"
_LONGEST_LINE_BYTES = 128
# An answer that is not understood may contain a user's value, so the log shows only this much.
_EXCERPT_BYTES = 40
_READ_BYTES = 1 << 30  # read as much as has arrived


class ProtocolError(Exception):
    """memcached's answer does not match the request."""


def check_names(names: Sequence[bytes]) -> None:
    """Check that nothing else than names reaches the protocol, where a space or a line end inside a name
    would be a command.

    Raises:
        ValueError: a name is not 32 lowercase hexadecimal digits.
    """
    # Checking all joined names at once takes a tenth of the time of matching each. The check: there
    # are no more spaces than were put in, and each is where it must be.
    joined = b" ".join(names)
    spaces = len(names) - 1
    if (
        len(joined) != len(names) * (_NAME_BYTES + 1) - 1
        or joined.count(b" ") != spaces
        or joined[_NAME_BYTES :: _NAME_BYTES + 1] != b" " * spaces
        or joined.translate(None, _NAME_ALPHABET + b" ")
    ):
        raise ValueError(f"a name in memcached is {_NAME_BYTES} lowercase hexadecimal digits")


async def get_items(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    names: Sequence[bytes],
    known: Sequence[bytes | None],
    kept: int = KEPT_BYTES,
) -> list[Answer]:
    """What memcached has under these names; see ``Memcache.get_many``.

    Once the items add up to ``kept`` bytes, the others are ``LEFT_OUT``.

    Raises:
        EOFError, OSError: the connection has ended.
        ProtocolError: the answer is malformed.
        CacheUnavailable: the answer is longer than `LONGEST_ANSWER_BYTES`.
        ValueError: as `check_names`.
    """
    check_names(names)
    if None in known:
        commands = [
            b"mg %b c v\r\n" % name if cas is None else b"mg %b c\r\n" % name
            for name, cas in zip(names, known, strict=True)
        ]
        writer.write(b"".join(commands))
        answers = await _read_answers(reader, len(names), kept)
    else:
        # All of them are known, and nearly always unchanged.
        every = cast("Sequence[bytes]", known)
        writer.write(b"mg " + b" c\r\nmg ".join(names) + b" c\r\n")
        unchanged = b"HD c" + b"\r\nHD c".join(every) + b"\r\n"
        begun = await _receive(reader)
        while len(begun) < len(unchanged) and unchanged.startswith(begun):
            begun += await _receive(reader)
        if begun == unchanged:
            return [UNCHANGED] * len(names)
        answers = await _read_answers(reader, len(names), kept, begun)

    found: list[Answer] = []
    changed: list[int] = []
    for at, (cas, answer) in enumerate(zip(known, answers, strict=True)):
        if not isinstance(answer, bytes):
            found.append(answer)
            continue
        if cas is None:
            raise ProtocolError("an item without the bytes that were asked for")
        found.append(UNCHANGED)
        if answer != cas:
            changed.append(at)
    if changed:
        held = sum(len(each.data) for each in found if isinstance(each, Fetched))
        room = max(kept - held, 1)  # for one, at least: the first must not be left out
        late = await get_items(
            reader, writer, [names[at] for at in changed], [None] * len(changed), room
        )
        for at, answer in zip(changed, late, strict=True):
            found[at] = answer
    return found


async def _read_answers(
    reader: asyncio.StreamReader, count: int, kept: int, begun: bytes = b""
) -> list[Answer | bytes]:
    """Read the answers to so many commands, of which the first bytes may have been read.

    Returns: a CAS value is an item whose bytes were not asked for.
    """
    answers: list[Answer | bytes] = []
    unread, length, missing = begun, len(begun), 0
    while True:
        # A large value arrives in many pieces, which are joined once.
        pieces = [unread]
        while missing > 0:
            pieces.append(await _receive(reader))
            missing -= len(pieces[-1])
            length += len(pieces[-1])
            if length > LONGEST_ANSWER_BYTES:
                raise CacheUnavailable(
                    "the items asked for are too large to be read at once", CacheFailure.TOO_LARGE
                )
        data = b"".join(pieces)
        position, missing = parse_answers(data, answers, count, kept)
        if not missing:
            return answers
        kept -= position
        unread = data[position:]


def parse_answers(
    data: bytes, answers: list[Answer | bytes], count: int, kept: int = KEPT_BYTES
) -> tuple[int, int]:
    """Add the complete answers at the front of `data` to `answers`, until there are `count`.

    Items that begin after the first `kept` bytes are added as `LEFT_OUT`.

    Returns: where the rest begins; and how many more bytes are needed, at least, to parse on, or 0 at
        the end of the last answer.
    """
    position = 0
    match = _LINE.match
    while len(answers) < count:
        line = match(data, position)
        if line is None:
            if _BEGUN_LINE.fullmatch(data, position):
                return position, 1
            raise _unexpected(data, position)
        size, cas = line.groups()
        start = line.end()
        if size is None:
            answers.append(ABSENT if cas is None else cas)
            position = start
            continue
        end = start + int(size)
        if end + 2 > len(data):
            return position, end + 2 - len(data)
        if not data.startswith(b"\r\n", end):
            raise ProtocolError("an item that is longer than announced")
        answers.append(Fetched(data[start:end], cas) if position < kept else LEFT_OUT)
        position = end + 2
    if position < len(data):
        raise _unexpected(data, position)
    return position, 0


def _unexpected(data: bytes, position: int) -> ProtocolError:
    if data.startswith(_UNKNOWN_COMMAND, position):
        return ProtocolError("memcached does not know the meta commands; 1.6.9 and newer ones do")
    return ProtocolError(f"unexpected answer {data[position : position + _EXCERPT_BYTES]!r}")


async def set_items(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, items: Sequence[Item]
) -> None:
    """Store items; those that memcached has no room for are left out. Raises as `get_items`."""
    check_names([name for name, _, _ in items])
    for waiting, parts in _slices(items):
        writer.writelines(parts)
        unread = b""
        while waiting > 0:
            *answers, unread = (unread + await _receive(reader)).split(b"\r\n")
            waiting -= len(answers)
            if strange := set(answers) - _SET_ANSWERS:
                raise ProtocolError(f"unexpected answer to set: {min(strange)[:_EXCERPT_BYTES]!r}")
            if waiting < 0 or len(unread) > (_LONGEST_LINE_BYTES if waiting else 0):
                raise ProtocolError("more than the answers to set")


def _slices(items: Sequence[Item]) -> Iterator[tuple[int, list[bytes]]]:
    """The commands in slices: for each slice, the number of commands, and their parts."""
    parts: list[bytes] = []
    count = size = 0
    for key, value, seconds in items:
        if len(value) < _LARGE_BYTES:
            parts.append(b"set %b 0 %d %d\r\n%b\r\n" % (key, seconds, len(value), value))
        else:  # without a copy of the value
            parts += (b"set %b 0 %d %d\r\n" % (key, seconds, len(value)), value, b"\r\n")
        count += 1
        size += len(value)
        if size >= _SLICE_BYTES or count >= _COMMANDS_PER_SLICE:
            yield count, parts
            parts, count, size = [], 0, 0
    if parts:
        yield count, parts


async def probe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """See whether memcached answers, and knows the commands used here. Raises as `get_items`."""
    writer.write(b"mn\r\n")
    answer = b""
    while not answer.endswith(b"\r\n") and len(answer) < _LONGEST_LINE_BYTES:
        answer += await _receive(reader)
    if answer != _ALIVE:
        raise _unexpected(answer, 0)


async def _receive(reader: asyncio.StreamReader) -> bytes:
    data = await reader.read(_READ_BYTES)
    if not data:
        raise EOFError("memcached has closed the connection")
    return data
