"""The Python client against real servers, failing networks, and foreign servers."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec
import pytest

from tenantbase.client import (
    NOT_MODIFIED,
    Blob,
    Changed,
    Client,
    ClientError,
    ConditionFailed,
    ConnectionFailed,
    EntryMeta,
    Event,
    Folder,
    NoSuchKey,
    OutcomeUnknown,
    Put,
    Refused,
    Reset,
    TooLarge,
    Total,
    Unavailable,
    UnexpectedAnswer,
    WrongType,
    exchange,
    watching,
)
from tenantbase.client.sse import BlockReader
from tenantbase.entry import JSON
from tests.app_server import AppServer
from tests.nginx import Nginx
from tests.scripted import Scripted
from tests.servers import FaultProxy, let_pass, poll_async

Item = TypeVar("Item")

SECONDS = 20.0
KEYS = [
    *("a", "a/b", "/", "//", "/a/", ".", "..", "../..", "a/../b", "./a", "%", "%2F", "%zz", "a b"),
    *("a+b", "?a=1&b=2", "#", "a;b", "a\\b", "\n\r\t", '"', "'", "é", "e\u0301", "日本", "🍇"),
    *("\uffff", "\x7f", "k" * 1024, "ü" * 512),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    database = tmp_path_factory.mktemp("server") / "x.db"
    with AppServer(database, "--memcached", "off") as server:
        yield server


@pytest.fixture
async def client(server: AppServer) -> AsyncIterator[Client]:
    """A client of an empty server."""
    async with Client(server.base_url) as client:
        await client.delete_prefix("")
        yield client


@pytest.fixture
async def proxy(server: AppServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(f"127.0.0.1:{server.port}") as proxy:
        yield proxy


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    async with Scripted() as scripted:
        yield scripted
        assert not scripted.answers, "not all was asked for"


STORED = b'{"key":"k","id":"i","version":7,"created":true,"expires_at":null}'

# A client's operations, by name, and whether they write.
Call = Callable[[Client], Awaitable[object]]
READS: dict[str, Call] = {
    "get": lambda client: client.get("k"),
    "get_many": lambda client: client.get_many(["k"]),
    "get_raw": lambda client: client.get_raw("k"),
    "list": lambda client: collect(client.list("k")),
    "list_keys": lambda client: collect(client.list_keys("k")),
    "list_meta": lambda client: collect(client.list_meta("k")),
    "browse": lambda client: collect(client.browse("k")),
    "count": lambda client: client.count("k"),
    "health": lambda client: client.health(),
}
WRITES: dict[str, Call] = {
    "set": lambda client: client.set("k", 1),
    "set if absent": lambda client: client.set("k", 1, if_absent=True),
    "delete": lambda client: client.delete("k"),
    "increment": lambda client: client.increment("k"),
    "put_raw": lambda client: client.put_raw("k", b"1"),
    "set_many": lambda client: client.set_many({"k": 1}),
    "delete_many": lambda client: client.delete_many(["k"]),
    "pop_many": lambda client: client.pop_many(["k"]),
    "delete_prefix": lambda client: client.delete_prefix("k"),
}


async def collect(items: AsyncIterator[Item]) -> list[Item]:
    return [item async for item in items]


# Values and keys


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1, 2**200, 1.0, 1e300, 5e-324, "", "é🍇\n\0", [], {}, [1, [2.5, {"a": None}]]],
)
async def test_values_come_back_as_they_were(client: Client, value: Any) -> None:
    written = await client.set("k", value)
    entry = await client.get("k")
    assert entry is not None
    assert entry.value == value and type(entry.value) is type(value)
    assert (entry.key, entry.id, entry.version) == ("k", written.id, written.version)


async def test_exact_text(client: Client) -> None:
    text = b'{"b": 1.50, "a": 12345678901234567890123, "b": "\\u00e9"}'
    await client.set("k", msgspec.Raw(text))
    await client.set_many([Put(key="many", value=msgspec.Raw(text))])
    for entry in (await client.get("k"), (await client.get_many(["many"]))["many"]):
        assert entry is not None and entry.raw == text


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], b"bytes", {1, 2}, "\ud800"])
async def test_invalid_json_is_not_sent(client: Client, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        await client.set("k", value)
    with pytest.raises((TypeError, ValueError)):
        await client.set_many({"a": 1, "k": value})
    assert await collect(client.list()) == []


@pytest.mark.parametrize("key", KEYS, ids=ascii)
async def test_any_key(client: Client, key: str) -> None:
    written = await client.set(key, key)
    assert written.key == key and written.created
    entry = await client.get(key)
    assert entry is not None and entry.value == key
    assert await client.get_many([key]) == {key: entry}
    assert await collect(client.list(key)) == [entry]
    assert await collect(client.list_keys(key)) == [key]
    async with aclosing(client.watch(key, after=written.version - 1)) as events:
        event = await anext(events)
        size = len(entry.raw)
        assert event == Changed("set", key, written.version, size, "application/json", None)
    written = await client.put_raw(key, b"raw", "text/plain", if_version=written.version)
    assert not written.created
    blob = await client.get_raw(key)
    assert blob is not None
    assert (blob.content, blob.content_type, blob.version) == (
        b"raw",
        "text/plain",
        written.version,
    )
    await client.delete(key, if_version=written.version)
    assert await client.get(key) is None and await client.get_raw(key) is None
    assert (await client.increment(key)).value == 1
    assert await client.delete_many([key]) == 1


@pytest.mark.parametrize("key", ["k", "/", "a/b"])
@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"", "text/plain"),
        (bytes(range(256)), "image/png"),
        ("é\r\n".encode(), "text/plain; charset=utf-8"),
        (b'\r\n {"value":{"id": "x"},"id":"y"} \t\n', "application/json"),
        (b" 1.0\n", 'application/ld+json; p=",\\"id\\":\\""'),
        (b"null", "application/json"),
    ],
)
async def test_raw_bytes_are_exact_whatever_the_key(
    client: Client, key: str, content: bytes, content_type: str
) -> None:
    written = await client.put_raw(key, content, content_type)
    blob = await client.get_raw(key)
    assert blob is not None
    assert (blob.content, blob.content_type) == (content, content_type)
    assert await client.get_raw(key, if_none_match=written.version) is NOT_MODIFIED
    with pytest.raises(ConditionFailed):
        await client.put_raw(key, b"2", if_absent=True)
    with pytest.raises(ConditionFailed):
        await client.put_raw(key, b"2", if_version=written.version - 1)
    written = await client.put_raw(key, b"2", ttl=1e6, if_version=written.version)
    assert written.expires_at is not None


@pytest.mark.parametrize("below", ["", "/kv"])
async def test_any_key_through_a_proxy(tmp_path: Path, server: AppServer, below: str) -> None:
    """The proxy decodes paths, merges slashes and resolves dots; every key is its own."""
    with Nginx(tmp_path, server.port) as nginx:
        async with Client(nginx.url + below) as client:
            await client.delete_prefix("")
            for key in KEYS:
                raw = await client.put_raw(key, key.encode(), if_absent=True)
                assert raw.key == key and raw.created
            for key in KEYS:
                blob = await client.get_raw(key)
                assert blob is not None and blob.content == key.encode()
            found = await client.get_many(KEYS)
            assert {key: entry.raw for key, entry in found.items()} == {
                key: key.encode() for key in KEYS
            }
            for key in KEYS:
                assert (await client.set(key, key)).key == key
                entry = await client.get(key)
                assert entry is not None and entry.value == key
            assert await collect(client.list_keys()) == sorted(KEYS)
            async with aclosing(client.watch("/")) as events:
                pending = asyncio.ensure_future(anext(events))
                async with asyncio.timeout(SECONDS):
                    while not pending.done():
                        await client.set("//", 1)
                        await asyncio.sleep(0.05)
                event = await pending
                assert isinstance(event, Changed) and event.key == "//"
            for key in KEYS:
                await client.delete(key)
            assert await collect(client.list_keys()) == []


OTHER = b'{"key":"other","value":1,"id":"i","version":7,"created":true,"expires_at":null}'


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get("k"),
        lambda client: client.get_raw("/k"),
        lambda client: client.set("k", 1),
        lambda client: client.put_raw("k", b""),
        lambda client: client.put_raw("/k", b""),
        lambda client: client.increment("k"),
    ],
)
async def test_an_answer_about_another_key(scripted: Scripted, call: Call) -> None:
    scripted.will(200, OTHER)
    async with Client(scripted.url) as client:
        with pytest.raises(UnexpectedAnswer, match="about another key, 'other'"):
            await call(client)


@pytest.mark.parametrize(
    "call", [lambda client: client.get_many(["k"]), lambda client: client.set_many({"k": 1})]
)
async def test_answers_about_other_keys(scripted: Scripted, call: Call) -> None:
    scripted.will(200, b'{"values":[%b]}' % OTHER)
    async with Client(scripted.url) as client:
        with pytest.raises(UnexpectedAnswer, match="about another key, 'other'"):
            await call(client)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["ttl", "expires_at"])
async def test_a_time_that_is_not_finite_is_not_sent(
    client: Client, name: str, number: float
) -> None:
    time: dict[str, Any] = {name: number}
    calls: list[Awaitable[object]] = [
        client.set("k", 1, **time),
        client.set_many([Put(key="k", value=1, **time)]),
        client.put_raw("k", b"1", **time),
        client.put_raw("/k", b"1", **time),
        client.increment("k", **time),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"^{name} must be a finite number"):
            await call
    assert await collect(client.list()) == []


@pytest.mark.parametrize("ttl", [0.0, -1.0, 1e300])
async def test_a_lifetime_that_is_out_of_range_is_refused(client: Client, ttl: float) -> None:
    for key in ("k", "/k"):
        calls: list[Awaitable[object]] = [
            client.set(key, 1, ttl=ttl),
            client.put_raw(key, b"1", ttl=ttl),
            client.increment(key, ttl=ttl),
        ]
        for call in calls:
            with pytest.raises(Refused, match="ttl"):
                await call
    assert await collect(client.list()) == []


@pytest.mark.parametrize(
    "given",
    [
        *({name: n} for name in ("timeout", "connect_timeout") for n in (0.0, -1.0, float("nan"))),
        {"timeout": float("inf")},
        {"connections": 0},
        {"attempts": 0},
    ],
)
def test_parameters_out_of_range(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Client("http://127.0.0.1:8000", **given)


@pytest.mark.parametrize("size", [0, 256, 1 << 20])
async def test_raw_values(client: Client, size: int) -> None:
    content = bytes(range(256)) * (size // 256)
    await client.put_raw("k", content)
    blob = await client.get_raw("k")
    assert blob is not None and blob.content == content
    assert blob.content_type == "application/octet-stream"
    assert await client.get_raw("k", if_none_match=blob.version) is NOT_MODIFIED
    entry = await client.get("k")
    assert entry is not None and entry.value == entry.raw == content
    await client.put_raw("k", b"[1.0]", "application/vnd.x+json; v=1")
    entry = await client.get("k")
    assert entry is not None and entry.value == [1.0] and entry.raw == b"[1.0]"
    assert entry.content_type == "application/vnd.x+json; v=1"


# Conditions, expiry, counters


async def test_conditions(client: Client) -> None:
    first = await client.set("k", 1, if_absent=True)
    with pytest.raises(ConditionFailed) as caught:
        await client.set("k", 2, if_absent=True)
    assert (caught.value.problem.key, caught.value.problem.version) == ("k", first.version)
    second = await client.set("k", 2, if_version=first.version)
    assert (second.created, second.id) == (False, first.id)
    stale: list[Awaitable[object]] = [
        client.set("k", 3, if_version=first.version),
        client.delete("k", if_version=first.version),
        client.increment("k", if_version=first.version),
        client.put_raw("k", b"3", if_version=first.version),
        client.put_raw("k", b"3", if_absent=True),
        client.set_many([Put(key="new", value=3), Put(key="k", value=3, if_version=first.version)]),
    ]
    for write in stale:
        with pytest.raises(ConditionFailed):
            await write
    assert await client.get("k", if_none_match=second.version) is NOT_MODIFIED
    entry = await client.get("k", if_none_match=first.version)
    assert entry is not None and entry is not NOT_MODIFIED and entry.value == 2
    assert await client.get("new") is None, "all or none"
    await client.delete("k", if_version=second.version)
    assert await client.get("k", if_none_match=second.version) is None


async def test_expiry(client: Client) -> None:
    moment = 4_000_000_000.5
    assert (await client.set("k", 1, expires_at=moment)).expires_at == moment
    assert (await client.increment("k", expires_at=moment + 1)).expires_at == moment + 1
    assert (await client.put_raw("k", b"", expires_at=moment)).expires_at == moment
    (written,) = await client.set_many([Put(key="k", value=1, expires_at=moment)])
    assert written.expires_at == moment
    entry = await client.get("k")
    assert entry is not None and entry.expires_at == moment
    for write in (
        client.set("k", 1, ttl=0.001),
        client.increment("k", ttl=0.001),
        client.put_raw("k", b"", ttl=1e-05),
        client.set_many([Put(key="k", value=1, ttl=0.001)]),
    ):
        await client.delete("k")
        await write
        await asyncio.sleep(0.002)
        assert await client.get("k") is None


async def test_counters(client: Client) -> None:
    assert (await client.increment("n")).value == 1
    assert (await client.increment("m", 2**100, initial=5)).value == 2**100 + 5
    count = await client.increment("m", -(2**101))
    assert (count.value, count.created) == (5 - 2**100, False)
    await client.set("text", "1")
    with pytest.raises(WrongType):
        await client.increment("text")
    await asyncio.gather(*(client.increment("n") for _ in range(50)))
    assert (await client.increment("n", 0)).value == 51


# Many entries


async def test_many_entries(client: Client) -> None:
    keys = [f"k/{number:04}" for number in range(2500)]
    written = await client.set_many({key: key for key in keys})
    assert [each.key for each in written] == keys
    found = await client.get_many([*reversed(keys), "absent", keys[0]])
    assert list(found) == keys[::-1]
    assert all(entry.value == key for key, entry in found.items())
    assert [entry.key async for entry in client.list("k/")] == keys
    assert await collect(client.list_keys("k/1")) == keys[1000:2000]
    assert await collect(client.list("x")) == []
    for limit in (0, 1, 16, 17, 2500, 9999):
        assert await collect(client.list_keys("k/", limit=limit)) == keys[:limit]
    assert await client.delete_many([*keys[:3], keys[0], "absent"]) == 3
    assert await client.delete_prefix("k/") == 2497
    assert await client.get_many([]) == {}
    assert await client.set_many({}) == []
    assert await client.delete_many([]) == 0


async def test_ranges_and_folders(client: Client) -> None:
    await client.set_many({key: key for key in ("a b", "f/1", "f/2", "f/g/3", "h", "z")})
    assert await collect(client.list_keys(start="f/2", end="z")) == ["f/2", "f/g/3", "h"]
    assert await collect(client.list_keys("f/", reverse=True)) == ["f/g/3", "f/2", "f/1"]
    assert [each.key async for each in client.list(end="f", reverse=True)] == ["a b"]
    (meta,) = await collect(client.list_meta("a b"))
    entry = await client.get("a b")
    assert entry is not None
    assert meta == EntryMeta("a b", entry.id, entry.version, None, JSON, len('"a b"'))
    for reverse in (False, True):
        items = await collect(client.browse(reverse=reverse))
        names = [each.prefix if isinstance(each, Folder) else each.key for each in items]
        assert names == ["a b", "f/", "h", "z"][:: -1 if reverse else 1]
    inner = [each async for each in client.browse("f/") if isinstance(each, Folder)]
    assert inner == [Folder("f/g/")]
    assert await client.count("f/") == Total(3, 3 + 3 + 5 + 5 + 5 + 7)
    assert await client.count("a b") == Total(1, 8)


async def test_expiry_and_names_change_without_the_value(client: Client) -> None:
    await client.put_raw("k", b"caf\xe9", "text/plain", ttl=60)
    first = await client.touch("k", expires_at=4e9)
    assert first.expires_at == 4e9 and not first.created
    assert (await client.set("k", 1, keep_ttl=True)).expires_at == 4e9
    assert (await client.put_raw("k", b"caf\xe9", "text/plain", keep_ttl=True)).expires_at == 4e9
    assert (await client.put_raw("a b", b"", keep_ttl=True)).created
    assert (await client.touch("k")).expires_at is None
    with pytest.raises(ConditionFailed):
        await client.touch("k", ttl=1, if_version=first.version)
    with pytest.raises(ValueError, match="not both"):
        await client.touch("k", ttl=1, expires_at=4e9)
    with pytest.raises(NoSuchKey):
        await client.touch("absent")
    assert (await client.rename("k", "j", copy=True)).created
    with pytest.raises(ConditionFailed):
        await client.rename("k", "j")
    moved = await client.rename("k", "j", replace=True)
    assert moved.key == "j" and not moved.created
    assert await client.get("k") is None
    blob = await client.get_raw("j", fresh=True)
    assert blob == Blob(b"caf\xe9", "text/plain", moved.version)
    with pytest.raises(NoSuchKey):
        await client.rename("k", "j")


async def test_entries_are_deleted_only_with_their_versions(client: Client) -> None:
    first, second = await client.set_many({"k1": 1, "k2": 2})
    with pytest.raises(ConditionFailed):
        await client.delete_many({"k1": None, "k2": first.version})
    assert await client.delete_many({"k1": None, "k2": second.version}) == 2


async def test_deleted_entries_are_returned(client: Client) -> None:
    await client.put_raw("raw", b"\xff\0", "image/png")
    await client.set("json", {"a": [1]}, ttl=60)
    expected = await client.get_many(["json", "raw"])
    with pytest.raises(ConditionFailed):
        await client.pop_many({"json": expected["raw"].version, "raw": None})
    keys = ("json", "absent", "raw", "json")
    assert await client.pop_many(key for key in keys) == expected
    assert await client.pop_many({"json": None}) == {}
    assert await client.pop_many([]) == {}
    large = [f"large/{number}" for number in range(9)]
    for key in large:
        await client.put_raw(key, b"x" * 1_000_000)
    with pytest.raises(TooLarge):
        await client.pop_many(large)
    assert await client.delete_many(large) == 9


async def test_text_and_fresh_reads(client: Client) -> None:
    await client.put_raw("k", "é\n".encode(), "text/plain")
    for fresh in (False, True):
        entry = await client.get("k", fresh=fresh)
        assert entry is not None and (entry.raw, entry.content_type) == (
            "é\n".encode(),
            "text/plain",
        )


async def test_a_list_of_large_values(client: Client) -> None:
    keys = [f"k/{number:02}" for number in range(50)]
    for key in keys:
        await client.put_raw(key, key.encode() * 50_000)
    assert [entry.key async for entry in client.list()] == keys


async def test_refusals_say_why(client: Client) -> None:
    with pytest.raises(TooLarge) as too_large:
        await client.set("k", "x" * (1 << 20))
    assert too_large.value.problem.field == "value"
    with pytest.raises(Refused) as caught:
        await client.set("k", 1, ttl=-1)
    problem = caught.value.problem
    assert (problem.status, problem.type) == (400, "urn:tenantbase:problem:invalid-request")
    assert problem.field == "ttl" and problem.title and str(caught.value) == problem.detail
    with pytest.raises(Refused) as caught:
        await client.get("k" * 1025)
    assert caught.value.problem.field == "key"


# What may be retried


@pytest.mark.parametrize("name", READS)
async def test_a_read_is_sent_again(proxy: FaultProxy, name: str) -> None:
    async with Client(f"http://{proxy.address}") as client:
        await client.health()  # opens a connection that stays open
        proxy.cut_existing_after(0)
        await READS[name](client)
        assert proxy.connections == 2


@pytest.mark.parametrize("name", WRITES)
async def test_a_write_whose_answer_is_lost_is_not_sent_again(proxy: FaultProxy, name: str) -> None:
    """Even on a reused connection, where aiohttp would resend it by itself."""
    async with Client(f"http://{proxy.address}") as client:
        await client.health()
        proxy.received.clear()
        proxy.cut_existing_after(0)
        with pytest.raises(OutcomeUnknown):
            await WRITES[name](client)
        assert proxy.received.count(b" HTTP/1.1\r\n") == 1


@pytest.mark.parametrize("name", ["get", "set"])
async def test_an_answer_that_is_cut_anywhere(proxy: FaultProxy, name: str) -> None:
    async with Client(f"http://{proxy.address}") as client:
        await client.delete("k")
        for length in range(0, 250, 25):
            await client.health()
            proxy.cut_existing_after(length)
            if name == "get":
                assert await client.get("k") is None
            else:
                with pytest.raises(OutcomeUnknown):
                    await client.set("k" * 99, 1)


@pytest.mark.parametrize("call", [*READS.values(), *WRITES.values()], ids=[*READS, *WRITES])
async def test_a_request_that_was_never_sent_is_retried(
    client: Client, proxy: FaultProxy, call: Call
) -> None:
    await client.delete("k")
    await proxy.refuse()
    async with Client(f"http://{proxy.address}", attempts=100) as patient:
        calling = asyncio.ensure_future(call(patient))
        await asyncio.sleep(0.05)
        assert not calling.done()
        await proxy.pass_through()
        async with asyncio.timeout(SECONDS):
            await calling
        assert proxy.received.count(b" HTTP/1.1\r\n") == 1


@pytest.mark.parametrize("call", [*READS.values(), *WRITES.values()], ids=[*READS, *WRITES])
async def test_a_refused_connection(proxy: FaultProxy, call: Call) -> None:
    await proxy.refuse()
    async with Client(f"http://{proxy.address}", attempts=2) as client:
        with pytest.raises(ConnectionFailed):
            await call(client)


@pytest.mark.parametrize(
    ("call", "error"),
    [*((call, ConnectionFailed) for call in READS.values())]
    + [*((call, OutcomeUnknown) for call in WRITES.values())],
    ids=[*READS, *WRITES],
)
async def test_no_answer(proxy: FaultProxy, call: Call, error: type[ClientError]) -> None:
    await proxy.hang()
    async with Client(f"http://{proxy.address}", timeout=3600, attempts=1) as client:
        calling = asyncio.ensure_future(call(client))
        await poll_async(lambda: b" HTTP/1.1\r\n" in proxy.received, "it is sent")
        let_pass(3600)
        with pytest.raises(error):
            await calling
        assert proxy.received.count(b" HTTP/1.1\r\n") == 1


async def test_a_busy_database_is_waited_for(tmp_path: Path) -> None:
    """The server times out after two seconds and reports that nothing was done."""
    options = ("--memcached", "off", "--write-timeout", "2")
    with AppServer(tmp_path / "x.db", *options) as server:
        async with FaultProxy(f"127.0.0.1:{server.port}") as proxy:
            async with Client(f"http://{proxy.address}") as client:
                with Path(f"{server.database}-lock").open("r+b") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    calling = asyncio.ensure_future(client.increment("n"))
                    async with Client(server.base_url, attempts=1) as impatient:
                        with pytest.raises(Unavailable):
                            await impatient.set("k", 1)
                    # The lock is released early in an attempt. Late in one, the write could begin
                    # in time but not finish in time: its outcome would be unknown.
                    async with asyncio.timeout(SECONDS):
                        while proxy.received.count(b"POST /increment-value ") < 2:
                            await asyncio.sleep(0.01)
                    assert not calling.done()
                async with asyncio.timeout(SECONDS):
                    assert (await calling).value == 1


@pytest.mark.parametrize("name", ["overloaded", "store-unavailable"])
@pytest.mark.parametrize("call", [READS["get_raw"], WRITES["set"]], ids=["read", "write"])
async def test_a_retry_waits_as_long_as_the_server_asks(
    scripted: Scripted, call: Call, name: str
) -> None:
    status = {"overloaded": 429, "store-unavailable": 503}[name]
    scripted.will_refuse(status, name, Retry_After="1")
    scripted.will(200, STORED, ETag='"7"')
    now = asyncio.get_running_loop().time
    begun = now()
    async with Client(scripted.url) as client:
        await call(client)
    assert now() - begun >= 1
    assert len(scripted.requests) == 2


async def test_a_retry_does_not_wait_beyond_the_timeout(scripted: Scripted) -> None:
    scripted.will_refuse(429, "overloaded", Retry_After="3600")
    async with Client(scripted.url) as client:
        with pytest.raises(Unavailable) as caught:
            await client.get("k")
        assert caught.value.problem.status == 429


async def test_attempts_are_limited(scripted: Scripted) -> None:
    for _ in range(3):
        scripted.will_refuse(503, "store-unavailable")
    async with Client(scripted.url, attempts=3) as client:
        with pytest.raises(Unavailable):
            await client.get("k")


@pytest.mark.parametrize(
    ("status", "name", "error"),
    [
        (503, "outcome-unknown", OutcomeUnknown),
        (507, "disk-full", Unavailable),
        (409, "wrong-type", WrongType),
        (421, "misdirected-request", Refused),
        (404, "no-such-route", Refused),
    ],
)
async def test_a_refusal_of_the_server_is_final(
    scripted: Scripted, status: int, name: str, error: type[ClientError]
) -> None:
    scripted.will_refuse(status, name)
    async with Client(scripted.url) as client:
        with pytest.raises(error) as caught:
            await client.set("k", 1)
    assert type(caught.value) is error and str(caught.value) == "D."


@pytest.mark.parametrize(
    ("status", "name"), [(500, "internal-error"), (502, "of-a-gateway"), (503, "of-a-gateway")]
)
async def test_a_failure_leaves_the_outcome_of_a_write_open(
    scripted: Scripted, status: int, name: str
) -> None:
    async with Client(scripted.url) as client:
        scripted.will_refuse(status, name)
        with pytest.raises(OutcomeUnknown, match="may or may not have been made"):
            await client.set("k", 1)
        assert len(scripted.requests) == 1, "it is not sent again"
        scripted.will_refuse(status, name)
        with pytest.raises(Refused):
            await client.get("k")


@pytest.mark.parametrize(
    ("status", "read", "write"),
    [
        (302, UnexpectedAnswer, UnexpectedAnswer),
        (304, UnexpectedAnswer, UnexpectedAnswer),
        (403, UnexpectedAnswer, UnexpectedAnswer),
        (500, UnexpectedAnswer, OutcomeUnknown),
        (502, None, OutcomeUnknown),
        (503, None, OutcomeUnknown),
        (504, None, OutcomeUnknown),
        (200, UnexpectedAnswer, UnexpectedAnswer),
    ],
)
async def test_answers_not_from_the_server(
    scripted: Scripted, status: int, read: type[ClientError] | None, write: type[ClientError]
) -> None:
    page = b"" if status == 304 else b"<html>"
    async with Client(scripted.url) as client:
        scripted.will(status, page, Content_Type="text/html", Location="/elsewhere")
        if read is None:
            scripted.will(200, b'{"values":[],"cursor":null}')
            assert await client.get_many(["k"]) == {}
        else:
            with pytest.raises(read):
                await client.get_many(["k"])
        scripted.will(status, page, Content_Type="text/html", Location="/elsewhere")
        sent = len(scripted.requests)
        with pytest.raises(write):
            await client.delete_many(["k"])
        assert len(scripted.requests) == sent + 1


async def test_an_unavailable_server_says_so(scripted: Scripted) -> None:
    said = b'{"status":"unavailable","store":"ok","cache":"ok","draining":true,"version":"1"}'
    scripted.will(503, said, Retry_After="1")
    async with Client(scripted.url) as client:
        health = await client.health()
    assert health.status == "unavailable" and health.draining


# The client itself


async def test_connections_are_shared_and_limited(proxy: FaultProxy) -> None:
    async with Client(f"http://{proxy.address}", connections=3) as client:
        await asyncio.gather(*(client.get(f"k{number}") for number in range(100)))
    assert 1 <= proxy.connections <= 3


async def test_watches_do_not_use_the_connections_of_calls(server: AppServer) -> None:
    async with Client(server.base_url, connections=1, timeout=SECONDS) as client:
        begun = await client.set("k", 0)
        async with (
            aclosing(client.watch("k", after=begun.version)) as first,
            aclosing(client.watch("k", after=begun.version)) as second,
        ):
            written = await client.set("k", 1)
            for events in (first, second):
                assert (await anext(events)).version == written.version
                async with asyncio.timeout(SECONDS / 2):
                    entry = await client.get("k")
                assert entry is not None and entry.value == 1


async def test_a_session_of_the_caller(server: AppServer) -> None:
    async with aiohttp.ClientSession() as session:
        async with Client(server.base_url + "/", session=session) as client:
            assert (await client.health()).status == "ok"
        assert not session.closed


async def test_headers_and_a_path_before_the_routes(scripted: Scripted) -> None:
    scripted.will(200, STORED)
    async with Client(scripted.url + "/kv/", headers={"Authorization": "Bearer t"}) as client:
        await client.put_raw("k", b"1")
    (request,) = scripted.requests
    assert request.startswith(b"PUT /kv/v1/values/k HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer t\r\n" in request


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://x", "http://", "http://x/?a=1"])
def test_invalid_urls(url: str) -> None:
    with pytest.raises(ValueError):
        Client(url)


async def test_a_client_works_only_in_its_block(server: AppServer) -> None:
    client = Client(server.base_url)
    with pytest.raises(RuntimeError):
        await client.get("k")
    for _ in range(2):
        async with client:
            await client.health()
    with pytest.raises(RuntimeError):
        await client.get("k")


# Watching


async def take(events: AsyncIterator[Event], count: int) -> list[tuple[str, str]]:
    """Kind and key, or prefix, of the next ``count`` events."""
    taken: list[tuple[str, str]] = []
    async with asyncio.timeout(SECONDS):
        while len(taken) < count:
            event = await anext(events)
            taken.append((event.kind, event.key if isinstance(event, Changed) else event.prefix))
    return taken


async def test_watching(client: Client) -> None:
    begun = await client.set("k", 0)
    async with aclosing(client.watch("k", after=begun.version)) as events:
        await client.set("other", 1)
        await client.set("k/1", 1)
        await client.delete("k/1")
        await client.set("k/2", 2, ttl=0.001)
        assert await take(events, 4) == [
            ("set", "k/1"),
            ("delete", "k/1"),
            ("set", "k/2"),
            ("expire", "k/2"),
        ]


async def test_watching_from_a_version_of_another_database(client: Client) -> None:
    await client.set("k", 0)
    async with aclosing(client.watch("k", after=10**15)) as events:
        event = await anext(events)
        assert isinstance(event, Reset) and event.prefix == "k"
        written = await client.set("k", 1)
        assert (await anext(events)).version == written.version


async def test_watching_survives_lost_connections(proxy: FaultProxy, client: Client) -> None:
    async with Client(f"http://{proxy.address}") as watcher:
        begun = await client.set("k", 0)
        versions = [begun.version]
        disturbed = asyncio.Event()

        async def write() -> None:
            while not disturbed.is_set():
                await client.set("k", 1)
                await asyncio.sleep(0.005)
            await client.set("k/last", 1)

        async def watch() -> None:
            async with aclosing(watcher.watch("k", after=begun.version)) as events:
                async for event in events:
                    versions.append(event.version)
                    if isinstance(event, Changed) and event.key == "k/last":
                        return

        async def cut_in_mid_event() -> None:
            proxy.cut_existing_after(100)

        async def disturb() -> None:
            for verb in (proxy.reset, proxy.refuse, cut_in_mid_event):
                seen = len(versions)
                while len(versions) < seen + 10:
                    await asyncio.sleep(0.01)
                connections = proxy.connections
                await verb()
                if verb != cut_in_mid_event:
                    await asyncio.sleep(0.05)
                    await proxy.pass_through()
                while proxy.connections == connections:
                    await asyncio.sleep(0.01)
            disturbed.set()

        async with asyncio.timeout(3 * SECONDS):
            await asyncio.gather(write(), watch(), disturb())
        assert versions == list(range(begun.version, versions[-1] + 1))


async def test_watching_survives_a_restart(tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db", "--memcached", "off") as server:
        async with Client(server.base_url) as client:
            async with aclosing(client.watch()) as events:
                first = asyncio.ensure_future(take(events, 1))
                while not first.done():  # it is not visible when the watch begins
                    await client.set("first", 1)
                    await asyncio.sleep(0.01)
                assert await asyncio.to_thread(server.stop) == 0
                await asyncio.to_thread(server.start)
                await client.set("second", 2)
                seen: list[tuple[str, str]] = []
                while not seen or seen[-1] != ("set", "second"):
                    seen += await take(events, 1)
                assert set(seen[:-1]) <= {("set", "first")}


async def test_a_watch_without_an_answer(proxy: FaultProxy) -> None:
    await proxy.refuse()
    async with Client(f"http://{proxy.address}", attempts=1) as client:
        with pytest.raises(ConnectionFailed):
            await anext(client.watch())


async def test_a_watch_that_is_refused(client: Client) -> None:
    with pytest.raises(Refused) as caught:
        await anext(client.watch("\0"))
    assert caught.value.problem.field == "prefix"


async def test_a_watch_of_a_foreign_server(scripted: Scripted) -> None:
    scripted.will(200, b"event: set\ndata: nonsense\n\n", Content_Type="text/event-stream")
    scripted.will(200, b'event: news\ndata: {"version":1}\n\nevent: set\ndata: {}\n\n')
    async with Client(scripted.url) as client:
        for _ in range(2):
            with pytest.raises(UnexpectedAnswer):
                await anext(client.watch())


def test_blocks_of_events() -> None:
    lines = (
        b": a comment\r\nretry: 50\n\n"
        b"event:set\nid: 7\ndata: one\ndata:  two\nunknown: x\nnofield\n\n"
        b"retry: -1\nid: bad\0\ndata\n\n"
    )
    reader = BlockReader()
    blocks = [block for line in lines.split(b"\n")[:-1] if (block := reader.take(line)) is not None]
    first, second, third = blocks
    assert (first.retry, first.data, first.id) == (0.05, None, None)
    assert (second.event, second.data, second.id) == ("set", "one\n two", "7")
    assert (third.event, third.data, third.id, third.retry) == ("message", "", None, None)
    assert all(one is not other for one, other in pairwise(blocks))


def test_lines_of_events_may_end_as_on_windows() -> None:
    reader = BlockReader()
    lines = (b"event: set\r", b"id: 7\r", b"data: one\r", b"\r")
    assert [reader.take(line) for line in lines[:3]] == [None] * 3
    block = reader.take(lines[3])
    assert block is not None and (block.event, block.id, block.data) == ("set", "7", "one")


async def test_events_may_come_in_any_pieces() -> None:
    data = b"event: set\nid: 7\n\ndata: one\n\n"

    class Pieces:
        async def iter_any(self) -> AsyncIterator[bytes]:
            for piece in (data[at : at + size] for at in range(0, len(data), size)):
                yield piece

    for size in range(1, len(data) + 1):
        lines = [line async for line in exchange._lines(Pieces())]  # type: ignore[arg-type]
        assert lines == data.split(b"\n")[:-1]


async def test_a_problem_that_cannot_be_read(scripted: Scripted) -> None:
    scripted.will(500, b"{nonsense", Content_Type="application/problem+json")
    async with Client(scripted.url) as client:
        with pytest.raises(UnexpectedAnswer):
            await client.get("k")


async def test_a_watch_that_was_connected_retries_at_the_servers_pace(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_RETRY_SECONDS", 3600.0)
    stream = {"Content_Type": "text/event-stream"}
    scripted.will(200, b"retry: 1\n\n", **stream)
    scripted.will_refuse(503, "overloaded")
    event = b'event: set\nid: 7\ndata: {"key":"k","version":7}\n\n'
    scripted.will(200, event, **stream)
    async with Client(scripted.url, attempts=1) as client, asyncio.timeout(20):
        async with aclosing(client.watch()) as events:
            assert await anext(events) == Changed("set", "k", 7)
