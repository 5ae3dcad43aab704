"""Lists: ``GET /get-values`` and ``GET /v1/values``."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import zlib
from collections.abc import AsyncIterator, Sequence
from functools import partial
from urllib.parse import quote, urljoin

import pytest

from tenantbase.coherence.policy import Cache
from tenantbase.commands import Set
from tenantbase.database import reader
from tenantbase.entry import JSON
from tenantbase.errors import StoreUnavailable
from tenantbase.listing import Item, KeyRange
from tenantbase.plain_entries import Render
from tenantbase.scope import DEFAULT
from tests.servers import poll_async
from tests.service import Server
from tests.web.conftest import Start
from tests.web.matchers import ID, VERSION
from tests.web.table import Ask, Row, invalid, name_of, put, shown
from tests.wire import Answer, request

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

NDJSON = {"Accept": "application/x-ndjson"}
ROUTES = ["/get-values", "/v1/values"]


def listed(*keys: str) -> dict[str, object]:
    return {"values": [shown(key) for key in keys], "cursor": None}


ROWS = [
    Row(
        "in byte order",
        Ask("GET", "/get-values?prefix=o/"),
        200,
        listed("o/", "o/A", "o/a", "o/é", "o/\uffff", "o/🍇"),
        {
            "content-type": "application/json",
            "cache-control": "no-cache",
            "vary": "Accept-Encoding",
            "etag": None,
            "x-cache": None,
        },
        [put(f"o/{end}") for end in ("%F0%9F%8D%87", "%EF%BF%BF", "a", "", "%C3%A9", "A")],
    ),
    Row(
        "a prefix is literal",
        Ask("GET", "/get-values?prefix=l%25_"),
        200,
        listed("l%_1"),
        given=[put("l%25_1"), put("lxx2"), put("L%25_3")],
    ),
    Row("nothing", Ask("GET", "/get-values?prefix=nothing"), 200, listed()),
    Row(
        "keys only",
        Ask("GET", "/v1/values?prefix=k/&fields=key"),
        200,
        {"values": [{"key": "k/1"}, {"key": "k/2"}], "cursor": None},
        given=[put("k/1"), put("k/2")],
    ),
    Row(
        "all but the value",
        Ask("GET", "/v1/values?prefix=m/&fields=meta"),
        200,
        {
            "values": [
                {
                    "key": "m/1",
                    "id": ID,
                    "version": VERSION,
                    "expires_at": None,
                    "content_type": "application/json",
                    "size": 5,
                }
            ],
            "cursor": None,
        },
        given=[put("m/1")],
    ),
    Row(
        "folded",
        Ask("GET", "/get-values?prefix=f/&delimiter=/&fields=key"),
        200,
        {"values": [{"key": "f/a"}, {"key": "f/z"}], "prefixes": ["f/b/", "f/c/"], "cursor": None},
        given=[put(f"f/{end}") for end in ("a", "b/1", "b/2", "c/1/x", "z")],
    ),
    Row(
        "nothing folded",
        Ask("GET", "/get-values?prefix=none&delimiter=/"),
        200,
        {"values": [], "prefixes": [], "cursor": None},
    ),
    Row(
        "from start to end, backwards",
        Ask("GET", "/get-values?prefix=s/&start=s/b&end=s/d&order=desc"),
        200,
        listed("s/c", "s/b"),
        given=[put(f"s/{end}") for end in "abcd"],
    ),
    Row(
        "a list that is empty because it ends before it starts",
        Ask("GET", "/get-values?prefix=s/&start=s/d&end=s/a"),
        200,
        listed(),
    ),
    Row("order", Ask("GET", "/get-values?order=down"), 400, invalid("order")),
    Row("start with %00", Ask("GET", "/get-values?start=%00"), 400, invalid("start")),
    Row("end with %00", Ask("GET", "/get-values?end=%00"), 400, invalid("end")),
    Row("delimiter with %00", Ask("GET", "/get-values?delimiter=%00"), 400, invalid("delimiter")),
    Row(
        "count",
        Ask("GET", "/v1/count?prefix=cnt/"),
        200,
        {"count": 2, "bytes": 2 * (len("cnt/é".encode()) + 5)},
        {"content-type": "application/json", "cache-control": "no-cache"},
        [put("cnt/%C3%A9"), put("cnt/%C3%A8")],
    ),
    Row("count nothing", Ask("GET", "/v1/count?prefix=none"), 200, {"count": 0, "bytes": 0}),
    Row("count with a limit", Ask("GET", "/v1/count?limit=1"), 400, invalid("limit")),
    Row("count from a bad cursor", Ask("GET", "/v1/count?cursor=x"), 400, invalid("cursor")),
    Row(
        "count from a cursor",
        Ask("GET", "/v1/count?prefix=cc/&cursor=AWNjL2E"),  # after cc/a
        200,
        {"count": 1, "bytes": 9},
        given=[put("cc/a"), put("cc/b")],
    ),
    Row("other fields", Ask("GET", "/v1/values?fields=value"), 400, invalid("fields")),
    Row("limit 0", Ask("GET", "/get-values?limit=0"), 400, invalid("limit")),
    Row("limit too high", Ask("GET", "/get-values?limit=10001"), 400, invalid("limit")),
    Row("limit negative", Ask("GET", "/get-values?limit=-1"), 400, invalid("limit")),
    Row("limit no number", Ask("GET", "/get-values?limit=ten"), 400, invalid("limit")),
    Row("limit empty", Ask("GET", "/get-values?limit="), 400, invalid("limit")),
    Row("highest limit", Ask("GET", "/get-values?limit=10000&prefix=none"), 200, listed()),
    Row("cursor", Ask("GET", "/get-values?cursor=x"), 400, invalid("cursor")),
    Row("cursor empty", Ask("GET", "/get-values?limit=1&cursor=&prefix=none"), 200, listed()),
    Row("cursor of another kind", Ask("GET", "/get-values?cursor=A2E"), 400, invalid("cursor")),
    Row("cursor with padding", Ask("GET", "/get-values?cursor=AWE%3D"), 400, invalid("cursor")),
    Row("cursor with a space", Ask("GET", "/get-values?cursor=A+WE"), 400, invalid("cursor")),
    Row("cursor of an illegal key", Ask("GET", "/get-values?cursor=AQA"), 400, invalid("cursor")),
    Row("cursor no UTF-8", Ask("GET", "/get-values?cursor=Af8"), 400, invalid("cursor")),
    Row("a cursor", Ask("GET", "/get-values?cursor=AWE&prefix=none"), 200, listed()),
    Row("cursor not ASCII", Ask("GET", "/get-values?cursor=%C3%A9"), 400, invalid("cursor")),
    Row("prefix with %00", Ask("GET", "/get-values?prefix=%00"), 400, invalid("prefix")),
    Row("prefix twice", Ask("GET", "/get-values?prefix=a&prefix=b"), 400, invalid("prefix")),
    Row("unknown parameter", Ask("GET", "/get-values?key=a"), 400, invalid("key")),
    Row(
        "NDJSON",
        Ask("GET", "/v1/values?prefix=n/", headers=NDJSON),
        200,
        None,
        {"content-type": "application/x-ndjson", "vary": "Accept-Encoding"},
        [put("n/1")],
    ),
    Row(
        "get-values is always JSON",
        Ask("GET", "/get-values?prefix=none", headers=NDJSON),
        200,
        listed(),
        {"content-type": "application/json"},
    ),
    Row(
        "a client that likes JSON better",
        Ask(
            "GET",
            "/v1/values?prefix=none",
            headers={"Accept": "application/x-ndjson;q=0.5, application/json"},
        ),
        200,
        listed(),
        {"content-type": "application/json"},
    ),
    Row(
        "a client that refuses NDJSON",
        Ask("GET", "/v1/values?prefix=none", headers={"Accept": "application/x-ndjson;q=0"}),
        200,
        listed(),
    ),
    Row(
        "HEAD",
        Ask("HEAD", "/v1/values?prefix=none"),
        200,
        b"",
        {"content-type": "application/json"},
    ),
    Row("HEAD of an error", Ask("HEAD", "/v1/values?limit=0"), 400, b""),
]


@pytest.mark.parametrize("row", ROWS, ids=name_of)
async def test_list(server: Server, row: Row) -> None:
    await row.check(server)


async def fill(server: Server, prefix: str, count: int, size: int = 1) -> list[str]:
    keys = [f"{prefix}{index:05}" for index in range(count)]
    for start in range(0, count, 1000):
        entries = [{"key": key, "value": "x" * size} for key in keys[start : start + 1000]]
        answer = await server.ask("POST", "/set-values", json.dumps({"values": entries}))
        assert answer.status == 200
    return keys


def keys_of(answer: Answer) -> list[str]:
    return [entry["key"] for entry in answer.json["values"]]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("limit", [1, 7, 20, 21])
async def test_pages_add_up_to_the_whole_list(server: Server, route: str, limit: int) -> None:
    keys = await fill(server, "p/", 20)
    seen: list[str] = []
    cursor = ""
    while True:
        answer = await server.ask("GET", f"{route}?prefix=p/&limit={limit}{cursor}")
        page = keys_of(answer)
        assert len(page) <= limit
        seen += page
        if answer.json["cursor"] is None:
            break
        assert len(page) == limit
        cursor = f"&cursor={answer.json['cursor']}"
    assert seen == keys


async def test_a_cursor_survives_the_key_it_came_from(server: Server) -> None:
    await fill(server, "c/", 4)
    first = await server.ask("GET", "/get-values?prefix=c/&limit=2")
    await server.ask("DELETE", "/delete-value?key=c/00001")
    await server.ask("PUT", "/v1/values/c/00000x", "late")
    rest = await server.ask("GET", f"/get-values?prefix=c/&cursor={first.json['cursor']}")
    assert keys_of(rest) == ["c/00002", "c/00003"]


async def test_each_entry_is_one_line(server: Server) -> None:
    await put("w/1", '{\r\n  "a":\n "\\n\\r"\n}\n').send(server, "")
    await Ask("PUT", "/v1/values/w/2%0A", b"\n").send(server, "")
    answer = await server.ask("GET", "/v1/values?prefix=w/", headers=NDJSON)
    lines = answer.body.split(b"\n")
    assert lines[-1] == b"" and len(lines) == 3
    first, second = map(json.loads, lines[:2])
    assert (first["key"], first["value"]) == ("w/1", {"a": "\n\r"})
    assert (second["key"], second["value"], second["encoding"]) == ("w/2\n", "Cg==", "base64")


async def test_lines_have_the_first_of_a_limit_and_keys_only(server: Server) -> None:
    keys = await fill(server, "lines/", 5)
    target = "/v1/values?prefix=lines/&fields=key&limit=3"
    answer = await server.ask("GET", target, headers=NDJSON)
    assert [json.loads(line) for line in answer.body.splitlines()] == [
        {"key": key} for key in keys[:3]
    ]


@pytest.mark.parametrize("accept", [{}, NDJSON])
async def test_a_large_list_is_streamed(start: Start, accept: dict[str, str]) -> None:
    async with start() as server:
        keys = await fill(server, "s/", 1000, 2000)
        plain = await server.ask("GET", "/v1/values", headers=accept)
        assert plain.headers["transfer-encoding"] == "chunked" and plain.whole
        if accept:
            entries = [json.loads(line) for line in plain.body.splitlines()]
        else:
            entries = plain.json["values"]
            assert plain.json["cursor"] is None
        assert [entry["key"] for entry in entries] == keys
        packed = await server.ask(
            "GET", "/v1/values", headers={**accept, "Accept-Encoding": "gzip"}
        )
        assert gzip.decompress(packed.body) == plain.body
        async with server.wire() as wire:
            for _ in range(2):  # any bytes after the head would be taken for the second answer
                await wire.send(request("HEAD", "/v1/values", headers=accept))
                head = await wire.answer("HEAD")
                assert head.status == 200 and "transfer-encoding" not in head.headers


CODINGS = [
    ("gzip", "gzip"),
    ("GZIP;q=0.1", "gzip"),
    ("deflate", "deflate"),
    ("deflate, gzip", "gzip"),
    ("*", "gzip"),
    ("gzip;q=0, *", "deflate"),
    ("gzip;q=0.0, deflate;q=0", None),
    ("br, zstd", None),
    ("identity", None),
    ("", None),
]


@pytest.mark.parametrize(("accept", "coding"), CODINGS)
async def test_compression_is_negotiated(server: Server, accept: str, coding: str | None) -> None:
    await fill(server, "z/", 100, 100)
    plain = await server.ask("GET", "/get-values?prefix=z/")
    headers = {"Accept-Encoding": accept}
    answer = await server.ask("GET", "/get-values?prefix=z/", headers=headers)
    assert answer.headers.get("content-encoding") == coding
    assert answer.headers["vary"] == "Accept-Encoding"
    body = answer.body if coding is None else zlib.decompress(answer.body, 47)
    assert body == plain.body
    small = await server.ask("GET", "/get-values?prefix=z/00000", headers=headers)
    assert "content-encoding" not in small.headers


@pytest.mark.parametrize("target", ["/get-value?key=y/00000", "/v1/values/y/00000"])
async def test_one_value_is_never_compressed(server: Server, target: str) -> None:
    """It has a strong tag, which identifies exactly these bytes."""
    await fill(server, "y/", 1, 100_000)
    answer = await server.ask("GET", target, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers and "vary" not in answer.headers


async def test_http_1_0_gets_it_until_the_end_of_the_connection(server: Server) -> None:
    keys = await fill(server, "old/", 500, 2000)
    async with server.wire() as wire:
        await wire.send(server.request("GET", "/get-values?prefix=old/", version="1.0"))
        answer = await wire.answer()
    assert "transfer-encoding" not in answer.headers
    assert keys_of(answer) == keys


async def test_existing_keys_are_listed_once_during_writes(start: Start) -> None:
    async with start() as server:
        keys = await fill(server, "k", 2000, 1000)
        busy = True

        async def write() -> None:
            index = 0
            while busy:
                index += 1
                await server.ask("PUT", f"/v1/values/k{index % 2000:05}x", "new")
                await server.ask("PUT", f"/v1/values/k{index % 2000:05}", "changed")
                await server.ask("DELETE", f"/v1/values/k{index % 2000:05}x")

        writer = asyncio.create_task(write())
        for _ in range(3):
            answer = await server.ask("GET", "/get-values")
            listing = keys_of(answer)
            assert listing == sorted(set(listing))
            assert [key for key in listing if not key.endswith("x")] == keys
        busy = False
        await writer


def _as(kind: type[Cache], cache: Cache) -> Cache:
    """The same cache with other methods."""
    other = object.__new__(kind)
    other.__dict__.update(cache.__dict__)
    return other


class _Failing(Cache):
    """A list whose second piece fails."""

    def scan(
        self,
        wanted: KeyRange,
        *,
        limit: int | None = None,
        values: bool = True,
        render: Render | None = None,
    ) -> AsyncIterator[tuple[Sequence[Item], bool]]:
        return self._fail(super().scan(wanted, limit=limit, values=values, render=render))

    async def _fail(
        self, pieces: AsyncIterator[tuple[Sequence[Item], bool]]
    ) -> AsyncIterator[tuple[Sequence[Item], bool]]:
        async for piece in pieces:
            yield piece
            raise StoreUnavailable("the disk is gone")


async def test_lines_are_made_in_small_pieces(
    start: Start, turns_taken: list[tuple[str, float]]
) -> None:
    """The event loop makes them, so pages are smaller than those that are rendered by a thread."""
    async with start() as server:
        keys = [DEFAULT.key(f"{number:04}") for number in range(600)]
        await server.cache.write(*(Set(key, b"1", JSON) for key in keys))
        answer = await server.ask("GET", "/v1/values", headers=NDJSON)
        assert len(answer.body.splitlines()) == len(keys)
        # Pages of 256, 256 and 88, and one turn to find that there are no more.
        assert turns_taken.count(("default", 1.0)) == 4


async def test_each_page_is_read_in_a_turn(
    start: Start, turns_taken: list[tuple[str, float]]
) -> None:
    """A crowd of threads that read would take the processor from the event loop."""
    async with start() as server:
        keys = [DEFAULT.key(f"{number:04}") for number in range(2300)]
        await server.cache.write(*(Set(key, b"1", JSON) for key in keys))
        answer = await server.ask("GET", "/get-values")
        assert len(answer.json["values"]) == len(keys)
        # Pages of 1,024, 1,024 and 252, and one turn to find that there are no more.
        assert turns_taken.count(("default", 1.0)) == 4


async def test_an_error_in_the_middle_cuts_the_answer(start: Start) -> None:
    async with start(wrap=partial(_as, _Failing)) as server:
        await fill(server, "k", 1000, 2000)
        async with server.wire() as wire:
            await wire.send(request("GET", "/get-values"))
            answer = await wire.answer()
            assert answer.status == 200 and not answer.whole
            assert await wire.ended()
        small = await server.ask("GET", "/get-values?prefix=k00000")
        assert small.status == 503 and small.headers["retry-after"] == "1"


async def test_a_client_that_disconnects_ends_the_listing(start: Start) -> None:
    async with start() as server:
        await fill(server, "k", 4000, 5_000)
        async with server.wire() as wire:
            await wire.send(request("GET", "/get-values"))
            await wire.reader.readexactly(1000)
        await poll_async(lambda: not server.lifecycle.in_flight, "it has ended")
        assert (await server.ask("GET", "/livez")).status == 200


async def all_pages(server: Server, target: str) -> list[dict[str, object]]:
    """The documents of all pages, following cursors."""
    found = []
    cursor: object = ""
    while cursor is not None:
        page = (await server.ask("GET", f"{target}&cursor={cursor}")).json
        found.append(page)
        cursor = page["cursor"]
    return found


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_folded_keys_count_once_on_the_pages_of_a_list(
    server: Server, order: str, limit: int
) -> None:
    for end in ("a", "b/1", "b/2", "c", "d/1/x", "d/2/y", "e"):
        await put(f"pg/{end}").send(server, "")
    target = f"/v1/values?prefix=pg/&delimiter=/&limit={limit}&order={order}&fields=key"
    pages = await all_pages(server, target)
    items = [
        [*(value["key"] for value in page["values"]), *page["prefixes"]]  # type: ignore
        for page in pages
    ]
    assert all(len(page) <= limit for page in items)
    expected = ["pg/a", "pg/b/", "pg/c", "pg/d/", "pg/e"]
    flat = [key for page in items for key in sorted(page, reverse=order == "desc")]
    assert flat == (expected if order == "asc" else expected[::-1])


@pytest.mark.parametrize("more", ["", "&delimiter=/", "&order=desc", "&fields=meta"])
async def test_an_ndjson_list_links_to_its_next_page(server: Server, more: str) -> None:
    for end in ("a b", "c/1", "c/2", "d&e", "f"):
        await put(f"nx/{quote(end)}").send(server, "")
    whole = await server.ask("GET", f"/v1/values?prefix=nx/{more}", headers=NDJSON)
    assert "link" not in whole.headers
    target, lines = f"/v1/values?prefix=nx/&limit=2{more}", b""
    while True:
        page = await server.ask("GET", target, headers=NDJSON)
        assert 1 <= page.body.count(b"\n") <= 2
        lines += page.body
        if (link := page.headers.get("link")) is None:
            break
        found = re.fullmatch('<([^<>]*)>; rel="next"', link)
        assert found is not None
        target = urljoin("/v1/values", found[1])
    assert lines == whole.body
    exact = await server.ask("GET", "/v1/values?prefix=nx/&limit=5", headers=NDJSON)
    assert "link" not in exact.headers


class _Growing(Cache):
    """Another client adds a key in the middle of a page, after the page was chosen."""

    async def scan(
        self,
        wanted: KeyRange,
        *,
        limit: int | None = None,
        values: bool = True,
        render: Render | None = None,
    ) -> AsyncIterator[tuple[Sequence[Item], bool]]:
        if values:
            await self.write(Set("default/b", b"2", "application/json"))
        async for piece in super().scan(wanted, limit=limit, values=values, render=render):
            yield piece


async def test_a_key_that_is_added_meanwhile_displaces_none(start: Start) -> None:
    async with start(wrap=partial(_as, _Growing)) as server:
        for key in "ace":
            await put(key).send(server, "")
        page = await server.ask("GET", "/v1/values?limit=2", headers=NDJSON)
        assert [json.loads(line)["key"] for line in page.body.splitlines()] == ["a", "c"]
        rest = await server.ask(
            "GET", "/v1/values" + page.headers["link"][1:].split(">")[0], headers=NDJSON
        )
        assert [json.loads(line)["key"] for line in rest.body.splitlines()] == ["e"]


async def test_a_key_that_is_added_to_the_last_page_displaces_none(start: Start) -> None:
    async with start(wrap=partial(_as, _Growing)) as server:
        for key in "ace":
            await put(key).send(server, "")
        page = await server.ask("GET", "/v1/values?limit=3", headers=NDJSON)
        assert "link" not in page.headers
        assert [json.loads(line)["key"] for line in page.body.splitlines()] == ["a", "c", "e"]


async def test_a_count_that_runs_out_of_time_goes_on_with_a_cursor(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_COUNTED_AT_ONCE", 2)
    monkeypatch.setattr(reader, "COUNT_SECONDS", 0.0)
    async with start() as server:
        for key in "abcde":
            await put(key, "12345").send(server, "")
        total, cursor, answers = 0, "", 0
        while True:
            counted = (await server.ask("GET", f"/v1/count?cursor={cursor}")).json
            total += counted["count"]
            assert counted["bytes"] == counted["count"] * 6
            answers += 1
            if "at_least" not in counted:
                break
            assert counted["at_least"] is True
            cursor = counted["cursor"]
        assert (total, answers) == (5, 3)
