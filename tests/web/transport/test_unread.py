"""Answers that clients do not read: their total is bounded, and only those that read nothing
suffer."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import AsyncExitStack

import pytest

from tenantbase.commands import Set
from tenantbase.entry import OCTETS
from tenantbase.scope import DEFAULT
from tenantbase.web.transport.unread import Share
from tests.servers import poll_async
from tests.service import Server, web_settings
from tests.web.conftest import Start
from tests.web.table import problem
from tests.wire import SECONDS, Wire, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVENT_LOOPS = ["asyncio", "uvloop"]

MIB = 1 << 20
LIMIT = 6 * MIB
VALUE = MIB - 1000
CLIENTS = 16
# More than the kernel's buffers take, so that something is left for the server to hold.
PIPELINED = 12

KEYS = [f"big/{n}" for n in range(12)]
TARGETS = ["/v1/values/big/1", "/get-value?key=big/1", "/v1/values/huge", "/get-values?prefix=big"]
BULK = request("POST", "/get-values", json.dumps({"keys": KEYS}).encode())


async def _fill(server: Server) -> None:
    for key in KEYS:
        await server.cache.write(Set(DEFAULT.key(key), b"x" * VALUE, OCTETS))
    await server.cache.write(Set(DEFAULT.key("huge"), b"y" * (4 * MIB), OCTETS))


async def _asking(server: Server, data: bytes) -> Wire:
    """A client that sends requests and reads nothing yet, with a small buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    wire = Wire(reader, writer)
    await wire.send(data)
    return wire


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("data", [*(request("GET", target) for target in TARGETS), BULK])
async def test_unread_answers_stay_within_the_budget(
    start: Start, caplog: pytest.LogCaptureFixture, data: bytes, fast_path: bool
) -> None:
    settings = web_settings(max_value_bytes=4 * MIB, max_inflight_bytes=LIMIT, fast_path=fast_path)
    async with start(settings) as server, AsyncExitStack() as stack:
        await _fill(server)
        unread = server.lifecycle.connections.unread
        most = 0
        for _ in range(CLIENTS):
            wire = await _asking(server, data * PIPELINED)
            await stack.enter_async_context(wire)
        async with asyncio.timeout(2 * SECONDS):
            while not (
                logged := [each for each in caplog.records if each.name == "tenantbase.web"]
            ):
                most = max(most, unread.used)
                small = await server.ask("GET", "/get-value?key=none")
                assert small.status == 404, "small answers do not wait"
                await asyncio.sleep(0.02)
        assert "had read nothing" in logged[0].message
        assert most <= 2 * LIMIT  # allow a small answer, or a piece of a large one, for each client
        # A client that reads is served, even if it asks for as much.
        answer = await server.ask("GET", "/v1/values/big/3")
        assert (answer.status, len(answer.body)) == (200, VALUE)
    await poll_async(lambda: not len(server.lifecycle.connections), "all have ended")
    await poll_async(lambda: not unread.used, "what was held for them is free")


async def test_a_slow_reader_is_not_cut_off_for_others(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads a little now and then, while others read nothing and use up the budget."""
    # On a busy machine, its reads may come much later than planned.
    monkeypatch.setattr("tenantbase.web.transport.unread.STALLED_SECONDS", 2.0)
    settings = web_settings(max_value_bytes=8 * MIB, max_inflight_bytes=LIMIT)
    async with start(settings) as server, AsyncExitStack() as stack:
        await _fill(server)
        slow = await stack.enter_async_context(
            await _asking(server, request("GET", "/v1/values/huge"))
        )
        for _ in range(CLIENTS):
            wire = await _asking(server, request("GET", "/v1/values/big/1") * PIPELINED)
            await stack.enter_async_context(wire)
        transport = slow.writer.transport
        # The server writes about a mebibyte at a time, which takes the reader longer than that.
        for _ in range(45):
            transport.resume_reading()  # type: ignore[attr-defined]
            await slow.reader.readexactly(30_000)
            transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(0.1)
        # The kernel has sent what it held, even if the connection was cut, so read to the end.
        transport.resume_reading()  # type: ignore[attr-defined]
        await slow.reader.readexactly(4 * MIB - 45 * 30_000)


@pytest.mark.parametrize("fast_path", [True, False])
async def test_one_tenants_unread_answers_leave_room_for_another(
    start: Start, monkeypatch: pytest.MonkeyPatch, fast_path: bool
) -> None:
    monkeypatch.setattr("tenantbase.web.transport.unread.STALLED_SECONDS", 3600.0)
    monkeypatch.setattr("tenantbase.web.sending.WAIT_SECONDS", 30.0)
    limit = 24 * MIB
    settings = web_settings(max_value_bytes=4 * MIB, max_inflight_bytes=limit, fast_path=fast_path)
    async with start(settings) as server, AsyncExitStack() as stack:
        assert (await server.ask("PUT", "/v1/tenants/a", "{}")).status == 201
        for headers in ({}, {"X-Tenant": "a"}):
            stored = await server.ask("PUT", "/v1/values/huge", b"y" * (4 * MIB), headers)
            assert stored.status == 201
        unread = server.lifecycle.connections.unread
        huge = request("GET", "/v1/values/huge", headers={"X-Tenant": "a"})
        for _ in range(8):
            await stack.enter_async_context(await _asking(server, huge))
        await poll_async(lambda: unread.waiting >= 3, "the rest wait")
        assert unread.used <= limit * 3 / 4 + MIB  # with what the connections hold
        answer = await server.ask("GET", "/v1/values/huge")
        assert (answer.status, len(answer.body)) == (200, 4 * MIB)
        assert unread.waiting >= 3
    await poll_async(lambda: not len(server.lifecycle.connections), "all have ended")
    await poll_async(lambda: not unread.used, "what was held for them is free")


async def test_a_large_answer_waits_for_room_then_is_refused(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenantbase.web.sending.WAIT_SECONDS", 0.3)
    settings = web_settings(max_value_bytes=4 * MIB, max_inflight_bytes=LIMIT)
    async with start(settings) as server:
        await _fill(server)
        unread = server.lifecycle.connections.unread
        async with server.wire() as wire:
            await wire.send(request("GET", "/livez"))
            await wire.answer()
            (transport,) = server.lifecycle.connections
            share = Share(unread, transport)
            share.charge(LIMIT)
            for target in ("/v1/values/huge", "/v1/values/big/1", "/get-value?key=big/1"):
                refused = await server.ask("GET", target)
                expected = {**problem("over-limit", 503), "limit": "max-inflight-bytes"}
                assert (refused.status, refused.json) == (503, expected)
                assert refused.headers["retry-after"] == "1"
            monkeypatch.setattr("tenantbase.web.sending.WAIT_SECONDS", 30.0)
            asking = asyncio.create_task(server.ask("GET", "/v1/values/huge"))
            await poll_async(lambda: bool(unread.waiting), "it waits")
            share.release()
            answer = await asking
            assert (answer.status, len(answer.body)) == (200, 4 * MIB)
        assert unread.used == 0
