"""Bulk reads of few and small entries are answered on the fast path, and others are not."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tenantbase.database.bulk_read import CHUNK_KEYS
from tenantbase.web.transport.unread import SMALL_ANSWER_BYTES
from tests.service import web_settings
from tests.web.fast_path.counted import Served, serve
from tests.wire import Wire, request

pytestmark = pytest.mark.integration


def read(keys: Sequence[str], headers: dict[str, str] | None = None) -> bytes:
    return request("POST", "/get-values", json.dumps({"keys": keys}), headers or {})


async def store(wire: Wire, entries: dict[str, Any]) -> None:
    body = {"values": [{"key": key, "value": value} for key, value in entries.items()]}
    await wire.send(request("POST", "/set-values", json.dumps(body)))
    assert (await wire.answer()).status == 200


async def general(server: Served, wire: Wire, data: bytes) -> tuple[bool, Any]:
    """Whether the general path answered a request, and the answer's document."""
    before = server.general
    await wire.send(data)
    answer = await wire.answer()
    assert answer.status == 200
    body = answer.body
    if answer.headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    return server.general > before, json.loads(body)


async def test_few_and_small_entries_are_read_here_once_their_sizes_are_known(
    tmp_path: Path,
) -> None:
    async with serve(tmp_path, web_settings()) as server, await Wire.connect(server.port) as wire:
        await store(wire, {"a": 1, "b": {"x": [1.50]}})
        for at, elsewhere in enumerate([True, False, False]):
            was_general, document = await general(server, wire, read(["b", "none", "a", "b"]))
            assert was_general is elsewhere, at
            assert [each["key"] for each in document["values"]] == ["b", "a"]
            assert [each["value"] for each in document["values"]] == [{"x": [1.5]}, 1]
            assert document["missing"] == ["none"]


async def test_many_keys_are_left_to_the_general_path(tmp_path: Path) -> None:
    async with serve(tmp_path, web_settings()) as server, await Wire.connect(server.port) as wire:
        await general(server, wire, read(["k"]))
        few = [f"{number}" for number in range(CHUNK_KEYS)]
        assert await general(server, wire, read(few)) == (False, {"values": [], "missing": few})
        many = [*few, "more"]
        assert await general(server, wire, read(many)) == (True, {"values": [], "missing": many})


async def test_values_that_have_grown_are_left_to_the_general_path(tmp_path: Path) -> None:
    async with serve(tmp_path, web_settings()) as server, await Wire.connect(server.port) as wire:
        await general(server, wire, read(["k"]))
        large = {f"large/{number}": "x" * (SMALL_ANSWER_BYTES // 2) for number in range(3)}
        await store(wire, large)
        keys = list(large)
        # The first read finds out here that they are large, and the second knows it.
        for _ in range(2):
            was_general, document = await general(server, wire, read(keys))
            assert was_general
            assert {each["key"]: each["value"] for each in document["values"]} == large
        for _ in range(40):  # the sizes that were read last count
            was_general, _ = await general(server, wire, read(["k"]))
        assert not was_general


async def test_an_answer_that_is_compressed_is_left_to_the_general_path(tmp_path: Path) -> None:
    async with serve(tmp_path, web_settings()) as server, await Wire.connect(server.port) as wire:
        accepts = {"Accept-Encoding": "br, gzip;q=0.5"}
        await store(wire, {"medium": "x" * 5_000})
        await general(server, wire, read(["k", "medium"]))
        assert (await general(server, wire, read(["medium"])))[0] is False
        assert (await general(server, wire, read(["k"], accepts)))[0] is False
        was_general, document = await general(server, wire, read(["medium"], accepts))
        assert was_general and document["values"][0]["value"] == "x" * 5_000
        assert (await general(server, wire, read(["medium"], {"Accept-Encoding": "br"})))[
            0
        ] is False


async def test_reads_of_several_connections_are_answered_in_their_own_connection(
    tmp_path: Path,
) -> None:
    async with serve(tmp_path, web_settings()) as server, await Wire.connect(server.port) as first:
        await store(first, {f"{number}": number for number in range(50)})
        await general(server, first, read(["0"]))
        async with AsyncExitStack() as stack:
            wires = []
            for number in range(50):
                wires.append(await stack.enter_async_context(await Wire.connect(server.port)))
                await wires[-1].send(read([f"{number}", f"none-{number}"]))
            answers = await asyncio.gather(*(wire.answer() for wire in wires))
        for number, answer in enumerate(answers):
            document = answer.json
            assert [each["value"] for each in document["values"]] == [number]
            assert document["missing"] == [f"none-{number}"]
