"""A connection of the fast path: which path answers, back-pressure, half-closed clients."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from pathlib import Path

import pytest

from tenantbase.web.fast_path.connection import FastConnection
from tests.service import web_settings
from tests.web.fast_path.counted import GET, SET, Served, serve
from tests.wire import SECONDS, Wire, request

LIST = request("GET", "/get-values?prefix=k")


@pytest.mark.parametrize(
    "general",
    [
        LIST,
        request("PUT", "/v1/values/p", "x" * 300_000, {"Content-Type": "text/plain"}),
        request("GET", "/get-value?key=k", headers={"If-None-Match": '"0"'}),
        request("GET", "/no-such-route"),
        request("POST", "/set-value", "{"),
        request("GET", "/get-value?key=k", headers={"Upgrade": "h2c", "HTTP2-Settings": "AAMAAAB"}),
    ],
    ids=["list", "put", "condition", "404", "invalid", "upgrade"],
)
async def test_a_connection_comes_back_to_the_fast_path(tmp_path: Path, general: bytes) -> None:
    async with serve(tmp_path, web_settings()) as server:
        for pieces in ((general, GET, general, GET), (general + GET + general + GET,)):
            server.general = 0
            async with await Wire.connect(server.port) as wire:
                for piece in pieces:
                    await wire.send(piece)
                answers = [await wire.answer() for _ in range(4)]
            assert [answer.status for answer in answers[1::2]] == [200, 200]
            assert answers[0].status // 100 == answers[2].status // 100
            assert answers[1].json["key"] == "k"
            assert server.general == 2


async def test_a_plain_request_may_follow_a_slow_body(tmp_path: Path) -> None:
    async with serve(tmp_path, web_settings()) as server:
        put = request("PUT", "/v1/values/p", "x" * 1_000)
        async with await Wire.connect(server.port) as wire:
            for cut in range(0, len(put), 300):
                await wire.send(put[cut : cut + 300])
                await asyncio.sleep(0.01)
            await wire.send(GET)
            assert (await wire.answer()).status == 201
            assert (await wire.answer()).json["value"] == 1
        assert server.general == 1


async def test_a_request_refused_by_its_head_leaves_the_connection_in_step(tmp_path: Path) -> None:
    """The answer comes before the body; the requests after the body are answered, too."""
    async with serve(tmp_path, web_settings(max_value_bytes=1_000)) as server:
        put = request("PUT", "/v1/values/p", "GET /" * 20_000)
        async with await Wire.connect(server.port) as wire:
            await wire.send(put + GET)
            assert (await wire.answer()).status == 413
            assert (await wire.answer()).json["value"] == 1


@pytest.mark.parametrize("rest", [b"\0rubbish", GET, SET.replace(b": 1}", b": 2}"), b"x" * 200_000])
async def test_what_follows_the_last_request_is_ignored(tmp_path: Path, rest: bytes) -> None:
    """RFC 9112, section 9.6: after ``Connection: close``, nothing that follows counts."""
    last = request("PUT", "/v1/values/p", "x", {"Connection": "close"})
    async with serve(tmp_path, web_settings()) as server:
        async with await Wire.connect(server.port) as wire:
            await wire.send(last + rest)
            answer = await wire.answer()
            assert answer.status == 201
            assert answer.headers["connection"] == "close"
            assert await wire.ended()
        async with await Wire.connect(server.port) as wire:
            await wire.send(GET)
            assert (await wire.answer()).json["value"] == 1


async def test_an_idle_borrower_does_not_close_a_connection_in_use(tmp_path: Path) -> None:
    async with serve(tmp_path, web_settings(keepalive_timeout=2.0)) as server:
        async with await Wire.connect(server.port) as wire:
            await wire.send(LIST)
            assert (await wire.answer()).status == 200
            for _ in range(15):
                await wire.send(GET)
                assert (await wire.answer()).status == 200
                await asyncio.sleep(0.2)
            await wire.send(LIST)  # answered by a new borrower
            assert (await wire.answer()).status == 200
        assert server.general == 2


async def test_idle_connections_are_closed_on_either_path(tmp_path: Path) -> None:
    async with serve(tmp_path, web_settings(keepalive_timeout=0.5)) as server:
        for last in (GET, LIST):
            async with await Wire.connect(server.port) as wire:
                await wire.send(last)
                assert (await wire.answer()).status == 200
                assert await wire.ended()


@pytest.mark.parametrize("pending", [b"", GET, LIST, GET + LIST + GET])
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "general"])
async def test_a_half_closed_client_gets_its_answers(
    tmp_path: Path, pending: bytes, fast: bool
) -> None:
    async with serve(tmp_path, web_settings(fast_path=True)) as server:
        if not fast:  # a chunked request, whose length is unknown, takes the connection permanently
            pending = (
                request(
                    "POST",
                    "/get-values",
                    b'd\r\n{"keys": ["k"\r\n2\r\n]}\r\n0\r\n\r\n',
                    {"Transfer-Encoding": "chunked"},
                )
                + pending
            )
        count = pending.count(b"HTTP/1.1")
        async with await Wire.connect(server.port) as wire:
            await wire.send(pending)
            wire.writer.write_eof()
            assert [(await wire.answer()).status for _ in range(count)] == [200] * count
            assert await wire.ended()


async def test_an_incomplete_request_of_a_half_closed_client_ends_the_connection(
    tmp_path: Path,
) -> None:
    async with serve(tmp_path, web_settings()) as server:
        for beginning in (GET[:20], GET + GET[:20], SET[:-1], LIST[:30]):
            async with await Wire.connect(server.port) as wire:
                await wire.send(beginning)
                wire.writer.write_eof()
                async with asyncio.timeout(SECONDS):
                    await wire.reader.read()


@pytest.mark.parametrize("size", [10_000, 60_000], ids=["answered-here", "answered-there"])
async def test_a_client_that_does_not_read_is_not_read_from(tmp_path: Path, size: int) -> None:
    """After some requests, reading pauses; memory stays bounded, and every answer arrives."""
    value = "x" * size
    async with serve(tmp_path, web_settings()) as server:
        async with await Wire.connect(server.port) as wire:
            await wire.send(request("PUT", "/v1/values/large", value))
            assert (await wire.answer()).status == 201
        # Long requests: the kernel's buffers hold few of them, so there are few answers to read.
        ask = request("GET", "/v1/values/large", headers={"X-Padding": "x" * 6_000})
        many = ask * 5_000
        client = socket.create_connection(("127.0.0.1", server.port))
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        sent = await _send_what_is_taken(client, many)
        assert sent < len(many)
        whole, part = divmod(sent, len(ask))
        buffered = _buffered(server)
        assert buffered < 1 << 20, "requests and answers that are waiting in the server"
        received = bytearray()
        end = asyncio.create_task(loop.sock_sendall(client, ask[part:] if part else b""))
        wanted = whole + bool(part)
        while received.count(b"HTTP/1.1 200 OK") < wanted or not received.endswith(value.encode()):
            async with asyncio.timeout(SECONDS):
                piece = await loop.sock_recv(client, 1 << 20)
            assert piece
            received += piece
            # Keep only what is needed to count: everything would be gigabytes.
            done = received.count(b"HTTP/1.1 200 OK") - 1
            if done > 0:
                wanted -= done
                del received[: received.rindex(b"HTTP/1.1 200 OK")]
        await end
        # The general path, which takes over connections without progress, must not have rescued it.
        assert _buffered(server) == 0
        client.close()


async def _send_what_is_taken(client: socket.socket, data: bytes) -> int:
    """Send until the server stops reading for a while."""
    sent = idle = 0
    while sent < len(data) and idle < 20:
        try:
            sent += client.send(data[sent : sent + (1 << 18)])
            idle = 0
        except BlockingIOError:
            idle += 1
        await asyncio.sleep(0.01 if idle else 0)
    return sent


def _buffered(server: Served) -> int:
    """Bytes that the server buffers for its only connection."""
    (transport,) = server.lifecycle.connections._open
    protocol = transport.get_protocol()
    assert isinstance(protocol, FastConnection)
    return transport.get_write_buffer_size() + len(protocol._buffer)


async def test_a_get_waits_for_the_slow_set_before_it(tmp_path: Path) -> None:
    """Even if it takes so long that an idle connection would be checked."""
    async with serve(tmp_path, web_settings()) as server:
        lock = os.open(f"{server.database}-lock", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            async with await Wire.connect(server.port) as wire:
                await wire.send(SET + GET[:40])
                await asyncio.sleep(2.5)
                await wire.send(GET[40:])
                await asyncio.sleep(0.3)  # an answer to the get would come first
                fcntl.flock(lock, fcntl.LOCK_UN)
                first, second = await wire.answer(), await wire.answer()
        finally:
            os.close(lock)
        assert "created" in first.json
        assert second.json["value"] == 1
        assert second.json["version"] == first.json["version"]


async def test_with_cors_only_pages_use_the_general_path(tmp_path: Path) -> None:
    origin = "http://app.example"
    settings = web_settings(cors_origins=frozenset({origin}))
    async with serve(tmp_path, settings) as server:
        async with await Wire.connect(server.port) as wire:
            await wire.send(GET)
            answer = await wire.answer()
            assert answer.headers["vary"] == "Origin"
            assert server.general == 0
            await wire.send(request("GET", "/get-value?key=k", headers={"Origin": origin}))
            answer = await wire.answer()
            assert answer.headers["access-control-allow-origin"] == origin
            assert server.general == 1


async def test_a_client_that_disconnects_midway_leaves_nothing_behind(tmp_path: Path) -> None:
    async with serve(tmp_path, web_settings()) as server:
        for begun in (GET[:10], LIST[:30], SET[:-3], request("PUT", "/v1/values/a", "abc")[:-1]):
            async with await Wire.connect(server.port) as wire:
                await wire.send(begun)
                await asyncio.sleep(0.05)
        async with asyncio.timeout(SECONDS):
            while len(server.lifecycle.connections):
                await asyncio.sleep(0.01)
        assert server.lifecycle.in_flight == 0


async def test_requests_behind_a_large_body_do_not_pile_up(tmp_path: Path) -> None:
    """Two parts may pause the connection: a slow handler of a body, and the fast path when its
    buffer is full. When the handler resumes reading, the buffer is still full."""
    async with serve(tmp_path, web_settings()) as server:
        lock = os.open(f"{server.database}-lock", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)  # the write waits until it is released
        try:
            client = socket.create_connection(("127.0.0.1", server.port))
            client.setblocking(False)
            put = request("PUT", "/v1/values/p", b"x" * 150_000)
            many = put + request("GET", "/v1/values/p", headers={"X-Padding": "x" * 6_000}) * 3_000
            sent = await _send_what_is_taken(client, many)
            assert sent > len(put)
            assert _buffered(server) < 1 << 20
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)
            client.close()
