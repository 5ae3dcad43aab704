"""The receiving end: pieces as they arrive, and detecting that it is out of step."""

from __future__ import annotations

import asyncio

import pytest

from tenantbase.interfaces.memcached.protocol import ProtocolError
from tenantbase.interfaces.memcached.reader import PieceReader


@pytest.fixture
async def heard() -> list[float]:
    return []


@pytest.fixture
async def reader(heard: list[float]) -> PieceReader:
    return PieceReader(heard.append)


async def test_pieces_are_read_as_they_came(reader: PieceReader, heard: list[float]) -> None:
    before = asyncio.get_running_loop().time()
    reader.feed_data(b"one")
    reader.feed_data(b"two")
    assert [await reader.read(), await reader.read(1)] == [b"one", b"two"]
    assert len(heard) == 2
    assert before <= heard[0] <= heard[1] <= asyncio.get_running_loop().time()


async def test_a_waiting_reader_gets_the_next_piece(reader: PieceReader) -> None:
    reading = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    assert not reading.done()
    reader.feed_data(b"late")
    assert await asyncio.wait_for(reading, 5) == b"late"


async def test_data_before_the_end_is_read_first(reader: PieceReader) -> None:
    reader.feed_data(b"last")
    reader.feed_eof()
    assert [await reader.read() for _ in range(3)] == [b"last", b"", b""]


async def test_closing_wakes_the_waiting_reader(reader: PieceReader) -> None:
    reading = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    reader.feed_eof()
    assert await asyncio.wait_for(reading, 5) == b""


async def test_an_error_wakes_the_waiting_reader(reader: PieceReader) -> None:
    reading = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    reader.set_exception(ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reading, 5)


async def test_a_cancelled_read_takes_no_data(reader: PieceReader) -> None:
    impatient = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    impatient.cancel()
    reader.feed_data(b"answer")
    with pytest.raises(asyncio.CancelledError):
        await impatient
    assert await reader.read() == b"answer"


async def test_unexpected_bytes_break_it(reader: PieceReader) -> None:
    reader.expected = False
    assert reader.in_step
    reader.feed_data(b"surprise")
    assert not reader.in_step
    with pytest.raises(ProtocolError):
        await reader.read()


async def test_it_is_out_of_step_with_bytes_left_over_or_at_the_end(reader: PieceReader) -> None:
    reader.feed_data(b"answer")
    reader.feed_data(b"and more")
    await reader.read()
    assert not reader.in_step, "the rest would be taken for the next answer"
    await reader.read()
    assert reader.in_step
    reader.feed_eof()
    assert not reader.in_step
