"""The protocol: answers in arbitrary pieces, malformed answers, commands on the wire."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantbase.errors import CacheUnavailable
from tenantbase.interfaces.cache import ABSENT, LEFT_OUT, UNCHANGED, Answer, Fetched, Item
from tenantbase.interfaces.memcached import protocol as memcache_protocol
from tenantbase.interfaces.memcached.protocol import (
    KEPT_BYTES,
    ProtocolError,
    check_names,
    get_items,
    probe,
    set_items,
)

A, B, C, D, E = b"a" * 32, b"b" * 32, b"0123456789abcdef" * 2, b"d" * 32, b"e" * 32
AWKWARD = b"\r\nEN\r\nVA 5 c1\r\n\x00\xff\r\nHD c1\r\nmg " + A + b" c v\r\n"
LARGEST_CAS = b"%d" % (2**64 - 1)


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

    async def get(
        self,
        names: Sequence[bytes],
        pieces: Sequence[bytes],
        known: Sequence[bytes | None] | None = None,
        kept: int = KEPT_BYTES,
    ) -> list[Answer]:
        """Ask, and answer with these pieces. Without ``known``, none of the items is."""
        if known is None:
            known = [None] * len(names)
        asking = asyncio.create_task(get_items(self.reader, self.writer, names, known, kept))
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


def item(data: bytes, cas: bytes = b"1") -> bytes:
    """The answer to a command that asks for an item's bytes."""
    return b"VA %d c%b\r\n%b\r\n" % (len(data), cas, data)


def head(cas: bytes) -> bytes:
    """The answer to a command that asks only for an item's CAS value."""
    return b"HD c%b\r\n" % cas


MISS = b"EN\r\n"
ANSWER = item(AWKWARD, b"7") + MISS + item(b"", LARGEST_CAS)
FOUND = [Fetched(AWKWARD, b"7"), ABSENT, Fetched(b"", LARGEST_CAS)]


def in_two(answer: bytes) -> list[list[bytes]]:
    """All ways to cut an answer into two pieces, and the whole."""
    return [[answer[:cut], answer[cut:]] for cut in range(1, len(answer))] + [[answer]]


def in_bytes(answer: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in answer]


async def test_an_answer_in_two_pieces_cut_anywhere(line: Line) -> None:
    for pieces in in_two(ANSWER):
        assert await line.get([A, B, C], pieces) == FOUND, pieces


async def test_an_answer_byte_by_byte(line: Line) -> None:
    assert await line.get([A, B, C], in_bytes(ANSWER)) == FOUND


async def test_items_that_have_not_changed_in_pieces_cut_anywhere(line: Line) -> None:
    known = [b"1", LARGEST_CAS, b"23"]
    answer = b"".join(map(head, known))
    for pieces in [*in_two(answer), in_bytes(answer)]:
        line.sent()
        assert await line.get([A, B, C], pieces, known) == [UNCHANGED] * 3, pieces
        assert line.sent() == b"mg %b c\r\nmg %b c\r\nmg %b c\r\n" % (A, B, C)


async def test_all_are_known_and_one_is_not_as_it_was(line: Line) -> None:
    """The first bytes of such an answer look as if nothing had changed."""
    known = [b"22"] * 3
    others: list[tuple[bytes, list[bytes], Answer]] = [
        (MISS, [], ABSENT),
        (head(b"23"), [MISS], ABSENT),
        # A CAS value that the known one begins with, and the other way round.
        (head(b"2"), [item(AWKWARD, b"2")], Fetched(AWKWARD, b"2")),
        (head(b"222"), [item(AWKWARD, b"222")], Fetched(AWKWARD, b"222")),
        # Its bytes were not asked for, but do no harm.
        (item(AWKWARD, b"22"), [], Fetched(AWKWARD, b"22")),
    ]
    for other, later, expected in others:
        for at in range(3):
            lines = [head(b"22")] * 3
            found: list[Answer] = [UNCHANGED] * 3
            lines[at], found[at] = other, expected
            answer = b"".join(lines)
            for pieces in [*in_two(answer), in_bytes(answer)]:
                assert await line.get([A, B, C], [*pieces, *later], known) == found, pieces


async def test_a_mixture_cut_anywhere(line: Line) -> None:
    """Known: one that is as it was, one that has changed, one that is gone. Unknown: there, absent."""
    names, known = [A, B, C, D, E], [b"5", None, b"6", b"7", None]
    first = head(b"5") + item(AWKWARD, b"1") + head(b"66") + MISS + MISS
    second = item(b"changed", b"66")
    found = [UNCHANGED, Fetched(AWKWARD, b"1"), Fetched(b"changed", b"66"), ABSENT, ABSENT]
    for pieces in [*in_two(first), in_bytes(first)]:
        assert await line.get(names, [*pieces, second], known) == found, pieces
    for pieces in [*in_two(second), in_bytes(second)]:
        assert await line.get(names, [first, *pieces], known) == found, pieces


async def test_a_changed_item_is_asked_for_on_the_same_connection(line: Line) -> None:
    known = [b"1", None, b"2", b"3"]
    asking = asyncio.create_task(get_items(line.reader, line.writer, [A, B, C, D], known))
    await asyncio.sleep(0)
    assert line.sent() == b"mg %b c\r\nmg %b c v\r\nmg %b c\r\nmg %b c\r\n" % (A, B, C, D)
    await line.answer([head(b"9") + item(b"b", b"8") + head(b"2") + head(b"7")])
    assert not asking.done()
    assert line.sent() == b"mg %b c v\r\nmg %b c v\r\n" % (A, D), "only what has changed"
    # Meanwhile, one has changed again, and the other has been deleted.
    await line.answer([item(b"a", b"10") + MISS])
    assert await asyncio.wait_for(asking, 10) == [
        Fetched(b"a", b"10"),
        Fetched(b"b", b"8"),
        UNCHANGED,
        ABSENT,
    ]
    assert line.sent() == b""


PROTOCOL_TEXT = st.sampled_from(
    [b"\r\n", b"\r", b"EN\r\n", b"VA ", b"HD ", b"c1", b"3 c1\r\n", b"STORED", A]
)
VALUES = st.lists(PROTOCOL_TEXT | st.binary(max_size=30), max_size=6).map(b"".join)
NAMES = st.integers(0, 300).map(lambda number: b"%032x" % number)
CAS = st.integers(0, 2**64 - 1).map(lambda number: b"%d" % number)


class Asked(NamedTuple):
    """A name that is asked for, and what memcached has under it.

    Attributes:
        item: what memcached has.
        later: what it has when it is asked once more.
    """

    name: bytes
    known: bytes | None
    item: Fetched | None
    later: Fetched | None

    @property
    def changed(self) -> bool:
        return self.known is not None and self.item is not None and self.known != self.item.cas

    def answers(self) -> tuple[bytes, Answer]:
        """memcached's answer at first, and what is to be found in the end."""
        if self.item is None:
            return MISS, ABSENT
        if self.known is None:
            return item(*self.item), self.item
        return head(self.item.cas), (self.later or ABSENT) if self.changed else UNCHANGED


ITEMS = st.none() | st.builds(Fetched, VALUES, CAS)
KNOWN = st.builds(Asked, NAMES, CAS, ITEMS, ITEMS)  # nearly always changed
UNKNOWN = KNOWN.map(lambda each: each._replace(known=None))
AS_IT_WAS = KNOWN.filter(lambda each: each.item is not None).map(
    lambda each: each._replace(known=each.item.cas if each.item else None)
)
CUTS = st.lists(st.integers(0, 2000), max_size=5)


def cut(answer: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
    return [answer[a:b] for a, b in zip(edges, edges[1:], strict=False) if a < b]


@given(
    asked=st.lists(KNOWN | UNKNOWN | AS_IT_WAS, min_size=1, max_size=80)
    | st.lists(AS_IT_WAS, min_size=1, max_size=80)
    | st.tuples(st.lists(AS_IT_WAS, max_size=40), KNOWN, st.lists(AS_IT_WAS, max_size=40)).map(
        lambda three: [*three[0], three[1], *three[2]]
    ),
    cuts=CUTS,
    later_cuts=CUTS,
)
async def test_any_items_in_any_pieces(
    asked: list[Asked], cuts: list[int], later_cuts: list[int]
) -> None:
    names, known = [each.name for each in asked], [each.known for each in asked]
    first = b"".join(each.answers()[0] for each in asked)
    changed = [each for each in asked if each.changed]
    second = b"".join(MISS if each.later is None else item(*each.later) for each in changed)
    async with open_line() as line:
        found = await line.get(names, cut(first, cuts) + cut(second, later_cuts), known)
        assert found == [each.answers()[1] for each in asked]
        commands = [
            b"mg %b c%b\r\n" % (n, b" v" if k is None else b"")
            for n, k in zip(names, known, strict=True)
        ]
        commands += [b"mg %b c v\r\n" % each.name for each in changed]
        assert line.sent() == b"".join(commands)


async def test_a_large_value_in_many_pieces(line: Line) -> None:
    data = bytes(range(256)) * 4096
    answer = item(data)
    pieces = [answer[at : at + 100_000] for at in range(0, len(answer), 100_000)]
    assert await line.get([A], pieces) == [Fetched(data, b"1")]


async def test_beyond_a_size_items_are_left_out_however_they_are_cut(line: Line) -> None:
    """Only items are, since what else is answered takes no memory."""
    data = b"x" * 50
    names, known = [A, B, A, C, D, E], [None, None, None, None, b"5", None]
    answer = item(data) * 2 + MISS + item(b"small") + head(b"5") + MISS
    first = Fetched(data, b"1")
    for kept, second in ((1, LEFT_OUT), (len(item(data)), LEFT_OUT), (len(item(data)) + 1, first)):
        found = [first, second, ABSENT, LEFT_OUT, UNCHANGED, ABSENT]
        for pieces in [*in_two(answer), in_bytes(answer)]:
            assert await line.get(names, pieces, known, kept) == found, (kept, pieces)


async def test_a_changed_item_is_not_left_out_for_what_came_before(line: Line) -> None:
    """Otherwise, a caller who asks again for what was left out could do so forever."""
    data = b"x" * 200
    names, known = [A, B, C, D], [None, b"1", b"2", None]
    first = item(data) + head(b"11") + head(b"22") + item(b"small")
    second = item(data, b"11") + item(b"small", b"22")
    found = [Fetched(data, b"1"), Fetched(data, b"11"), LEFT_OUT, LEFT_OUT]
    for pieces in in_two(first):
        assert await line.get(names, [*pieces, second], known, 100) == found, pieces
    for pieces in in_two(second):
        assert await line.get(names, [first, *pieces], known, 100) == found, pieces


async def test_changed_items_share_the_room_with_those_before_them(line: Line) -> None:
    """Two requests must not keep twice as much as one."""
    data = b"x" * 90
    names, known = [A, B, C], [None, b"1", b"2"]
    pieces = [item(data) + head(b"11") + head(b"22"), item(data, b"11") + item(b"small", b"22")]
    found = [Fetched(data, b"1"), Fetched(data, b"11"), LEFT_OUT]
    assert await line.get(names, pieces, known, 150) == found
    assert await line.get(names, pieces, known, 250) == [*found[:2], Fetched(b"small", b"22")]


NONE_OR_ALL_KNOWN: list[list[bytes | None]] = [
    [None, None],
    [b"1", b"2"],
    [b"1", None],
    [None, b"2"],
]


async def test_an_answer_that_ends_early() -> None:
    whole: list[tuple[bytes, list[bytes | None]]] = [
        (item(AWKWARD) + item(b""), [None, None]),
        (head(b"1") + head(b"2"), [b"1", b"2"]),
        (head(b"1") + item(AWKWARD), [b"1", None]),
    ]
    for answer, known in whole:
        for size in range(len(answer)):
            async with open_line() as line:
                await expect_the_end(line, [answer[:size]] if size else [], known)


async def test_the_longest_line_ends_early() -> None:
    """It is not refused before it is complete."""
    longest = b"VA 123456789 c%b\r\n" % LARGEST_CAS
    for size in range(1, len(longest) + 1):
        async with open_line() as line:
            await expect_the_end(line, [longest[:size]], [None, None])


async def test_the_answer_about_changed_items_ends_early() -> None:
    second = item(AWKWARD, b"3") + item(b"", b"4")
    for size in range(len(second)):
        async with open_line() as line:
            pieces = [head(b"3") + head(b"4"), *([second[:size]] if size else [])]
            await expect_the_end(line, pieces, [b"1", b"2"])


async def expect_the_end(
    line: Line, pieces: Sequence[bytes], known: Sequence[bytes | None]
) -> None:
    asking = asyncio.create_task(get_items(line.reader, line.writer, [A, B], known))
    await line.answer(pieces)
    line.end()
    with pytest.raises(EOFError):
        await asyncio.wait_for(asking, 10)


MALFORMED = [
    b"ERROR\r\n",
    b"CLIENT_ERROR bad command line format\r\n",
    b"SERVER_ERROR out of memory writing get response\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"OK\r\n",
    b"MN\r\n",
    b"NF\r\n",
    b"STORED\r\n",
    b"en\r\n",
    b"EN\n\r\n",
    b"END\r\n",
    b"EN \r\n",
    b"EN c1\r\n",
    b"\r\nEN\r\n",
    b"HD\r\n",
    b"HD \r\n",
    b"HD c\r\n",
    b"HD c1\n",
    b"HD c1 \r\n",
    b"HD  c1\r\n",
    b"HD c1 t0\r\n",
    b"HD t0 c1\r\n",
    b"HD c1 c1\r\n",
    b"HD c1 W\r\n",
    b"HD 1 c1\r\n",
    b"HD c-1\r\n",
    b"HD cx\r\n",
    b"HD c" + b"1" * 21 + b"\r\n",
    b"HD c" + b"1" * 1000,
    b"VA 1\r\nx\r\n",
    b"VA c1\r\nx\r\n",
    b"VA 1 c\r\nx\r\n",
    b"VA 1 f0\r\nx\r\n",
    b"VA 1 c1 f0\r\nx\r\n",
    b"VA 1 f0 c1\r\nx\r\n",
    b"VA 1 c1\nx\r\n",
    b"VA 1 c" + b"1" * 21 + b"\r\nx\r\n",
    b"VA -1 c1\r\n\r\n",
    b"VA -2 c1\r\n",  # its bytes would end where it says that they do
    b"VA +1 c1\r\nx\r\n",
    b"VA 1234567890 c1\r\n",
    b"VA " + b"1" * 1000,
    b"VA 1 c1\r\nxy\r\n",
    b"VA 1 c1\r\nxEN\r\n",
    b"VA 1 c1\r\nx\n\n",
    b"VA 2 c1\r\nx\r\nEN\r\n",
    b"VA 1 c1\r\nx\r\nSTORED\r\n",
    b"VALUE %b 0 1\r\nx\r\nEND\r\n" % A,
]


@pytest.mark.parametrize("known", NONE_OR_ALL_KNOWN)
@pytest.mark.parametrize("answer", MALFORMED)
async def test_malformed_answers_to_get(answer: bytes, known: list[bytes | None]) -> None:
    """Each is refused without waiting for more, wherever it is cut, and after a good answer."""
    good = b"VA 0 c1\r\n\r\n" if known[0] is None else head(b"1")
    for pieces in ([answer], in_bytes(answer), [good + answer], [good, answer]):
        async with open_line() as line:
            with pytest.raises(ProtocolError):
                await line.get([A, B], pieces, known)


@pytest.mark.parametrize("answer", MALFORMED)
async def test_malformed_answers_about_changed_items(answer: bytes) -> None:
    for before in (b"", item(b"", b"3")):
        async with open_line() as line:
            with pytest.raises(ProtocolError):
                await line.get([A, B], [head(b"3") + head(b"4"), before + answer], [b"1", b"2"])


@pytest.mark.parametrize("more", [b"E", MISS, head(b"3"), item(b""), b"\r\n", b"ERROR\r\n"])
@pytest.mark.parametrize(
    ("known", "answer"),
    [
        ([None, None], MISS + MISS),
        ([None, None], item(b"") + item(AWKWARD)),
        ([b"1", b"2"], head(b"1") + head(b"2")),
        ([b"1", b"2"], head(b"1") + MISS),
        ([b"1", b"2"], head(b"1") + head(b"3")),
        ([b"1", None], head(b"1") + item(b"")),
    ],
)
async def test_more_answers_than_commands(
    line: Line, known: list[bytes | None], answer: bytes, more: bytes
) -> None:
    with pytest.raises(ProtocolError):
        await line.get([A, B], [answer + more], known)


async def test_more_answers_than_changed_items(line: Line) -> None:
    with pytest.raises(ProtocolError):
        await line.get([A, B], [head(b"1") + head(b"3"), item(b"", b"3") + MISS], [b"1", b"2"])


@pytest.mark.parametrize("known", [[None, None], [b"1", None]])
async def test_an_item_without_the_bytes_that_were_asked_for(
    line: Line, known: list[bytes | None]
) -> None:
    """It must not be asked for again: a server that always answers so would be asked forever."""
    with pytest.raises(ProtocolError):
        await line.get([A, B], [head(b"1") + head(b"2")], known)


async def test_a_changed_item_without_the_bytes_that_were_asked_for(line: Line) -> None:
    with pytest.raises(ProtocolError):
        await line.get([A], [head(b"2"), head(b"2")], [b"1"])


@pytest.mark.parametrize("known", NONE_OR_ALL_KNOWN)
async def test_an_old_memcached_is_told_apart(line: Line, known: list[bytes | None]) -> None:
    """It does not know the commands, and its operator has to know which version does."""
    with pytest.raises(ProtocolError, match=r"1\.6\.9"):
        await line.get([A, B], [b"ERROR\r\nERROR\r\n"], known)
    async with open_line() as second:
        probing = asyncio.create_task(probe(second.reader, second.writer))
        await second.answer([b"ERROR\r\n"])
        with pytest.raises(ProtocolError, match=r"1\.6\.9"):
            await asyncio.wait_for(probing, 10)


@pytest.mark.parametrize("known", [None, b"1"])
async def test_an_oversized_answer_is_refused(
    line: Line, known: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memcache_protocol, "LONGEST_ANSWER_BYTES", 1000)
    announced = b"VA 999999999 c1\r\n"
    with pytest.raises(CacheUnavailable):
        await line.get([A], [announced, b"x" * 500, b"x" * 500], [known])
    async with open_line() as second:
        answers = [item(b"x" * 900)]
        assert await second.get([A], answers, [known]) == [Fetched(b"x" * 900, b"1")]
    async with open_line() as third:  # many small ones
        with pytest.raises(CacheUnavailable):
            await third.get([A] * 100, [item(b"x" * 50)] * 100, [known] * 100)


async def test_an_oversized_answer_about_changed_items_is_refused(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memcache_protocol, "LONGEST_ANSWER_BYTES", 1000)
    with pytest.raises(CacheUnavailable):
        await line.get([A], [head(b"2"), b"VA 2000 c2\r\n", b"x" * 1000], [b"1"])


async def test_many_names_are_lines_in_one_write(line: Line) -> None:
    names = [b"%032x" % number for number in range(125)]
    assert await line.get(names, [MISS * 125]) == [ABSENT] * 125
    lines = line.sent().removesuffix(b"\r\n").split(b"\r\n")
    assert lines == [b"mg %b c v" % name for name in names]


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
        b"STORED\r\nEN\r\n",
        b"STORED\r\nHD\r\n",
        b"\r\nSTORED\r\n",
        b"STORED\r\nSTORED\r\nSTORED\r\n",
        b"STORED\r\nSTORED\r\nS",
        b"x" * 1000,
    ],
)
async def test_malformed_answers_to_set(line: Line, answers: bytes) -> None:
    with pytest.raises(ProtocolError):
        await line.set([(A, b"1", 0), (B, b"2", 0)], [answers])


@pytest.mark.parametrize("text", [b"x" * 1000, b"VA 5 c1 " + b"x" * 1000, b"\xff" * 1000])
async def test_an_error_shows_little_of_what_may_be_a_value(text: bytes) -> None:
    excerpt = repr(text[:40])
    async with open_line() as line:
        for ask in (
            line.get([A], [text]),
            line.get([A], [text], [b"1"]),
            line.get([A], [head(b"2"), text], [b"1"]),
            line.get([A, A], [item(b"secret") + text]),
            line.set([(A, b"1", 0)], [text]),
        ):
            with pytest.raises(ProtocolError) as caught:
                await ask
            assert "secret" not in str(caught.value)
            assert len(str(caught.value)) < len(excerpt) + 60


async def test_an_error_does_not_show_an_item_that_is_too_long(line: Line) -> None:
    with pytest.raises(ProtocolError) as caught:
        await line.get([A], [b"VA 6 c1\r\nsecret data\r\n"])
    assert "secret" not in str(caught.value)


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
        (b"MN\r\n", True),
        (b"ERROR\r\n", False),
        (b"MN \r\n", False),
        (b"mn\r\n", False),
        (b"\r\n", False),
        (b"EN\r\n", False),
        (b"MN\r\nMN\r\n", False),
        (b"MN\r\nEN\r\n", False),
        (b"VERSION 1.6.18\r\n", False),
        (b"M" * 1000, False),
    ],
)
async def test_probe(line: Line, answer: bytes, accepted: bool) -> None:
    for cut in {1, len(answer) - 1, len(answer)}:
        probing = asyncio.create_task(probe(line.reader, line.writer))
        await line.answer([piece for piece in (answer[:cut], answer[cut:]) if piece])
        if accepted:
            await asyncio.wait_for(probing, 10)
            assert line.sent() == b"mn\r\n"
        else:
            with pytest.raises(ProtocolError):
                await asyncio.wait_for(probing, 10)
            break


@pytest.mark.parametrize(
    "names",
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
def test_names_that_never_reach_the_wire(names: list[bytes]) -> None:
    with pytest.raises(ValueError, match="32 lowercase hexadecimal digits"):
        check_names(names)


async def test_a_bad_name_is_not_sent(line: Line) -> None:
    everything: list[list[bytes | None]] = [[None, None], [b"1", b"2"], [b"1", None]]
    for bad in (b"flush_all\r\n", A[:30] + b"\r\n", A[:16] + b" " + A[:15], A + A):
        for known in everything:
            with pytest.raises(ValueError, match="hexadecimal"):
                await get_items(line.reader, line.writer, [A, bad], known)
        with pytest.raises(ValueError, match="hexadecimal"):
            await set_items(line.reader, line.writer, [(bad, b"", 0)])
    line.writer.write(b"nothing else")
    assert line.sent() == b"nothing else"
