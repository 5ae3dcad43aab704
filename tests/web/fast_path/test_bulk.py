"""Bulk reads of few and small entries are answered on the fast path, and others are not."""

from __future__ import annotations

import asyncio
import gzip
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tenantbase.access import TokenScope
from tenantbase.coherence.policy import Cache
from tenantbase.database.bulk_read import CHUNK_KEYS
from tenantbase.figures import BYPASSES
from tenantbase.json_requests import SetValue
from tenantbase.lookup import Lookup
from tenantbase.scope import Scope
from tenantbase.web.sending import COMPRESSED_FROM_BYTES
from tenantbase.web.transport.unread import SMALL_ANSWER_BYTES
from tests.service import opened, served, service, web_settings
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
        await general(server, wire, read(["k"]))
        assert (await general(server, wire, read(["k"], accepts)))[0] is False
        assert (await general(server, wire, read(["medium"])))[0] is False
        was_general, document = await general(server, wire, read(["medium"], accepts))
        assert was_general and document["values"][0]["value"] == "x" * 5_000
        assert (await general(server, wire, read(["medium"], {"Accept-Encoding": "br"})))[
            0
        ] is False


async def test_an_answer_that_will_be_compressed_is_read_once(tmp_path: Path) -> None:
    """The fast path does not try to answer what it must leave to aiohttp."""
    async with opened(tmp_path / "x.db") as cache, served(cache) as server:
        async with server.wire() as wire:
            await store(wire, {"medium": "x" * 5_000})
        for _ in range(3):
            before = cache.figures[BYPASSES]
            answer = await server.send(read(["medium"], {"Accept-Encoding": "gzip"}))
            assert answer.headers["content-encoding"] == "gzip"
            assert cache.figures[BYPASSES] == before + 1


async def test_the_shortest_answer_that_is_compressed(tmp_path: Path) -> None:
    async with serve(tmp_path, web_settings()) as server, await Wire.connect(server.port) as wire:
        await store(wire, {"k": ""})
        await general(server, wire, read(["k"]))
        await wire.send(read(["k"]))
        most = COMPRESSED_FROM_BYTES - 1 - len((await wire.answer()).body)
        for size, compressed in ((most, False), (most + 1, True)):
            await store(wire, {"k": "x" * size})
            await general(server, wire, read(["none"]))
            before = server.general
            await wire.send(read(["k"], {"Accept-Encoding": "gzip"}))
            answer = await wire.answer()
            assert (server.general > before) is compressed
            assert answer.headers.get("content-encoding") == ("gzip" if compressed else None)


async def test_entries_that_are_not_read_at_once_are_all_in_the_answer(tmp_path: Path) -> None:
    class Interrupted(Cache):
        """Beside large values, which other reads ask for, only the first one is read at once."""

        def get_many_then(
            self, keys: Sequence[str], receive: Callable[[list[Lookup] | Exception], None]
        ) -> None:
            def interrupted(result: list[Lookup] | Exception) -> None:
                try:
                    receive(result if isinstance(result, Exception) else result[:1])
                except Exception:
                    wire.abort()  # there will be no answer to wait for
                    raise

            super().get_many_then(keys, interrupted)

    async with AsyncExitStack() as stack:
        cache = await stack.enter_async_context(opened(tmp_path / "x.db"))
        settings = web_settings(drain_timeout=0.0)  # do not wait for a request that failed
        server = await stack.enter_async_context(served(cache, settings))
        wire = await stack.enter_async_context(server.wire())
        await store(wire, {"a": 1, "b": 2})
        for _ in range(2):
            await wire.send(read(["a", "none", "b"]))
            document = (await wire.answer()).json
            assert [each["value"] for each in document["values"]] == [1, 2]
            assert document["missing"] == ["none"]
            cache.__class__ = Interrupted


async def test_each_tenant_has_sizes_of_its_own(tmp_path: Path) -> None:
    async with serve(tmp_path, web_settings()) as server, await Wire.connect(server.port) as wire:
        for name in ("a", "b"):
            await wire.send(request("PUT", f"/v1/tenants/{name}", "{}"))
            assert (await wire.answer()).status in (200, 201)
        await general(server, wire, read(["k"]))
        for name in ("a", "b"):
            for elsewhere in (True, False):
                assert (await general(server, wire, read(["k"], {"X-Tenant": name})))[
                    0
                ] is elsewhere


async def test_a_read_that_fails_is_not_repeated(tmp_path: Path) -> None:
    async with serve(tmp_path, web_settings()) as server, await Wire.connect(server.port) as wire:
        await general(server, wire, read(["k"]))
        with closing(sqlite3.connect(server.database)) as connection:
            connection.execute("ALTER TABLE entries RENAME TO gone")
        await wire.send(read(["k"]))
        answer = await wire.answer()
        assert answer.status == 503 and "retry-after" in answer.headers
        before = server.general
        await wire.send(read(["k"]))
        assert (await wire.answer()).status == 503
        assert server.general == before


@pytest.mark.parametrize(
    ("warm", "keys"),
    [([], ["small"]), ([["small"]], ["large/0", "large/1", "large/2"])],
    ids=["unknown", "grown"],
)
async def test_a_read_left_to_the_general_path_counts_once(
    tmp_path: Path, warm: Sequence[Sequence[str]], keys: Sequence[str]
) -> None:
    """A tenant's limit allows just the reads that are made here."""
    async with opened(tmp_path / "x.db") as cache:
        secret = await _tenant(cache, len(warm) + 1)
        headers = {"Authorization": f"Bearer {secret}"}
        async with served(cache) as server:
            for each in (*warm, keys):
                answer = await server.send(read(each, headers))
                assert answer.status == 200
                assert [entry["key"] for entry in answer.json["values"]] == list(each)


async def _tenant(cache: Cache, rate: int) -> str:
    """Make a tenant with a small and some large entries, and this limit. Returns: a token."""
    database = service(cache, web_settings())
    await database.put_tenant("t")
    entries = {"small": 1} | {f"large/{at}": "x" * (SMALL_ANSWER_BYTES // 2) for at in range(3)}
    for key, value in entries.items():
        await database.set(Scope("t"), SetValue(key, msgspec.Raw(json.dumps(value).encode())))
    await database.put_tenant("t", max_requests_per_second=rate)
    _, secret = await database.create_token("t", TokenScope.READ, "t")
    return secret


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
