"""What a connection holds: no more than the part of the body that has arrived, and no answer."""

from __future__ import annotations

import gc
import json
import tracemalloc
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from tests.servers import poll_async
from tests.service import web_settings
from tests.web.conftest import Start
from tests.wire import request

ENTRIES = json.dumps({"values": [{"key": f"k{n:04}", "value": "x" * 200} for n in range(1000)]})
CLIENTS, PART = 40, 60_000  # which arrives as one piece


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_an_answer_that_has_been_sent_is_not_held(
    start: Start, fast_path: bool, coding: str
) -> None:
    asked = [
        ("POST", "/set-values", ENTRIES),  # more than 64 KiB
        ("POST", "/get-values", '{"keys":["k0000","k0001"]}'),
        ("GET", "/get-values?limit=100", None),
        ("GET", "/get-values?limit=1000", None),  # less than 256 KiB
        ("GET", "/get-value?key=none", None),
    ]
    async with start(web_settings(fast_path=fast_path)) as server, AsyncExitStack() as stack:
        others = set(map(id, held()))  # of other servers in this process
        for method, path, body in asked:
            wire = await stack.enter_async_context(server.wire())
            await wire.send(request(method, path, body, {"Accept-Encoding": coding}))
            answer = await wire.answer()
            assert answer.whole and answer.headers.get("content-encoding", "identity") in (
                coding,
                "identity",
            )
        await poll_async(
            lambda: all(id(each) in others for each in held()), "their answers are gone"
        )


def held() -> list[web.Response]:
    return [each for each in gc.get_objects() if isinstance(each, web.Response) and each.body]


@pytest.mark.parametrize("fast_path", [True, False])
async def test_a_body_that_arrives_is_held_once(start: Start, fast_path: bool) -> None:
    head = b"POST /set-value HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{"
    async with start(web_settings(fast_path=fast_path)) as server, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(server.wire()) for _ in range(CLIENTS)]
        for wire in wires:
            await wire.send(head)
        await poll_async(lambda: server.lifecycle.active == CLIENTS, "all have begun")
        tracemalloc.start()
        try:
            for wire in wires:
                await wire.send(bytes(PART))
            await poll_async(
                lambda: server.bodies.used == CLIENTS * (PART + 1), "all parts have arrived"
            )
            used, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert used < 1.5 * CLIENTS * PART
