"""Hostile clients, which must harm only themselves.

Each is bounded in connections and bytes. Other clients' requests are judged as always. This module
checks that hostile clients' own well-formed requests are answered. ``vitals.py`` judges how much
memory they make a server hold.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Final

from tests.faults.cluster import TorturedServer
from tests.faults.http_client import HttpClient, NoAnswer, NotSent
from tests.faults.scene import Scene
from tests.wire import Wire

_LARGE_BYTES: Final = 200_000
# Enough writes for a checkpoint, which copies everything written before into the database.
_CHECKPOINT_SETS: Final = 60
_PIPELINES: Final = 8
_PIPELINED_BYTES: Final = 32 << 20
_HELD_BODIES: Final = 40
_BODY_BYTES: Final = 4 << 20
_IDLE_CONNECTIONS: Final = 300
_HALF_CLOSES: Final = 50
_ODD_REQUESTS: Final = 40
_ANSWER_SECONDS: Final = 5.0
# A fault may overrun its time by this much, because its server may be stopped meanwhile.
_PATIENCE_SECONDS: Final = 6.0
_RETRY_SECONDS: Final = 0.05


@asynccontextmanager
async def pipelines_unread(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Clients pipeline requests for a large value and do not read the answers."""
    server = chance.choice(scene.cluster.servers)
    await _set(scene, server, "hostile-large", "x" * _LARGE_BYTES)
    request = f"GET /get-value?key=hostile-large HTTP/1.1\r\n{_fields(scene, server)}\r\n"
    many = request.encode() * 1_000

    async def client() -> None:
        async with _connected(server) as wire:
            sent = 0
            while sent < _PIPELINED_BYTES:
                wire.writer.write(many)
                sent += len(many)
                await wire.writer.drain()  # never returns once the server stops reading
            await asyncio.Event().wait()

    async with _while_they_run(client, _PIPELINES):
        yield


@asynccontextmanager
async def bodies_held_back(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Clients send large bodies, except for the last byte."""
    server = chance.choice(scene.cluster.servers)
    head = (
        f"POST /set-values HTTP/1.1\r\n{_fields(scene, server)}"
        f"Content-Type: application/json\r\nContent-Length: {_BODY_BYTES}\r\n\r\n"
    )
    data = head.encode() + b"[" * (_BODY_BYTES - 1)

    async def client() -> None:
        async with _connected(server) as wire:
            wire.writer.write(data)
            await wire.reader.read()  # an answer or the end of the stream

    async with _while_they_run(client, _HELD_BODIES):
        yield


@asynccontextmanager
async def silent_connections(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Hundreds of connections send nothing, or a head byte by byte."""
    server = chance.choice(scene.cluster.servers)
    head = b"GET /get-value?key=a HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Padding: " + b"x" * 4_000
    dripping = iter(range(_IDLE_CONNECTIONS))

    async def client() -> None:
        async with _connected(server) as wire:
            if next(dripping) % 4:
                await wire.reader.read()
            for byte in head:
                wire.writer.write(bytes((byte,)))
                await asyncio.sleep(0.1)

    async with _while_they_run(client, _IDLE_CONNECTIONS):
        yield


@asynccontextmanager
async def half_closed(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Clients half-close after the request, as ``nc -N`` does, and must get the answer."""
    server = chance.choice(scene.cluster.servers)
    key = chance.choice(scene.keys()["registers"])
    general = chance.random() < 0.5  # only the general path answers this one
    target = f"/v1/values?prefix={key}&limit=1" if general else f"/get-value?key={key}"
    request = f"GET {target} HTTP/1.1\r\n{_fields(scene, server)}\r\n".encode()
    for _ in _while_time_is_left(_HALF_CLOSES):
        begin = time.monotonic_ns()
        answer = b""
        with suppress(OSError):
            async with _connected(server) as wire:
                wire.writer.write(request)
                wire.writer.write_eof()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ANSWER_SECONDS):
                        answer = await wire.reader.read()
        end = time.monotonic_ns()
        if not answer.startswith(b"HTTP/1.1 "):
            if not scene.excuses.failure(begin, end, server.port, write=False):
                scene.broken.append(f"a half-closed client got no answer to {target}")
    yield


@asynccontextmanager
async def odd_requests(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """Requests designed to make a parser slow or fail; each must be refused."""
    server = chance.choice(scene.cluster.servers)
    near_misses = (
        "Content-Type: a/b" + ";  " * 2_000 + "@",
        "Range: bytes=" + "0-1," * 1_500 + "x",
        'If-Match: "1"' + ", " * 3_000 + "x",
        "Accept: " + "a/b;q=0.5," * 700,
        "Expect: \xff",
        "Transfer-Encoding: gzip, chunked",
    )
    for _ in _while_time_is_left(_ODD_REQUESTS):
        field = chance.choice(near_misses)
        body = "" if field.startswith("Transfer") else "Content-Length: 1\r\n"
        request = (
            f"PUT /v1/values/hostile-odd HTTP/1.1\r\n{_fields(scene, server)}"
            f"Connection: close\r\n{body}{field}\r\n\r\n1"
        )
        with suppress(OSError, TimeoutError):
            async with _connected(server) as wire, asyncio.timeout(_ANSWER_SECONDS):
                wire.writer.write(request.encode("latin-1"))
                answer = await wire.reader.read()
                if answer.startswith(b"HTTP/1.1 500"):
                    scene.broken.append(f"an odd request was answered with 500: {field[:40]!r}")
    yield


@asynccontextmanager
async def damaged_row(scene: Scene, chance: random.Random) -> AsyncIterator[None]:
    """A page of a large value is damaged on the disk, and a client keeps reading that value."""
    key = f"hostile-damaged-{time.monotonic_ns()}"
    server = chance.choice(scene.cluster.servers)
    await _set(scene, server, key, f"{key} " * 3_000)
    for _ in _while_time_is_left(_CHECKPOINT_SETS):
        await _set(scene, server, "hostile-large", "x" * _LARGE_BYTES)
    database = scene.cluster.database
    place = await asyncio.to_thread(_overflow_page, database, key.encode() + b" ")
    if place is None:
        scene.done.append("row damaged: False")
        yield
        return
    offset, pointer = place
    _write_at(database, offset, b"\xff\xff\xff\xff")
    try:
        async with _while_they_run(lambda: _read_again_and_again(scene, server, key), 1):
            yield
    finally:
        _write_at(database, offset, pointer)
    scene.done.append("row damaged: True")


def _while_time_is_left(count: int) -> Iterator[int]:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for number in range(count):
        if time.monotonic() > deadline:
            return
        yield number


def _overflow_page(database: Path, marker: bytes) -> tuple[int, bytes] | None:
    """The offset of the pointer that begins an overflow page of this value, and the pointer.

    None: the value has not come from the log into the database.
    """
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    data = database.read_bytes()
    for offset in range(size, len(data) - size, size):
        page = data[offset : offset + size]
        # Its first four bytes name the next page of the chain; all the rest belongs to the value.
        if page.count(marker) > (size - 4) // len(marker) - 2 and page[:4] != bytes(4):
            return offset, page[:4]
    return None


def _write_at(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b", buffering=0) as file:
        file.seek(offset)
        file.write(data)


async def _read_again_and_again(scene: Scene, server: TorturedServer, key: str) -> None:
    async with HttpClient(server.port, _ANSWER_SECONDS, scene.cluster.token) as client:
        while True:
            with suppress(NotSent, NoAnswer):
                await client.ask("GET", f"/v1/values/{key}")
            await asyncio.sleep(0.01)


async def _set(scene: Scene, server: TorturedServer, key: str, value: str) -> None:
    body = b'{"key":"%b","value":"%b"}' % (key.encode(), value.encode())
    async with HttpClient(server.port, _ANSWER_SECONDS, scene.cluster.token) as client:
        with suppress(NotSent, NoAnswer):
            await client.ask("POST", "/set-value", body)


def _fields(scene: Scene, server: TorturedServer) -> str:
    """The header fields that let a request in."""
    token = scene.cluster.token
    return f"Host: 127.0.0.1:{server.port}\r\n" + (
        f"Authorization: Bearer {token}\r\n" if token else ""
    )


@asynccontextmanager
async def _connected(server: TorturedServer) -> AsyncIterator[Wire]:
    wire = await Wire.connect(server.port)
    try:
        yield wire
    finally:
        wire.abort()


@asynccontextmanager
async def _while_they_run(client: Callable[[], Awaitable[None]], count: int) -> AsyncIterator[None]:
    """Run this many clients, restarting each when its server closes its connection."""

    async def again_and_again() -> None:
        while True:
            with suppress(OSError):
                await client()
            await asyncio.sleep(_RETRY_SECONDS)

    tasks = [asyncio.create_task(again_and_again()) for _ in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
