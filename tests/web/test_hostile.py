"""Hostile shapes, byte by byte: each gets its answer or is cut, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import resource
from contextlib import AsyncExitStack

import pytest

from tests.servers import let_pass, poll_async
from tests.service import Server, web_settings
from tests.web.conftest import Start
from tests.wire import request

pytestmark = pytest.mark.integration

GET = b"GET /get-value?key=k HTTP/1.1\r\n"
SET = b"POST /set-value HTTP/1.1\r\nHost: localhost\r\n"
BODY = b'{"key":"k","value":1}'
SMUGGLED = b"DELETE /delete-value?key=victim HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SILENT_CONNECTIONS = 2_000  # fewer where the limit of open files is low
OTHER_FILES = 500

# What is sent, and the status of the only answer; None: the connection is closed without one. Where
# the end of a request could be read in two ways, what follows must not be taken for a request.
SHAPES: dict[str, tuple[bytes, int | None]] = {
    "length and chunks": (SET + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n", 400),
    "chunks and length": (SET + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "two codings": (SET + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (SET + CHUNKED * 2 + b"\r\n0\r\n\r\n", 400),
    "chunked twice in a field": (
        SET + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunked is not last": (SET + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    "a space before the colon": (SET + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (SET + b"Content-Length: 0\r\nContent-Length: 21\r\n\r\n" + BODY, 400),
    "two lengths in a field": (SET + b"Content-Length: 0, 21\r\n\r\n" + BODY, 400),
    "a length with a sign": (SET + b"Content-Length: +21\r\n\r\n" + BODY, 400),
    "a huge length": (SET + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
    "a chunk that is no number": (SET + CHUNKED + b"\r\nxyz\r\n", 400),
    "a chunk with a sign": (SET + CHUNKED + b"\r\n-5\r\nabcde\r\n0\r\n\r\n", 400),
    "bare line feeds": (GET.replace(b"\r\n", b"\n") + b"Host: localhost\n\n", 400),
    "a bare line feed in the head": (GET + b"Host: localhost\nX: y\r\n\r\n", 400),
    "a bare carriage return": (GET + b"Host: localhost\r\nX: a\rb\r\n\r\n", 400),
    "a folded field": (GET + b"Host: localhost\r\nX: a\r\n b\r\n\r\n", 400),
    "a folded coding": (SET + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    "two hosts": (GET + b"Host: localhost\r\nHost: localhost\r\n\r\n", 400),
    "two different hosts": (GET + b"Host: localhost\r\nHost: evil.example\r\n\r\n", 400),
    "no host": (GET + b"\r\n", 400),
    "a target too long": (b"GET /get-value?key=" + b"x" * 100_000 + b" HTTP/1.1\r\n", 414),
    "a field too long": (GET + b"Host: localhost\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", 431),
    "a field without end": (GET + b"Host: localhost\r\nX: " + b"y" * 100_000, 431),
    "many fields": (GET + b"Host: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", 400),
    "many long fields": (GET + (b"X: " + b"y" * 8_000 + b"\r\n") * 500 + b"\r\n", 431),
    "a large head": (GET + (b"X: " + b"y" * 8_000 + b"\r\n") * 9 + b"\r\n", 431),
    "a large head without end": (GET + (b"X: " + b"y" * 8_000 + b"\r\n") * 9, 431),
    "no line": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
}


async def answered_meanwhile(server: Server) -> None:
    assert (await server.ask("GET", "/livez")).status == 200


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("fast_path", [True, False])
async def test_a_shape_is_refused_and_what_follows_is_no_request(
    start: Start, fast_path: bool, name: str
) -> None:
    data, status = SHAPES[name]
    async with start(web_settings(fast_path=fast_path, keepalive_timeout=2.0)) as server:
        stored = await server.ask("POST", "/set-value", '{"key":"victim","value":1}')
        assert stored.status == 200
        async with server.wire() as wire:
            wire.writer.write(data + SMUGGLED)
            await answered_meanwhile(server)
            try:
                assert (await wire.answer()).status == status
            except (EOFError, ConnectionError):
                assert status is None
            assert await wire.ended()
        assert (await server.ask("GET", "/get-value?key=victim")).status == 200


@pytest.mark.parametrize("fast_path", [True, False])
async def test_silent_connections_are_bounded_and_hold_nobody_up(
    start: Start, fast_path: bool
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = SILENT_CONNECTIONS
    if hard != resource.RLIM_INFINITY:
        most = min(most, (hard - OTHER_FILES) // 2)  # both ends are in this process
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * most + OTHER_FILES), hard))
    try:
        settings = web_settings(fast_path=fast_path, max_connections=most, keepalive_timeout=600.0)
        async with start(settings) as server, AsyncExitStack() as stack:
            for _ in range(most - 1):
                await stack.enter_async_context(server.wire())
            await answered_meanwhile(server)
            async with server.wire() as wire:
                async with server.wire() as further:
                    assert (await further.answer()).status == 503
                await wire.send(request("GET", "/livez"))
                assert (await wire.answer()).status == 200
            for _ in range(120):
                if not len(server.lifecycle.connections):
                    break
                let_pass(600.0)  # again: a connection is not idle the first time it is seen
                await asyncio.sleep(0.5)
            assert not len(server.lifecycle.connections), "the silent ones are cut"
            await answered_meanwhile(server)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("fast_path", [True, False])
async def test_answers_that_are_never_read(start: Start, fast_path: bool) -> None:
    """The clients are cut, what was held for them is free, and others are served all along."""
    settings = web_settings(fast_path=fast_path, send_timeout=1.0)
    async with start(settings) as server, AsyncExitStack() as stack:
        body = '{"key":"big","value":"%s"}' % ("x" * 1_000_000)
        assert (await server.ask("POST", "/set-value", body)).status == 200
        for _ in range(20):
            wire = await stack.enter_async_context(server.wire())
            await wire.send(request("GET", "/get-value?key=big") * 50)
        for _ in range(10):
            await answered_meanwhile(server)
            await asyncio.sleep(0.05)
        unread = server.lifecycle.connections.unread
        await poll_async(lambda: not len(server.lifecycle.connections), "they are cut", 30.0)
        await poll_async(lambda: not unread.used, "what was held for them is free")
        await answered_meanwhile(server)
