"""Lists of one page are answered on the fast path, with the same bytes; others are not."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tenantbase.access import TokenScope
from tenantbase.coherence.policy import Cache
from tenantbase.commands import Set
from tenantbase.entry import JSON, Entry
from tenantbase.errors import StoreUnavailable
from tenantbase.json_requests import SetValue
from tenantbase.listing import PAGE_ENTRIES, Folded, KeyRange
from tenantbase.plain_entries import Render
from tenantbase.scope import DEFAULT, Scope
from tenantbase.web.app import TURNS
from tenantbase.web.fast_path import pages
from tenantbase.web.fast_path.pages import Pages
from tenantbase.web.handlers.lists import GROUP_ITEMS
from tenantbase.web.list_document import ListDocument
from tenantbase.web.sending import COMPRESSED_FROM_BYTES
from tenantbase.web.transport.turns import Turns
from tests.servers import poll_async
from tests.service import Server, opened, served, service, web_settings
from tests.web.both_paths import answers, both_paths
from tests.web.conftest import Start
from tests.web.corpus import LAST
from tests.web.fast_path.counted import Served, serve
from tests.wire import Answer, Wire, request

pytestmark = pytest.mark.integration

GZIP = {"Accept-Encoding": "gzip"}


class Gated(Cache):
    """Its pages are read once the gate is open.

    Attributes:
        waiting: how many wait for it.
    """

    gate: asyncio.Event
    waiting: int

    async def page(
        self, wanted: KeyRange, limit: int, render: Render | None
    ) -> tuple[Sequence[Entry | Folded], bool]:
        self.waiting += 1
        await self.gate.wait()
        return await super().page(wanted, limit, render)


class Failing(Cache):
    """No page of it can be read."""

    async def page(
        self, wanted: KeyRange, limit: int, render: Render | None
    ) -> tuple[Sequence[Entry | Folded], bool]:
        raise StoreUnavailable("the disk is gone")


def gated(cache: Cache) -> Gated:
    other = object.__new__(Gated)
    other.__dict__.update(cache.__dict__, gate=asyncio.Event(), waiting=0)
    return other


def failing(cache: Cache) -> Failing:
    other = object.__new__(Failing)
    other.__dict__.update(cache.__dict__)
    return other


def a_list(query: str, headers: dict[str, str] | None = None) -> bytes:
    return request("GET", f"/get-values?{query}", headers=headers or {})


async def fill(port: int, count: int, value: object = 1, **fields: object) -> list[str]:
    """Store entries; returns their keys, which begin with ``k``."""
    keys = [f"k{number:04}" for number in range(count)]
    async with await Wire.connect(port) as wire:
        for at in range(0, count, 200):
            batch = keys[at : at + 200]
            rows = [{"key": key, "value": value, **fields} for key in batch]
            await wire.send(request("POST", "/set-values", json.dumps({"values": rows})))
            assert (await wire.answer()).status == 200
    return keys


def document(answer: Answer) -> Any:
    assert answer.status == 200, answer.body
    body = answer.body
    return json.loads(gzip.decompress(body) if "content-encoding" in answer.headers else body)


async def general(
    server: Served, query: str, headers: dict[str, str] | None = None
) -> tuple[bool, list[str]]:
    """Whether the general path answered a list, and the keys in it."""
    before = server.general
    async with await Wire.connect(server.port) as wire:
        await wire.send(a_list(query, headers))
        found = document(await wire.answer())
    return server.general > before, [each["key"] for each in found["values"]]


async def until_closed(server: Server) -> None:
    """Wait until the server has learned of the first token."""
    while (await server.ask("GET", "/v1/whoami")).status != 401:
        await asyncio.sleep(0.01)


@pytest.fixture
async def ports(tmp_path: Path) -> AsyncIterator[tuple[int, int]]:
    """Two servers on one database: with the fast path, and without."""
    async with opened(tmp_path / "x.db") as cache:
        await cache.write(
            *(Set(DEFAULT.key(f"plain/{number:03}"), b"1.50", JSON) for number in range(200))
        )
        await cache.write(
            Set(DEFAULT.key("é/ü"), '"ß\\u0000"'.encode(), JSON),
            Set(DEFAULT.key('quote"\\\n'), b"[]", JSON),
            Set(DEFAULT.key("text"), b"<p>", "text/plain"),
            Set(DEFAULT.key("bytes"), b"\xff\0", "image/png"),
            Set(DEFAULT.key("soon"), b"null", JSON, expires_at=time.time() + 3600),
        )
        async with both_paths(cache) as ports:
            yield ports


_LIMITS = ["limit=1", "limit=5", "limit=100", "limit=1000", "limit=1024", "limit=1025", ""]
_RANGES = [
    "prefix=plain/",
    "prefix=plain%2F&order=desc",
    "start=plain/100&end=plain/150",
    "prefix=%C3%A9",
    "prefix=none",
    "start=plain/150",
    "order=asc",
    "",
]
_OTHERS = [
    "limit=0",
    "limit=-1",
    "limit=x",
    "limit=10001",
    "limit=5&limit=5",
    "limit=5&cursor=x",
    "limit=5&unknown=1",
    "limit=5&prefix=%",
    "limit=5&prefix=%FF",
    "limit=5&prefix=%00",
    "limit=5&prefix=a+b",
    "limit=5&prefix=a#b",
    "limit=5&order=up",
    "limit=5&fields=key",
    "limit=5&fields=meta",
    "limit=5&fields=all",
    "limit=5&delimiter=/",
    "limit=5&delimiter=",
    "limit=5&prefix=?",
    "limit=5&&prefix=plain/",
    "limit=5&prefix",
    "&limit=5",
    "limit=%35",
    "limit=5&prefix=" + "x" * 1_025,
    "limit=5&prefix=" + "x" * 9_000,
]


async def test_both_paths_list_the_same(ports: tuple[int, int]) -> None:
    queries = ["&".join(filter(None, pair)) for pair in itertools.product(_RANGES, _LIMITS)]
    for query in [*queries, *_OTHERS]:
        fast, other = [await answers(port, [a_list(query) + LAST]) for port in ports]
        assert fast == other != b"reset", query


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_cursors_lead_from_page_to_page_on_either_path(
    ports: tuple[int, int], order: str
) -> None:
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(await Wire.connect(port)) for port in ports]
        found: list[str] = []
        cursor: str | None = ""
        for wire in itertools.cycle(wires):
            await wire.send(a_list(f"limit=40&order={order}&cursor={cursor}"))
            page = document(await wire.answer())
            found += [each["key"] for each in page["values"]]
            cursor = page["cursor"]
            if cursor is None:
                break
        await wires[1].send(request("GET", f"/get-values?order={order}"))
        assert found == [each["key"] for each in document(await wires[1].answer())["values"]]
        assert len(found) == 205


async def test_every_escape_in_a_query_means_the_same_to_both(ports: tuple[int, int]) -> None:
    for code in range(256):
        data = a_list(f"limit=2&prefix=%{code:02x}&end=%{code:02X}") + LAST
        fast, other = [await answers(port, [data]) for port in ports]
        assert fast == other != b"reset", code


async def test_lists_of_one_page_are_answered_here(tmp_path: Path) -> None:
    async with serve(tmp_path, web_settings()) as server:
        keys = await fill(server.port, 1100)
        for query, elsewhere, expected in [
            ("limit=3", False, ["k", *keys][:3]),
            ("limit=1000&prefix=k", False, ["k", *keys][:1000]),
            (f"limit={PAGE_ENTRIES}", False, ["k", *keys][:PAGE_ENTRIES]),
            (f"limit={PAGE_ENTRIES + 1}&prefix=k0", True, keys[:1000]),
            ("prefix=k00", True, keys[:100]),  # it may be long
            ("limit=5&prefix=none", False, []),
            ("limit=5&prefix=k01&order=desc", False, keys[195:200][::-1]),
        ]:
            assert await general(server, query) == (elsewhere, expected), query


@pytest.mark.parametrize("remembered", [math.inf, -1.0])
@pytest.mark.parametrize(
    "size", [4_000, 10_000]
)  # the smaller ones are rendered when they are read
async def test_lists_of_large_values_are_left_to_the_general_path_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remembered: float, size: int
) -> None:
    monkeypatch.setattr(pages, "_FORGET_SECONDS", remembered)
    async with serve(tmp_path, web_settings()) as server:
        keys = await fill(server.port, 100, "x" * size)
        assert await general(server, "prefix=k0&limit=90") == (True, keys[:90])
        assert await general(server, "prefix=k0&limit=3") == (False, keys[:3])
        # Now they would fit.
        await fill(server.port, 100)
        was_general, found = await general(server, "prefix=k0&limit=90")
        assert found == keys[:90]
        assert was_general is (remembered > 0)


async def test_what_takes_long_to_render_is_left_to_the_general_path(tmp_path: Path) -> None:
    async with serve(tmp_path, web_settings()) as server:
        count = GROUP_ITEMS + 1
        keys = await fill(server.port, count, ttl=1000)  # such rows are rendered one by one
        assert await general(server, f"prefix=k0&limit={count - 1}") == (False, keys[:-1])
        assert await general(server, f"prefix=k0&limit={count}") == (True, keys)


async def test_long_answers_to_clients_that_accept_compression_are_compressed(
    tmp_path: Path,
) -> None:
    async with serve(tmp_path, web_settings()) as server:
        keys = await fill(server.port, 100)
        assert await general(server, "prefix=k0&limit=10", GZIP) == (False, keys[:10])
        assert await general(server, "prefix=k0&limit=100", GZIP) == (True, keys)
        assert await general(server, "prefix=k0&limit=100") == (False, keys)
        async with await Wire.connect(server.port) as wire:
            for limit in (10, 100):
                await wire.send(a_list(f"prefix=k0&limit={limit}", GZIP))
                answer = await wire.answer()
                assert ("content-encoding" in answer.headers) is (limit == 100)
                size = len(json.dumps(document(answer), separators=(",", ":")))
                assert (size >= COMPRESSED_FROM_BYTES) is (limit == 100)


async def test_a_failing_store_is_reported_alike_by_both(tmp_path: Path) -> None:
    async with opened(tmp_path / "x.db") as cache, both_paths(failing(cache)) as ports:
        for query in ("limit=5", "limit=5&prefix=a"):
            fast, other = [await answers(port, [a_list(query) + LAST]) for port in ports]
            assert fast == other
            assert fast.startswith(b"HTTP/1.1 503")


async def test_a_list_that_cannot_be_made_is_answered(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(document: ListDocument, cursor: str | None) -> bytes:
        raise RuntimeError("a mistake")

    async with start() as server, server.wire() as wire:
        with monkeypatch.context() as patch:
            patch.setattr(ListDocument, "end", fail)
            await wire.send(a_list("limit=5"))
            assert (await wire.answer()).status == 500
        await wire.send(a_list("limit=5"))
        assert document(await wire.answer()) == {"values": [], "cursor": None}


async def test_each_page_is_read_in_a_turn(
    start: Start, turns_taken: list[tuple[str, float]]
) -> None:
    async with start() as server:
        assert (await server.ask("GET", "/get-values?limit=5")).json["values"] == []
        assert turns_taken == [("default", 1.0)]


async def test_lists_do_not_wait_for_each_other_as_for_other_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apps, rests = list[web.Application](), list[Turns]()
    begin, rest = Pages.begin, Turns._rest

    def during_a_turn(pages: Pages, *args: Any) -> bool:
        # Another list's turn ends before the task of this one starts.
        asyncio.get_running_loop().call_soon(apps[0][TURNS]._end)
        return begin(pages, *args)

    def counted(turns: Turns) -> None:
        rests.append(turns)
        rest(turns)

    monkeypatch.setattr(Pages, "begin", during_a_turn)
    monkeypatch.setattr(Turns, "_rest", counted)
    async with opened(tmp_path / "x.db") as cache, served(cache, prepare=apps.append) as server:
        assert (await server.ask("GET", "/get-values?limit=5")).json["values"] == []
    assert not rests


async def test_a_list_waits_for_room_and_gives_it_back(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start() as server:
        unread = server.lifecycle.connections.unread
        await fill(server.port, 900, "x" * 100)
        assert len((await server.ask("GET", "/get-values?limit=900")).json["values"]) == 900
        await poll_async(lambda: not unread.used, "nothing is charged")
        unread.used = int(unread.limit)  # as if others held all of it
        waiting = asyncio.create_task(server.ask("GET", "/get-values?limit=900"))
        await poll_async(lambda: unread.waiting == 1, "it waits")
        unread.used = 0
        assert len((await waiting).json["values"]) == 900
        await poll_async(lambda: not unread.used, "nothing is charged")
        monkeypatch.setattr(pages, "WAIT_SECONDS", 0.01)
        unread.used = int(unread.limit)
        refused = await server.ask("GET", "/get-values?limit=900")
        unread.used = 0
        assert refused.status == 503
        assert refused.json["limit"] == "max-inflight-bytes"


@pytest.mark.parametrize("revoked", [False, True])
async def test_a_list_ends_with_its_token(tmp_path: Path, revoked: bool) -> None:
    async with opened(tmp_path / "x.db") as opened_cache:
        cache, settings = gated(opened_cache), web_settings()
        async with served(cache, settings) as server, server.wire() as wire:
            database = service(cache, settings)
            token, secret = await database.create_token("t", TokenScope.READ, "default")
            headers = {"Authorization": f"Bearer {secret}"}
            await until_closed(server)
            await wire.send(a_list("limit=5", headers))
            await poll_async(lambda: cache.waiting == 1, "it is read")
            if revoked:
                await database.revoke_token(token.id)
                assert await wire.ended()
                cache.gate.set()
            else:
                cache.gate.set()
                answer = await wire.answer()
                assert answer.json == {"values": [], "cursor": None}
                assert answer.headers["cache-control"].startswith("private")
            await poll_async(lambda: not server.lifecycle.active, "it has ended")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=1", 200),
        ("limit=50", 200),  # too long after all
        ("limit=2000", 200),
        ("limit=0", 400),
        ("limit=1&order=up", 400),
    ],
)
async def test_a_list_counts_once_for_its_tenant(tmp_path: Path, query: str, status: int) -> None:
    """The tenant's limit allows just this list."""
    async with opened(tmp_path / "x.db") as cache, served(cache) as server:
        database, value = service(cache, web_settings()), msgspec.Raw(b'"%b"' % (b"x" * 10_000))
        await database.put_tenant("t")
        for number in range(60):
            await database.set(Scope("t"), SetValue(f"{number}", value))
        await database.put_tenant("t", max_requests_per_second=1)
        _, secret = await database.create_token("t", TokenScope.READ, "t")
        headers = {"Authorization": f"Bearer {secret}"}
        await until_closed(server)
        assert (await server.send(a_list(query, headers))).status == status


async def test_lists_of_several_connections_go_to_their_own(tmp_path: Path) -> None:
    async with serve(tmp_path, web_settings()) as server, AsyncExitStack() as stack:
        keys = await fill(server.port, 100)
        before, wires = server.general, []
        for number in range(100):
            wires.append(await stack.enter_async_context(await Wire.connect(server.port)))
            await wires[-1].send(a_list(f"limit={number % 3 + 1}&start={keys[number]}"))
        answers = await asyncio.gather(*(wire.answer() for wire in wires))
        for number, answer in enumerate(answers):
            found = [each["key"] for each in document(answer)["values"]]
            assert found == keys[number : number + number % 3 + 1]
        assert server.general == before


async def test_a_client_that_leaves_ends_its_list(tmp_path: Path) -> None:
    async with opened(tmp_path / "x.db") as opened_cache:
        cache = gated(opened_cache)
        async with served(cache) as server:
            async with server.wire() as wire:
                await wire.send(a_list("limit=5"))
                await poll_async(lambda: cache.waiting == 1, "it is read")
            cache.gate.set()
            await poll_async(lambda: not server.lifecycle.active, "it has ended")
            assert not server.lifecycle.connections.unread.used
            assert (await server.ask("GET", "/get-values?limit=5")).status == 200


async def test_a_server_that_drains_finishes_its_lists(tmp_path: Path) -> None:
    async with opened(tmp_path / "x.db") as opened_cache:
        cache = gated(opened_cache)
        async with AsyncExitStack() as stack:
            async with served(cache) as server:
                wire = await stack.enter_async_context(server.wire())
                await wire.send(a_list("limit=5"))
                await poll_async(lambda: cache.waiting == 1, "it is read")
                asyncio.get_running_loop().call_later(0.05, cache.gate.set)
            answer = await wire.answer()
            assert answer.json == {"values": [], "cursor": None}
            assert answer.headers["connection"] == "close"


async def test_requests_that_follow_a_list_are_answered_after_it(tmp_path: Path) -> None:
    async with serve(tmp_path, web_settings()) as server, await Wire.connect(server.port) as wire:
        await fill(server.port, 100, "x" * 10_000)
        queries = ["limit=1", "limit=90&prefix=k0", "limit=2", "limit=80&prefix=k0"]
        await wire.send(b"".join(map(a_list, queries)) + request("GET", "/get-value?key=k"))
        counts = [len(document(await wire.answer())["values"]) for _ in queries]
        assert counts == [1, 90, 2, 80]
        assert (await wire.answer()).json["key"] == "k"
