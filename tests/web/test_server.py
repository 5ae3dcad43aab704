"""Connections: invalid HTTP, timeouts, and the shutdown of the server."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tenantbase.commands import Set
from tenantbase.entry import JSON
from tenantbase.web import Lifecycle, WebSettings, create_app, serve
from tests.servers import poll_async
from tests.service import Server, opened, service, web_settings
from tests.web.blocked import BlockedCache, blocked
from tests.web.conftest import Start
from tests.web.table import invalid, problem
from tests.wire import Wire, request

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

EVENT_LOOPS = ["asyncio", "uvloop"]

HEAD = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"

MALFORMED = [
    ("no HTTP", b"hello\r\n\r\n"),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    ("another version", b"GET /livez HTTP/3.7\r\nHost: localhost\r\n\r\n"),
    ("an unknown method", b"FROB /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("no host", b"GET /livez HTTP/1.1\r\n\r\n"),
    ("two hosts", HEAD + b"Host: localhost\r\n\r\n"),
    ("a header without a name", HEAD + b": x\r\n\r\n"),
    ("a header without a colon", HEAD + b"x\r\n\r\n"),
    ("a space before the colon", HEAD + b"X : y\r\n\r\n"),
    ("a folded header", HEAD + b"X: y\r\n z\r\n\r\n"),
    ("a NUL in a header", HEAD + b"X: a\0b\r\n\r\n"),
    ("a length that is none", HEAD + b"Content-Length: x\r\n\r\n"),
    ("a negative length", HEAD + b"Content-Length: -1\r\n\r\n"),
    ("two lengths", HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    (
        "a length and chunks",
        HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("another transfer coding", HEAD + b"Transfer-Encoding: gzip\r\n\r\n"),
    ("no slash before the path", b"GET livez HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("too many headers", HEAD + b"X: y\r\n" * 1000 + b"\r\n"),
]


@pytest.mark.parametrize("data", [case[1] for case in MALFORMED], ids=[c[0] for c in MALFORMED])
async def test_invalid_http_gets_a_problem(server: Server, data: bytes) -> None:
    async with server.wire() as wire:
        await wire.send(data)
        answer = await wire.answer()
        assert answer.status == 400
        assert answer.json == invalid()
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["server"] == "tenantbase"
        assert await wire.ended()


@pytest.mark.parametrize(("method", "target"), [("CONNECT", "localhost:80"), ("TRACE", "/nothing")])
async def test_targets_without_a_path_match_no_route(
    server: Server, method: str, target: str
) -> None:
    answer = await server.ask(method, target)
    assert (answer.status, answer.json) == (404, problem("no-such-route", 404))


async def test_a_request_line_too_long(server: Server) -> None:
    answer = await server.ask("GET", "/get-value?key=" + "x" * 20_000)
    assert (answer.status, answer.json) == (414, problem("uri-too-long", 414))


async def test_a_header_too_long(server: Server) -> None:
    answer = await server.ask("GET", "/livez", headers={"X": "y" * 10_000})
    assert (answer.status, answer.json) == (431, problem("header-too-large", 431))


async def test_the_longest_key_in_full_escape_fits_in_the_line(server: Server) -> None:
    escaped = "%41" * 1024
    assert (await server.ask("PUT", f"/v1/values/{escaped}", "x")).status == 201
    answer = await server.ask("GET", f"/get-value?key={escaped}")
    assert answer.json["key"] == "A" * 1024
    target = f"/get-values?prefix={escaped}&limit=1&cursor=x"
    assert (await server.ask("GET", target)).json["field"] == "cursor"


async def test_chunked_bodies(server: Server) -> None:
    headers = {"Transfer-Encoding": "chunked"}
    body = b'9\r\n{"key":"c\r\n1;x=y\r\nh\r\nc\r\n","value":1}\r\n0\r\nX: y\r\n\r\n'
    answer = await server.ask("POST", "/set-value", body, headers)
    assert answer.status == 200 and answer.json["key"] == "ch"
    broken = await server.ask("POST", "/set-value", b"5\r\nabc\r\nxyz\r\n", headers)
    assert (broken.status, broken.json) == (400, invalid())


async def test_a_chunked_body_too_large_is_not_read_to_its_end(server: Server) -> None:
    async with server.wire() as wire:
        head = server.request("PUT", "/v1/values/big", b"", {"Transfer-Encoding": "chunked"})
        await wire.send(head + (b"10000\r\n" + b"x" * 0x10000 + b"\r\n") * 17)
        answer = await wire.answer()
    assert (answer.status, answer.json) == (413, problem("too-large", 413))


async def test_a_too_large_body_is_refused_by_its_length(server: Server) -> None:
    async with server.wire() as wire:
        await wire.send(
            server.request("PUT", "/v1/values/big", headers={"Content-Length": str(1 << 30)})
        )
        assert (await wire.answer()).status == 413


async def test_100_continue(server: Server) -> None:
    async with server.wire() as wire:
        headers = {"Expect": "100-continue", "Content-Length": "1"}
        await wire.send(server.request("PUT", "/v1/values/expect", headers=headers))
        assert (await wire.answer()).status == 100
        await wire.send(b"1")
        assert (await wire.answer()).status == 201


async def test_requests_in_a_row(server: Server) -> None:
    """Sent at once and byte by byte; the answers come in order."""
    requests = [
        server.request("POST", "/set-value", '{"key":"row","value":1}'),
        server.request("GET", "/get-value?key=row"),
        server.request("GET", "/nothing"),
        server.request("HEAD", "/get-value?key=row"),
        server.request("DELETE", "/delete-value?key=row"),
        server.request("GET", "/get-value?key=row"),
    ]
    statuses = [200, 200, 404, 200, 204, 404]
    methods = [data.split()[0].decode() for data in requests]
    async with server.wire() as wire:
        await wire.send(b"".join(requests))
        assert [(await wire.answer(method)).status for method in methods] == statuses
        for byte in b"".join(requests):
            await wire.send(bytes([byte]))
        assert [(await wire.answer(method)).status for method in methods] == statuses


async def test_connections_are_kept_or_closed_as_the_client_asks(server: Server) -> None:
    async with server.wire() as wire:
        await wire.send(server.request("GET", "/livez", headers={"Connection": "close"}))
        answer = await wire.answer()
        assert answer.headers["connection"] == "close" and await wire.ended()
    async with server.wire() as wire:
        await wire.send(server.request("GET", "/livez", version="1.0"))
        await wire.answer()
        assert await wire.ended()
    async with server.wire() as wire:
        kept = server.request("GET", "/livez", headers={"Connection": "keep-alive"}, version="1.0")
        await wire.send(kept)
        assert (await wire.answer()).headers["connection"] == "keep-alive"
        await wire.send(kept)
        await wire.answer()


async def test_a_missing_body_times_out(start: Start) -> None:
    async with start(web_settings(body_timeout=0.1)) as server:
        async with server.wire() as wire:
            await wire.send(request("PUT", "/v1/values/slow", headers={"Content-Length": "10"}))
            await wire.send(b"half")
            answer = await wire.answer()
            assert (answer.status, answer.json) == (408, problem("request-timeout", 408))
            assert answer.headers["connection"] == "close"
        assert (await server.ask("GET", "/v1/values/slow")).status == 404


async def test_a_missing_head_times_out(start: Start) -> None:
    async with start(web_settings(keepalive_timeout=0.5)) as server:
        for begun in (b"", b"GET /livez HTTP/1.1\r\nX: y"):
            async with server.wire() as wire:
                await wire.send(begun)
                assert await wire.ended()
        async with server.wire() as wire:
            await wire.send(request("GET", "/livez"))
            assert (await wire.answer()).status == 200
            assert await wire.ended()


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize(
    ("begun", "status"),
    [
        (b"GET /get-value?key=k HTTP/1.1\r\nHost: localhost\r\nUser-Agent: ", None),
        (request("POST", "/set-value", headers={"Content-Length": "10000"}), 408),
    ],
    ids=["head", "body"],
)
async def test_an_endlessly_slow_request_times_out(
    start: Start, fast_path: bool, begun: bytes, status: int | None
) -> None:
    settings = web_settings(keepalive_timeout=0.5, body_timeout=0.5, fast_path=fast_path)
    async with start(settings) as server, server.wire() as wire:
        await wire.send(begun)
        answer = asyncio.create_task(wire.answer())
        while not answer.done():
            await wire.send(b" ")
            await asyncio.sleep(0.1)
        if status is None:
            assert isinstance(answer.exception(), (EOFError, ConnectionError))
        else:
            assert answer.result().status == status


async def test_a_client_that_disconnects_during_its_body(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with server.wire() as wire:
        await wire.send(server.request("PUT", "/v1/values/left", "half", {"Content-Length": "10"}))
        await poll_async(lambda: server.lifecycle.in_flight == 1, "the request has begun")
    await poll_async(lambda: server.lifecycle.in_flight == 0, "the request has ended")
    assert (await server.ask("GET", "/v1/values/left")).status == 404
    logged = [each for each in caplog.records if each.name == "tenantbase.web"]
    assert logged == [], "it happens every day"


@pytest.mark.parametrize("goodbye", ["reset", "closed"])
async def test_a_client_that_disconnects_during_its_answer(
    server: Server, caplog: pytest.LogCaptureFixture, goodbye: str
) -> None:
    # More than the sockets' buffers hold, so that the server has to wait for the client to read.
    values = [
        Set(server.scope.key(f"left/{n}"), b'"%b"' % (b"x" * 500_000), JSON) for n in range(40)
    ]
    await server.cache.write(*values)
    async with server.wire() as wire:
        await wire.send(server.request("GET", "/get-values?prefix=left/"))
        await wire.reader.readexactly(1000)
        assert server.lifecycle.in_flight == 1
        if goodbye == "reset":
            linger = struct.pack("ii", 1, 0)
            wire.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
    await poll_async(lambda: server.lifecycle.in_flight == 0, "the request has ended")
    logged = [each for each in caplog.records if each.name == "tenantbase.web"]
    assert logged == [], "it happens every day"


@dataclass(frozen=True)
class Stoppable:
    """A server whose writes are blocked.

    Attributes:
        stop: stops it.
        task: ends when it has.
    """

    cache: BlockedCache
    port: int
    lifecycle: Lifecycle
    stop: asyncio.Event
    task: asyncio.Task[None]


@asynccontextmanager
async def stoppable(directory: Path, settings: WebSettings) -> AsyncIterator[Stoppable]:
    async with opened(directory / "x.db") as cache:
        slow = blocked(cache)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            lifecycle, stop = Lifecycle(), asyncio.Event()
            app = create_app(service(slow, settings), settings, lifecycle)
            task = asyncio.create_task(serve(app, [listener], lifecycle, settings, stop))
            yield Stoppable(slow, listener.getsockname()[1], lifecycle, stop, task)
            stop.set()
            await task


async def test_drain(tmp_path: Path) -> None:
    async with stoppable(tmp_path, web_settings()) as server:
        write = request("POST", "/set-value", '{"key":"k","value":1}')
        async with (
            await Wire.connect(server.port) as busy,
            await Wire.connect(server.port) as idle,
            await Wire.connect(server.port) as kept,
        ):
            for wire in (idle, kept):
                await wire.send(request("GET", "/health-check"))
                answer = await wire.answer()
                assert answer.status == 200 and "connection" not in answer.headers
            await busy.send(write)
            await poll_async(lambda: server.cache.begun == 1, "the write is under way")
            server.stop.set()
            await poll_async(lambda: server.lifecycle.draining, "it drains")

            await kept.send(request("GET", "/health-check"))
            async with await Wire.connect(server.port) as late:
                await late.send(request("GET", "/health-check"))
                for wire in (kept, late):
                    answer = await wire.answer()
                    assert answer.status == 503
                    assert answer.json["status"] == "unavailable" and answer.json["draining"]
                    assert answer.headers["retry-after"] == "1"
                    assert answer.headers["connection"] == "close"
                    assert await wire.ended()
            async with await Wire.connect(server.port) as reader:
                await reader.send(request("GET", "/livez"))
                assert (await reader.answer()).status == 200
            assert not server.task.done(), "a request is still under way"

            server.cache.gate.set()
            answer = await busy.answer()
            assert answer.status == 200 and answer.json["version"] > 0
            assert answer.headers["connection"] == "close"
            assert await busy.ended() and await idle.ended()
        await server.task
        with pytest.raises(ConnectionRefusedError):
            await Wire.connect(server.port)


async def test_a_drain_ends_despite_an_endless_request(tmp_path: Path) -> None:
    async with stoppable(tmp_path, web_settings(drain_timeout=0.2)) as server:
        async with await Wire.connect(server.port) as wire:
            await wire.send(request("POST", "/set-value", '{"key":"k","value":1}'))
            await poll_async(lambda: server.cache.begun == 1, "the write is under way")
            server.stop.set()
            await server.task
            assert await wire.ended()
        server.cache.gate.set()


async def test_an_idle_server_ends_at_once(tmp_path: Path) -> None:
    async with stoppable(tmp_path, web_settings(drain_timeout=60)) as server:
        async with await Wire.connect(server.port) as idle:
            server.stop.set()
            await server.task
            assert await idle.ended()


@pytest.mark.parametrize("fast_path", [True, False])
async def test_a_drain_sends_answers_completely(tmp_path: Path, fast_path: bool) -> None:
    settings = web_settings(max_value_bytes=16 << 20, fast_path=fast_path)
    async with stoppable(tmp_path, settings) as server:
        server.cache.gate.set()
        value = b"x" * (16 << 20)
        async with (
            await Wire.connect(server.port) as wire,
            await Wire.connect(server.port) as writer,
        ):
            await writer.send(request("PUT", "/v1/values/big", value))
            assert (await writer.answer()).status == 201
            await wire.send(request("GET", "/v1/values/big"))
            # The rest exceeds the sockets' buffers, and stays with the server.
            begun = await wire.reader.readexactly(100)
            server.stop.set()
            await poll_async(lambda: server.lifecycle.draining, "it drains")
            for _ in range(10):
                await asyncio.sleep(0.01)
            assert not server.task.done()
            data = begun + await wire.reader.read()
            assert data.endswith(value)
        await server.task
