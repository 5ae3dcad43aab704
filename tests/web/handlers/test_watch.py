"""``GET /v1/watch``: server-sent events, over one server, several, and their workers."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tenantbase.coherence.policy import Cache
from tenantbase.commands import Set
from tenantbase.entry import JSON
from tenantbase.errors import StoreUnavailable
from tenantbase.scope import DEFAULT
from tenantbase.web.transport.turns import PIECE_SHARE
from tests.app_server import AppServer, clean_environment
from tests.servers import poll_async
from tests.service import Server, web_settings
from tests.web.conftest import Start
from tests.web.table import Ask, Row, invalid, name_of, problem
from tests.wire import SECONDS, Headers, Wire, request

pytestmark = pytest.mark.integration

EVENT_LOOPS = ["asyncio", "uvloop"]
Block = dict[str, str]


class Stream:
    """A parser of an event stream, independent of the client's."""

    def __init__(self, wire: Wire, headers: dict[str, str]) -> None:
        self.headers = headers
        self.whole = False
        self.last_id: str | None = None
        self._reader = wire.reader
        self._blocks: list[str] = []
        self._rest = ""

    async def block(self) -> Block | None:
        """The fields of the next block; None: the stream has ended."""
        async with asyncio.timeout(SECONDS):
            while not self._blocks:
                try:
                    size = int(await self._reader.readuntil(b"\r\n"), 16)
                    chunk = (await self._reader.readexactly(size + 2))[:-2].decode()
                except (asyncio.IncompleteReadError, ConnectionResetError):
                    return None
                if not size:
                    self.whole = True
                    return None
                *self._blocks, self._rest = (self._rest + chunk).split("\n\n")
        text = self._blocks.pop(0)
        block = dict(line.split(": ", 1) for line in text.split("\n"))
        self.last_id = block.get("id", self.last_id)
        return block

    async def event(self) -> Block:
        """The next event, without its id, which is its version."""
        while True:
            block = await self.block()
            assert block is not None, "the stream has ended"
            if "event" in block:
                assert block.pop("id") == str(json.loads(block["data"])["version"])
                return block

    async def events(self, count: int) -> list[tuple[str, str]]:
        """Kind and key of the next ``count`` events."""
        blocks = [await self.event() for _ in range(count)]
        return [(block["event"], json.loads(block["data"])["key"]) for block in blocks]


@asynccontextmanager
async def watching(
    port: int, target: str = "/v1/watch", headers: Headers = ()
) -> AsyncIterator[Stream]:
    """A stream that has begun."""
    async with await Wire.connect(port) as wire:
        await wire.send(request("GET", target, headers=headers))
        head = (await wire.reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.rstrip().split("\r\n")
        assert status == "HTTP/1.1 200 OK"
        stream = Stream(wire, dict(line.lower().split(": ", 1) for line in lines))
        assert await stream.block() is not None, "what the stream begins with"
        yield stream


async def set_keys(server: Server, *keys: str) -> None:
    await server.cache.write(*(Set(DEFAULT.key(key), b"1", JSON) for key in keys))


def feed_runs() -> bool:
    return any(task.get_name() == "change feed" for task in asyncio.all_tasks())


STREAM = {
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
    "content-encoding": None,
}
ROWS = [
    Row("HEAD has headers only", Ask("HEAD", "/v1/watch?prefix=a"), 200, b"", STREAM),
    Row("an id of another kind", Ask("HEAD", "/v1/watch?last_event_id=-1"), 200, b"", STREAM),
    Row("two ids", Ask("HEAD", "/v1/watch?last_event_id=1&lastEventId=2"), 200, b"", STREAM),
    Row("U+0000", Ask("GET", "/v1/watch?prefix=%00"), 400, invalid("prefix")),
    Row("an unknown parameter", Ask("GET", "/v1/watch?key=a"), 400, invalid("key")),
    Row(
        "another method",
        Ask("POST", "/v1/watch", "{}"),
        405,
        problem("method-not-allowed", 405),
        {"allow": "GET, HEAD"},
    ),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("row", ROWS, ids=name_of)
async def test_table(server: Server, row: Row) -> None:
    await row.check(server)


async def test_events_wait_for_a_turn(start: Start, turns_taken: list[tuple[str, float]]) -> None:
    """As pieces of other long answers do, so that many watchers hold up nobody."""
    async with start() as server, watching(server.port) as stream:
        turns_taken.clear()
        await set_keys(server, "a")
        assert (await stream.event())["event"] == "set"
        assert turns_taken == [("default", PIECE_SHARE)]


async def test_the_bytes_of_a_stream(start: Start) -> None:
    async with start() as server, await Wire.connect(server.port) as wire:
        await set_keys(server, "before")
        await wire.send(request("GET", "/v1/watch?prefix=a"))
        head = (await wire.reader.readuntil(b"\r\n\r\n")).decode().lower()
        for name, value in STREAM.items():
            assert (f"\r\n{name}: {value}\r\n" in head) is (value is not None)

        async def chunk() -> bytes:
            async with asyncio.timeout(SECONDS):
                size = int(await wire.reader.readuntil(b"\r\n"), 16)
                return (await wire.reader.readexactly(size + 2))[:-2]

        assert await chunk() == b": watching\nretry: 1000\nid: 1\n\n"
        await server.ask("POST", "/set-value", '{"key": "b", "value": 1}')
        await server.ask("POST", "/set-value", '{"key": "a\\n\\"\\u00e9", "value": 1, "ttl": 1}')
        change = 'event: {0}\nid: {1}\ndata: {{"key":"a\\n\\"é","version":{1}{2}}}\n\n'
        event = (await chunk()).decode()
        details = re.search(
            r',"size":1,"content_type":"application/json","expires_at":[0-9.]+', event
        )
        assert details is not None and event == change.format("set", 3, details[0])
        await server.ask("DELETE", "/delete-value?key=b")
        await server.ask("PUT", "/v1/values/a?ttl=4000000000", "\u00e9", {"Content-Type": "text/x"})
        event = (await chunk()).decode()
        assert event.startswith(
            'event: set\nid: 5\ndata: {"key":"a","version":5,"size":2,"content_type":"text/x",'
        )
        await server.ask("POST", "/set-value", '{"key": "a", "value": 1, "ttl": 0.001}')
        assert (await chunk()).startswith(b"event: set\nid: 6\n")
        await server.cache.sweep()
        assert await chunk() == b'event: expire\nid: 7\ndata: {"key":"a","version":7}\n\n'
        await server.ask("DELETE", "/delete-value?key=a%0A%22%C3%A9")
        assert await chunk() == change.format("delete", 8, "").encode()


async def test_a_watcher_without_events_can_resume(start: Start) -> None:
    async with start() as server:
        async with watching(server.port) as stream:
            pass
        await set_keys(server, "missed")
        assert stream.last_id is not None
        async with watching(server.port, headers={"Last-Event-ID": stream.last_id}) as resumed:
            assert await resumed.events(1) == [("set", "missed")]


async def test_a_heartbeat_advances_the_resume_position(start: Start) -> None:
    async with start(heartbeat=0.05) as server:
        async with watching(server.port, "/v1/watch?prefix=quiet") as stream:
            await set_keys(server, "loud")
            async with asyncio.timeout(SECONDS):
                while stream.last_id != "1":
                    block = await stream.block()
                    assert block and block.keys() == {"", "id"}, "a comment and an id"
        async with watching(server.port, f"/v1/watch?last_event_id={stream.last_id}") as resumed:
            await set_keys(server, "later")
            assert await resumed.events(1) == [("set", "later")]


@pytest.mark.parametrize(
    ("target", "headers", "keys"),
    [
        ("/v1/watch?last_event_id=1", {}, ["2", "3"]),
        ("/v1/watch", {"Last-Event-ID": "2"}, ["3"]),
        ("/v1/watch?last_event_id=0", {"Last-Event-ID": "1"}, ["2", "3"]),
        ("/v1/watch?last_event_id=3", {}, []),
        ("/v1/watch?lastEventId=1", {}, ["2", "3"]),
        ("/v1/watch?last_event_id=2&lastEventId=1", {}, ["3"]),
        ("/v1/watch?lastEventId=0", {"Last-Event-ID": "2"}, ["3"]),
        ("/v1/watch?last_event_id=&lastEventId=1", {"Last-Event-ID": ""}, ["2", "3"]),
    ],
)
async def test_resuming(start: Start, target: str, headers: Headers, keys: list[str]) -> None:
    async with start() as server:
        await set_keys(server, "1", "2", "3")
        async with watching(server.port, target, headers) as stream:
            await set_keys(server, "now")
            wanted = [("set", key) for key in [*keys, "now"]]
            assert await stream.events(len(wanted)) == wanted


async def test_an_id_from_the_future_begins_with_a_reset(start: Start) -> None:
    async with start() as server:
        await set_keys(server, "k")
        newest = 9_999_999_999_999_999_999
        async with watching(server.port, f"/v1/watch?prefix=k&last_event_id={newest}") as stream:
            assert stream.last_id is None, "cut off now, it must ask for the same again"
            assert await stream.event() == {
                "event": "reset",
                "data": '{"prefix":"k","version":1}',
            }
            await set_keys(server, "k2")
            assert await stream.events(1) == [("set", "k2")]


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/v1/watch?prefix=k", {"Last-Event-ID": "abc"}),
        ("/v1/watch?prefix=k", {"Last-Event-ID": "1" * 20}),
        ("/v1/watch?prefix=k", {"Last-Event-ID": "-1"}),
        ("/v1/watch?prefix=k", {"Last-Event-ID": "\xff"}),
        ("/v1/watch?prefix=k&last_event_id=1", {"Last-Event-ID": "abc"}),
        ("/v1/watch?prefix=k&last_event_id=1.5", {}),
        ("/v1/watch?prefix=k&lastEventId=%00", {}),
    ],
)
async def test_an_id_of_another_kind_begins_with_a_reset(
    start: Start, target: str, headers: Headers
) -> None:
    """An error would end an EventSource permanently."""
    async with start() as server:
        await set_keys(server, "k1")
        async with watching(server.port, target, headers) as stream:
            reset = {"id": "1", "event": "reset", "data": '{"prefix":"k","version":1}'}
            assert await stream.block() == reset
            await set_keys(server, "k2")
            assert await stream.events(1) == [("set", "k2")]


async def test_a_reset_names_the_watchers_prefix(start: Start) -> None:
    async with start() as server:
        for begin in range(0, 20_000, 5000):
            await set_keys(server, *(f"big/{number}" for number in range(begin, begin + 5000)))
        async with (
            watching(server.port, "/v1/watch?prefix=b") as wide,
            watching(server.port, "/v1/watch?prefix=big/7") as narrow,
        ):
            await server.ask("POST", "/delete-values", '{"prefix": "big/"}')
            for stream, prefix in ((wide, "big/"), (narrow, "big/7")):
                event = await stream.event()
                assert event["event"] == "reset"
                assert json.loads(event["data"])["prefix"] == prefix


async def test_streams_end_when_the_server_drains(start: Start) -> None:
    settings = web_settings(drain_timeout=3600)
    async with asyncio.timeout(SECONDS):
        async with start(settings) as server:
            wire = await Wire.connect(server.port)
            await wire.send(request("GET", "/v1/watch"))
            await set_keys(server, "k")
        answer = await wire.answer()
        assert answer.whole and answer.status == 200
        # It says when to come back, and from where.
        assert re.search(rb"\nretry: [1-9]\d{2,3}\nid: \d+\n\n$", answer.body)
        async with wire:
            assert await wire.ended()
    assert not feed_runs()


async def test_a_stream_that_begins_while_the_server_drains_ends(start: Start) -> None:
    async with asyncio.timeout(SECONDS), start() as server:
        server.lifecycle.drain()
        async with await Wire.connect(server.port) as wire:
            await wire.send(request("GET", "/v1/watch"))
            answer = await wire.answer()
        assert answer.whole and answer.status == 200
        begin, end, _ = answer.body.split(b"\n\n")
        assert begin.startswith(b": watching\n") and end.startswith(b": the server is stopping")
    assert not feed_runs()


async def test_a_reader_that_stalls_is_dropped_and_can_resume(start: Start) -> None:
    keys = [f"{number:04}" + "x" * 1000 for number in range(4000)]
    async with start(heartbeat=0.2) as server:
        with socket.socket() as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.connect(("127.0.0.1", server.port))
            lazy.sendall(request("GET", "/v1/watch"))
            await poll_async(feed_runs, "the feed runs")
            for begin in range(0, len(keys), 500):
                await set_keys(server, *keys[begin : begin + 500])
            await poll_async(lambda: not feed_runs(), "the feed has ended")
    async with start() as server, watching(server.port, "/v1/watch?last_event_id=0") as resumed:
        assert await resumed.events(len(keys)) == [("set", key) for key in keys]


async def test_a_reader_that_disconnects_is_forgotten(start: Start) -> None:
    async with start(heartbeat=0.1) as server:
        async with watching(server.port):
            assert feed_runs()
        await poll_async(lambda: not feed_runs(), "the feed has ended")


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast path", "aiohttp"])
@pytest.mark.parametrize("way", ["closes", "resets", "half-closes", "half-closed before"])
async def test_a_watch_is_over_when_its_client_closes(
    start: Start, fast_path: bool, way: str
) -> None:
    """Not when something is sent next, which on a quiet server is the next heartbeat."""
    changed = replace(web_settings(), fast_path=fast_path)
    async with start(changed, heartbeat=3600) as server:
        connections = server.lifecycle.connections
        async with await Wire.connect(server.port) as wire:
            await wire.send(request("GET", "/v1/watch"))
            if way == "half-closed before":
                wire.writer.write_eof()
            else:
                assert await wire.reader.readuntil(b"id: 0\n\n")
                await poll_async(lambda: server.lifecycle.idling == 1, "it is counted")
            if way == "closes":
                wire.writer.close()
            elif way == "resets":
                sock = wire.writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                wire.abort()
            else:
                if way == "half-closes":
                    wire.writer.write_eof()
                rest = await wire.reader.read()
                assert rest.endswith(b"\r\n0\r\n\r\n"), "the answer has an end"
            await poll_async(lambda: not server.lifecycle.idling and not feed_runs(), "it is over")
            await poll_async(lambda: not len(connections), "the connection is closed")
            assert not connections._half_closed and not connections._endless


async def test_an_unavailable_database_is_reported_before_the_stream(start: Start) -> None:
    class Failing(Cache):
        async def last_version(self) -> int:
            raise StoreUnavailable("the disk reports an error")

    def failing(cache: Cache) -> Cache:
        cache.__class__ = Failing
        return cache

    async with start(wrap=failing) as server:
        answer = await server.ask("GET", "/v1/watch")
        assert answer.json == problem("store-unavailable", 503)
        assert "retry-after" in answer.headers


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[AppServer, AppServer]]:
    """Two servers on one database, one of them with two workers."""
    with ExitStack() as stack:
        database = tmp_path / "x.db"
        options = ("--memcached", "off")
        one = stack.enter_context(AppServer(database, *options, "--workers", "2"))
        yield one, stack.enter_context(AppServer(database, *options))


async def set_value(server: AppServer, key: str) -> None:
    body = json.dumps({"key": key, "value": 1}).encode()
    answer = await asyncio.to_thread(server.ask, "POST", "/set-value", body)
    assert answer.status == 200


async def test_over_servers_workers_and_the_command_line(
    servers: tuple[AppServer, AppServer], tmp_path: Path
) -> None:
    one, two = servers
    ports = [one.port] * 6 + [two.port]

    async def follow(port: int, watched: asyncio.Barrier) -> list[tuple[str, str]]:
        async with watching(port, "/v1/watch?prefix=k") as stream:
            await watched.wait()
            return await stream.events(13)

    barrier = asyncio.Barrier(len(ports) + 1)
    followers = asyncio.gather(*(follow(port, barrier) for port in ports))
    async with asyncio.timeout(SECONDS):
        await barrier.wait()
    keys = []
    for number in range(6):
        for server in servers:
            keys.append(f"k/{number}/{server.port}")
            await set_value(server, keys[-1])
    command = [sys.executable, "-m", "tenantbase", "set", "k/command", "1"]
    command += ["--database", str(tmp_path / "x.db")]
    await asyncio.to_thread(
        lambda: subprocess.run(
            command, check=True, env=clean_environment(), stdout=subprocess.DEVNULL
        )
    )
    keys.append("k/command")
    async with asyncio.timeout(SECONDS):
        assert await followers == [[("set", key) for key in keys]] * len(ports)


async def test_resuming_at_another_server(servers: tuple[AppServer, AppServer]) -> None:
    one, two = servers
    async with watching(two.port) as stream:
        await set_value(one, "seen")
        assert await stream.events(1) == [("set", "seen")]
        two.kill()
        while await stream.block() is not None:
            pass  # a heartbeat, if killing the server took long
        assert not stream.whole
    await set_value(one, "missed")
    async with watching(one.port, headers={"Last-Event-ID": stream.last_id or ""}) as resumed:
        assert await resumed.events(1) == [("set", "missed")]
