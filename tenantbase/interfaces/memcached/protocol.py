"""The part of memcached's text protocol that is used here, over an asyncio stream.

Each function sends its commands, reads the answer to the last byte and returns. If it raises or is
cancelled, the stream is out of step and must not be used again. None of them has a timeout.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence

from tenantbase.errors import CacheUnavailable
from tenantbase.figures import CacheFailure
from tenantbase.interfaces.cache import LEFT_OUT, Item

LONGEST_ANSWER_BYTES = 128 << 20
"""The longest answer that is read."""

KEPT_BYTES = 8 << 20
"""How much of the answers to a batch is kept, up to the item that exceeds it, so that memcached
cannot fill our memory."""

_KEY_BYTES = 32
_KEY_ALPHABET = b"0123456789abcdef"

# memcached reads lines above 2,048 bytes by another path, which has lost keys (its issue 849) and
# leaks memory (1046). This many keys stay below that; more lines go in the same write.
_KEYS_PER_LINE = 60

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

# Each part of an answer is matched together with the CRLF that ended the part before it.
# The pattern accepts any name, because it is compared with those asked for; checking its characters
# here would take as long as the rest.
_ITEM = re.compile(rb"\r\nVALUE (.{32}) \d{1,10} (\d{1,9})\r\n", re.DOTALL)
_END = b"\r\nEND"
_INCOMPLETE = re.compile(rb"(?:\r|\r\n[^\r\n]{0,64}\r?)?")
_LAST_LINE_END = re.compile(rb"(?:\r\n?)?")
_VERSION = re.compile(rb"VERSION [^\r\n]{1,64}\r\n")
_LONGEST_LINE_BYTES = 128
# An answer that is not understood may contain a user's value, so the log shows only this much.
_EXCERPT_BYTES = 40
_READ_BYTES = 1 << 30  # read as much as has arrived


class ProtocolError(Exception):
    """memcached's answer does not match the request."""


def join_keys(keys: Sequence[bytes]) -> bytes:
    """The keys with a space between them.

    Raises:
        ValueError: a key is not 32 lowercase hexadecimal digits. Nothing else may reach the
            protocol, where a space or a line end inside a key would be a command.
    """
    joined = b" ".join(keys)
    spaces = len(keys) - 1
    # Checking all joined keys at once takes a tenth of the time of matching each. The check: there
    # are no more spaces than were put in, and each is where it must be.
    if (
        len(joined) != len(keys) * (_KEY_BYTES + 1) - 1
        or joined.count(b" ") != spaces
        or joined[_KEY_BYTES :: _KEY_BYTES + 1] != b" " * spaces
        or joined.translate(None, _KEY_ALPHABET + b" ")
    ):
        raise ValueError(f"a key of memcached is {_KEY_BYTES} lowercase hexadecimal digits")
    return joined


async def get_items(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    keys: Sequence[bytes],
    kept: int = KEPT_BYTES,
) -> dict[bytes, bytes]:
    """The values of those keys that memcached has.

    Once they add up to ``kept`` bytes, the others are ``LEFT_OUT``.

    Raises:
        EOFError, OSError: the connection has ended.
        ProtocolError: the answer is malformed, or answers another request.
        CacheUnavailable: the answer is longer than `LONGEST_ANSWER_BYTES`.
        ValueError: as `join_keys`.
    """
    joined = join_keys(keys)
    step = _KEYS_PER_LINE * (_KEY_BYTES + 1)
    lines = [joined[at : at + step - 1] for at in range(0, len(joined), step)]
    writer.write(b"get " + b"\r\nget ".join(lines) + b"\r\n")

    found: dict[bytes, bytes] = {}
    unread, open_lines, missing, length = b"\r\n", len(lines), 1, 0
    while missing > 0:
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
        position, open_lines, missing = parse_items(data, found, open_lines, kept)
        kept -= position
        unread = data[position:]
    if not found.keys() <= set(keys):
        raise ProtocolError("an item that was not requested")
    return found


def parse_items(
    data: bytes, found: dict[bytes, bytes], open_lines: int, kept: int = KEPT_BYTES
) -> tuple[int, int, int]:
    """Add all complete items at the front of `data` to `found`.

    Those that begin after the first `kept` bytes are added as `LEFT_OUT`.

    Returns: where the rest begins; how many command lines are still unanswered there; and how many
        more bytes are needed, at least, to parse on, or 0 at the end of the answer.
    """
    position = 0
    while open_lines:
        while item := _ITEM.match(data, position):
            start = item.end()
            end = start + int(item[2])
            if end > len(data):
                return position, open_lines, end - len(data)
            found[item[1]] = data[start:end] if position < kept else LEFT_OUT
            position = end
        if not data.startswith(_END, position):
            break
        position += len(_END)
        open_lines -= 1
    if not (_INCOMPLETE if open_lines else _LAST_LINE_END).fullmatch(data, position):
        raise ProtocolError(f"unexpected answer {data[position : position + _EXCERPT_BYTES]!r}")
    return position, open_lines, 1 if open_lines else position + 2 - len(data)


async def set_items(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, items: Sequence[Item]
) -> None:
    """Store items; those that memcached has no room for are left out. Raises as `get_items`."""
    join_keys([key for key, _, _ in items])
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


async def get_version(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask for the version, to see whether memcached answers. Raises as `get_items`."""
    writer.write(b"version\r\n")
    answer = b""
    while not answer.endswith(b"\r\n") and len(answer) < _LONGEST_LINE_BYTES:
        answer += await _receive(reader)
    if not _VERSION.fullmatch(answer):
        raise ProtocolError(f"unexpected answer to version: {answer[:_EXCERPT_BYTES]!r}")


async def _receive(reader: asyncio.StreamReader) -> bytes:
    data = await reader.read(_READ_BYTES)
    if not data:
        raise EOFError("memcached has closed the connection")
    return data
