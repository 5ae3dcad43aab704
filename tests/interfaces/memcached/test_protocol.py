"""The protocol: answers in arbitrary pieces, malformed answers, commands on the wire."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantbase.errors import CacheUnavailable
from tenantbase.interfaces.cache import Item
from tenantbase.interfaces.memcached import protocol as memcache_protocol
from tenantbase.interfaces.memcached.protocol import (
    ProtocolError,
    get_items,
    get_version,
    join_keys,
    set_items,
)

A, B, C = b"a" * 32, b"b" * 32, b"0123456789abcdef" * 2
AWKWARD = b"\r\nEND\r\nVALUE " + A + b" 0 5\r\n\x00\xff\r\n"


class Line:
    """Both ends of a connection: streams for the code under test, a socket for the test."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, far: socket.socket
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._far = far

    async def answer(self, pieces: Sequence[bytes]) -> None:
        """Send pieces so that each is read separately."""
        for piece in pieces:
            await asyncio.get_running_loop().sock_sendall(self._far, piece)
            # One turn each: into the stream, to its waiting task, back to the reading task.
            for _ in range(4):
                await asyncio.sleep(0)

    def end(self) -> None:
        self._far.shutdown(socket.SHUT_WR)

    def sent(self) -> bytes:
        """Everything written since the last call."""
        with suppress(BlockingIOError):
            return self._far.recv(1 << 20)
        return b""

    async def get(self, keys: Sequence[bytes], pieces: Sequence[bytes]) -> dict[bytes, bytes]:
        asking = asyncio.create_task(get_items(self.reader, self.writer, keys))
        await self.answer(pieces)
        return await asyncio.wait_for(asking, 10)

    async def set(self, items: Sequence[Item], pieces: Sequence[bytes]) -> None:
        storing = asyncio.create_task(set_items(self.reader, self.writer, items))
        await self.answer(pieces)
        await asyncio.wait_for(storing, 10)


@asynccontextmanager
async def open_line() -> AsyncIterator[Line]:
    near, far = socket.socketpair()
    far.setblocking(False)
    with far:
        reader, writer = await asyncio.open_connection(sock=near)
        try:
            yield Line(reader, writer, far)
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with open_line() as line:
        yield line


def value(key: bytes, data: bytes, flags: bytes = b"0") -> bytes:
    return b"VALUE %b %b %d\r\n%b\r\n" % (key, flags, len(data), data)


ANSWER = value(A, AWKWARD) + value(B, b"") + b"END\r\n"
FOUND = {A: AWKWARD, B: b""}


async def test_an_answer_in_two_pieces_cut_anywhere(line: Line) -> None:
    for cut in range(1, len(ANSWER)):
        assert await line.get([A, B, C], [ANSWER[:cut], ANSWER[cut:]]) == FOUND, cut


async def test_an_answer_byte_by_byte(line: Line) -> None:
    assert await line.get([C, B, A], [bytes([byte]) for byte in ANSWER]) == FOUND


PROTOCOL_TEXT = st.sampled_from([b"\r\n", b"\r", b"END\r\n", b"VALUE ", A, b" 0 3\r\n", b"STORED"])
VALUES = st.lists(PROTOCOL_TEXT | st.binary(max_size=30), max_size=6).map(b"".join)
KEYS = st.integers(0, 300).map(lambda number: b"%032x" % number)


@given(
    items=st.dictionaries(KEYS, VALUES, max_size=80),
    more=st.lists(KEYS, min_size=1, max_size=80, unique=True),
    cuts=st.lists(st.integers(0, 2000), max_size=5),
)
async def test_any_items_in_any_pieces(
    items: dict[bytes, bytes], more: list[bytes], cuts: list[int]
) -> None:
    keys = list({**items, **dict.fromkeys(more)})
    answer = b""
    for at in range(0, len(keys), 60):
        here = [key for key in keys[at : at + 60] if key in items]
        answer += b"".join(value(key, items[key]) for key in here) + b"END\r\n"
    edges = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
    pieces = [answer[a:b] for a, b in zip(edges, edges[1:], strict=False) if a < b]
    async with open_line() as line:
        assert await line.get(keys, pieces) == items


async def test_a_large_value_in_many_pieces(line: Line) -> None:
    data = bytes(range(256)) * 4096
    answer = value(A, data) + b"END\r\n"
    pieces = [answer[at : at + 100_000] for at in range(0, len(answer), 100_000)]
    assert await line.get([A], pieces) == {A: data}


async def test_foreign_flags_are_ignored(line: Line) -> None:
    assert await line.get([A], [value(A, b"x", flags=b"4294967295") + b"END\r\n"]) == {A: b"x"}


async def test_an_answer_that_ends_early() -> None:
    for cut in range(len(ANSWER)):
        async with open_line() as line:
            asking = asyncio.create_task(get_items(line.reader, line.writer, [A, B]))
            await line.answer([ANSWER[:cut]] if cut else [])
            line.end()
            with pytest.raises(EOFError):
                await asyncio.wait_for(asking, 10)


@pytest.mark.parametrize(
    "answer",
    [
        b"ERROR\r\n",
        b"SERVER_ERROR out of memory writing get response\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"END\n\r\n",
        b"ENDING\r\n",
        b"END \r\n",
        b"\r\nEND\r\n",
        b"VALUE %b 0 -1\r\n\r\nEND\r\n" % A,
        b"VALUE %b 0 1234567890\r\n" % A,
        b"VALUE %b 0 1 1\r\nx\r\nEND\r\n" % A,
        b"VALUE %b 0 1\r\nxy\r\nEND\r\n" % A,
        b"VALUE %b 0 2\r\nx\r\nEND\r\n" % A,
        b"VALUE %b 0 1\r\nxEND\r\n" % A,
        b"VALUE %b 0 1\r\nx\r\nSTORED\r\n" % A,
        b"VALUE %b 0 1\r\nx\r\nEND\r\n" % A.upper(),
        b"VALUE short 0 1\r\nx\r\nEND\r\n",
        b"VALUE " + b"x" * 1000,
        value(C, b"not asked for") + b"END\r\n",
        b"END\r\nEND\r\n",
        b"END\r\nV",
        b"END\r\n" + value(A, b"x"),
        b"END\r\n" + value(A, b"x") + b"END\r\n",
    ],
)
async def test_malformed_answers_to_get(line: Line, answer: bytes) -> None:
    with pytest.raises(ProtocolError):
        await line.get([A, B], [answer])


async def test_an_oversized_answer_is_refused(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memcache_protocol, "LONGEST_ANSWER_BYTES", 1000)
    announced = b"VALUE %b 0 999999999\r\n" % A
    with pytest.raises(CacheUnavailable):
        await line.get([A], [announced, b"x" * 500, b"x" * 500])
    async with open_line() as second:
        assert await second.get([A], [value(A, b"x" * 900) + b"END\r\n"]) == {A: b"x" * 900}


async def test_many_keys_are_short_lines_in_one_write(line: Line) -> None:
    keys = [b"%032x" % number for number in range(125)]
    assert await line.get(keys, [b"END\r\n" * 3]) == {}
    sent = line.sent()
    lines = sent.removesuffix(b"\r\n").split(b"\r\n")
    assert [len(words.split()) - 1 for words in lines] == [60, 60, 5]
    assert max(map(len, lines)) < 2048
    assert b" ".join(words.removeprefix(b"get ") for words in lines) == b" ".join(keys)


async def test_sets_and_their_answers(line: Line) -> None:
    items = [(A, AWKWARD, 0), (B, b"", 2_592_000), (C, b"x", 7)]
    answers = b"STORED\r\nSERVER_ERROR object too large for cache\r\n"
    answers += b"SERVER_ERROR out of memory storing object\r\n"
    for cut in range(1, len(answers)):
        await line.set(items, [answers[:cut], answers[cut:]])
    expected = b"set %b 0 0 %d\r\n%b\r\n" % (A, len(AWKWARD), AWKWARD)
    expected += b"set %b 0 2592000 0\r\n\r\nset %b 0 7 1\r\nx\r\n" % (B, C)
    assert line.sent().startswith(expected)


@pytest.mark.parametrize(
    "answers",
    [
        b"ERROR\r\n",
        b"STORED\r\nNOT_STORED\r\n",
        b"STORED\r\nCLIENT_ERROR bad data chunk\r\n",
        b"STORED\r\nEND\r\n",
        b"\r\nSTORED\r\n",
        b"STORED\r\nSTORED\r\nSTORED\r\n",
        b"STORED\r\nSTORED\r\nS",
        b"x" * 1000,
    ],
)
async def test_malformed_answers_to_set(line: Line, answers: bytes) -> None:
    with pytest.raises(ProtocolError):
        await line.set([(A, b"1", 0), (B, b"2", 0)], [answers])


async def test_an_error_shows_little_of_what_may_be_a_value(line: Line) -> None:
    for ask in (line.get([A], [b"x" * 1000]), line.set([(A, b"1", 0)], [b"x" * 1000])):
        with pytest.raises(ProtocolError) as caught:
            await ask
        assert len(str(caught.value)) < 100


async def test_sets_wait_for_the_answers_to_a_slice(line: Line) -> None:
    items = [(b"%032x" % number, b"", 0) for number in range(1_500)]
    storing = asyncio.create_task(set_items(line.reader, line.writer, items))
    await asyncio.sleep(0)
    assert line.sent().count(b"set ") == 1_000
    await line.answer([b"STORED\r\n" * 999])
    assert not storing.done()
    await line.answer([b"STORED\r\n"])
    assert line.sent().count(b"set ") == 500
    await line.answer([b"STORED\r\n" * 500])
    await asyncio.wait_for(storing, 10)


async def test_large_sets_go_in_small_slices(line: Line) -> None:
    items = [(b"%032x" % number, b"x" * 300_000, 0) for number in range(3)]
    storing = asyncio.create_task(set_items(line.reader, line.writer, items))
    for _ in items:
        received = b""
        while not received.endswith(b"x\r\n"):
            await asyncio.sleep(0)
            received += line.sent()
        assert received.count(b"set ") == 1
        await line.answer([b"STORED\r\n"])
    await asyncio.wait_for(storing, 10)


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        (b"VERSION 1.6.18\r\n", True),
        (b"VERSION 1.6.18-rc1 beta\r\n", True),
        (b"ERROR\r\n", False),
        (b"VERSION \r\n", False),
        (b"VERSION 1.6.18\r\nEND\r\n", False),
        (b"V" * 1000, False),
    ],
)
async def test_version(line: Line, answer: bytes, accepted: bool) -> None:
    for cut in {1, len(answer) - 1, len(answer)}:
        asking = asyncio.create_task(get_version(line.reader, line.writer))
        await line.answer([piece for piece in (answer[:cut], answer[cut:]) if piece])
        if accepted:
            await asyncio.wait_for(asking, 10)
        else:
            with pytest.raises(ProtocolError):
                await asyncio.wait_for(asking, 10)
            break


@pytest.mark.parametrize(
    "keys",
    [
        [b""],
        [A, b""],
        [A[:31]],
        [A + b"a"],
        [A[:31], A + b"a"],
        [A + b"a", A[:31]],
        [A + b" " + B],
        [A + b" " + B, b""],
        [b"", A + b" " + B],
        [A[:16] + b" " + A[:15]],
        [A[:31] + b"\n"],
        [A[:30] + b"\r\n"],
        [A[:31] + b"\0"],
        [A[:31] + b"\t"],
        [A[:31] + b"g"],
        [A.upper()],
        [A[:31] + b"\xff"],
        [A, B, A[:31] + b" "],
        [A, b" " + B[:31], C],
    ],
)
def test_keys_that_never_reach_the_wire(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="32 lowercase hexadecimal digits"):
        join_keys(keys)


async def test_a_bad_key_is_not_sent(line: Line) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        await get_items(line.reader, line.writer, [A, b"flush_all\r\n"])
    with pytest.raises(ValueError, match="hexadecimal"):
        await set_items(line.reader, line.writer, [(b"flush_all\r\n", b"", 0)])
    line.writer.write(b"nothing else")
    assert line.sent() == b"nothing else"
