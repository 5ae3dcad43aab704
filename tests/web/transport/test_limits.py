"""Limits of the whole server: bodies in flight, connections, clients that do not read."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from tenantbase import json_requests
from tenantbase.coherence.policy import Cache
from tenantbase.commands import Applied, Set
from tenantbase.entry import JSON, OCTETS, Entry
from tenantbase.errors import Overloaded
from tenantbase.lookup import Lookup
from tenantbase.scope import DEFAULT
from tenantbase.web.transport.budget import STALLED_SECONDS
from tests.servers import MemcachedProcess, poll_async
from tests.service import Server, web_settings
from tests.web.blocked import BlockedCache, blocked
from tests.web.conftest import Start
from tests.web.table import problem
from tests.wire import SECONDS, Answer, Wire, request

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

EVENT_LOOPS = ["asyncio", "uvloop"]

MIB = 1 << 20


def over_limit(limit: str) -> dict[str, object]:
    return {**problem("over-limit", 503), "limit": limit}


@asynccontextmanager
async def held_back(server: Server, key: str, size: int) -> AsyncIterator[Wire]:
    """A write that has sent its body except for the last byte."""
    async with server.wire() as wire:
        await wire.send(request("PUT", f"/v1/values/{key}", b"x" * size)[:-1])
        yield wire


async def test_held_back_bodies_stay_within_the_budget(start: Start) -> None:
    """Stalled clients are evicted in favour of an active one; each is told why."""
    settings = web_settings(max_inflight_bytes=4 * MIB, max_value_bytes=MIB)
    async with start(settings) as server, AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(held_back(server, f"held/{n}", MIB)) for n in range(12)
        ]
        answers = [asyncio.create_task(wire.answer()) for wire in wires]
        written = await server.ask("PUT", "/v1/values/other", b"y" * MIB)
        while written.status == 503:  # the other clients have just sent something
            assert written.headers["retry-after"] == "1"
            await asyncio.sleep(0.1)
            written = await server.ask("PUT", "/v1/values/other", b"y" * MIB)
        assert written.status == 201
        await poll_async(lambda: sum(each.done() for each in answers) >= 8, "the rest is refused")
        for each in answers:
            if each.done():
                answer = each.result()
                assert (answer.status, answer.json) == (503, over_limit("max-inflight-bytes"))
                assert answer.headers["retry-after"] == "1"
                assert answer.headers["connection"] == "close"
        kept = [wire for wire, each in zip(wires, answers, strict=True) if not each.done()]
        for wire in kept:
            await wire.send(b"x")
        statuses = [(await each).status for each in answers]
        assert statuses.count(201) == len(kept)
        stored = [await server.ask("GET", f"/v1/values/held/{n}") for n in range(12)]
        assert [each.status for each in stored] == [
            200 if status == 201 else 404 for status in statuses
        ]
        # All memory is free again.
        for _ in range(2):
            writes = [server.ask("PUT", f"/v1/values/again/{n}", b"z" * MIB) for n in range(3)]
            assert {each.status for each in await asyncio.gather(*writes)} <= {200, 201}


async def test_a_body_that_could_not_be_held_is_refused_by_its_head(start: Start) -> None:
    settings = web_settings(max_inflight_bytes=MIB, max_value_bytes=2 * MIB)
    async with start(settings) as server, server.wire() as wire:
        headers = {"Content-Length": str(2 * MIB), "Expect": "100-continue"}
        await wire.send(request("PUT", "/v1/values/k", headers=headers))
        answer = await wire.answer()
        assert (answer.status, answer.json) == (503, over_limit("max-inflight-bytes"))


async def test_a_queued_request_holds_its_body_and_does_not_give_way(start: Start) -> None:
    settings = web_settings(max_inflight_bytes=MIB, max_value_bytes=MIB)
    async with start(settings, wrap=blocked) as server, server.wire() as queued:
        await queued.send(request("PUT", "/v1/values/queued", b"x" * (MIB - 10)))
        slow = server.cache
        assert isinstance(slow, BlockedCache)
        await poll_async(lambda: slow.begun == 1, "it is queued")
        await asyncio.sleep(2 * STALLED_SECONDS)
        refused = await server.ask("PUT", "/v1/values/other", b"y" * 20_000)
        assert (refused.status, refused.json) == (503, over_limit("max-inflight-bytes"))
        slow.gate.set()
        assert (await queued.answer()).status == 201
        assert (await server.ask("PUT", "/v1/values/other", b"y" * 20_000)).status == 201


@pytest.mark.parametrize("fast_path", [True, False])
async def test_one_connection_too_many_is_refused_at_once(start: Start, fast_path: bool) -> None:
    async with start(web_settings(max_connections=3, fast_path=fast_path)) as server:
        async with AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(server.wire()) for _ in range(3)]
            for wire in wires:
                await wire.send(request("GET", "/livez"))
                assert (await wire.answer()).status == 200
            async with server.wire() as silent:  # the answer does not wait for a request
                answer = await silent.answer()
                assert (answer.status, answer.json) == (503, over_limit("max-connections"))
                assert answer.headers["connection"] == "close"
                assert answer.headers["retry-after"] == "1"
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.headers["server"] == "tenantbase"
                assert await silent.ended()
            # Data that it sends meanwhile does not destroy the answer.
            for _ in range(20):
                refused = await server.ask("PUT", "/v1/values/k", b"x" * 500_000)
                assert refused.status == 503
            for wire in wires:
                await wire.send(request("GET", "/livez"))
                assert (await wire.answer()).status == 200
        await poll_async(lambda: not len(server.lifecycle.connections), "they have ended")
        assert (await server.ask("GET", "/livez")).status == 200


async def test_connections_are_counted_once_on_either_path(start: Start) -> None:
    async with start() as server:
        async with server.wire() as one, server.wire() as other:
            for target in ("/health-check", "/livez", "/nothing", "/health-check"):
                for wire in (one, other):
                    await wire.send(request("GET", target))
                    await wire.answer()
                assert len(server.lifecycle.connections) == 2
        await poll_async(lambda: not len(server.lifecycle.connections), "both have ended")


async def _slow_reader(server: Server, target: str) -> Wire:
    """A client with a small buffer that has sent a request and does not read yet."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    wire = Wire(reader, writer)
    await wire.send(request("GET", target))
    return wire


TARGETS = ["/v1/values/big", "/get-values?prefix=big", "/get-value?key=big"]


@pytest.mark.parametrize("target", TARGETS)
async def test_a_client_that_reads_nothing_is_cut_off_and_logged(
    start: Start, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    settings = web_settings(max_value_bytes=16 * MIB, send_timeout=0.5)
    async with start(settings) as server:
        await server.cache.write(Set(DEFAULT.key("big"), b'"%b"' % (b"x" * (12 * MIB)), JSON))
        async with await _slow_reader(server, target) as wire:
            await poll_async(lambda: not len(server.lifecycle.connections), "it is cut")
            assert await _all(wire) < 12 * MIB
    (record,) = [each for each in caplog.records if each.name == "tenantbase.web"]
    assert "has read nothing of its answer for 0.5 s" in record.message


async def _all(wire: Wire) -> int:
    wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
    count = 0
    try:
        while piece := await wire.reader.read(1 << 16):
            count += len(piece)
    except ConnectionResetError:
        pass
    return count


@pytest.mark.parametrize("target", TARGETS)
async def test_a_slow_reader_is_not_cut_off(
    start: Start, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    """It takes twice the send timeout for a part of the answer, while the server's buffer stays as it is."""
    settings = web_settings(max_value_bytes=16 * MIB, send_timeout=2.0)
    async with start(settings) as server:
        await server.cache.write(Set(DEFAULT.key("big"), b'"%b"' % (b"x" * (12 * MIB)), JSON))
        async with await _slow_reader(server, target) as wire:
            transport = wire.writer.transport
            count = 0
            for _ in range(12):
                await asyncio.sleep(0.35)
                transport.resume_reading()  # type: ignore[attr-defined]
                count += len(await wire.reader.readexactly(60_000))
                transport.pause_reading()  # type: ignore[attr-defined]
            count += await _all_of(wire, 12 * MIB - count)
            assert count >= 12 * MIB
    assert [each for each in caplog.records if each.name == "tenantbase.web"] == []


async def _all_of(wire: Wire, least: int) -> int:
    wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
    async with asyncio.timeout(SECONDS):
        return len(await wire.reader.readexactly(least))


async def test_the_kernel_does_not_cut_off_before_the_server(start: Start) -> None:
    async with start(web_settings(send_timeout=100)) as server, server.wire():
        await poll_async(lambda: len(server.lifecycle.connections) == 1, "it is connected")
        (transport,) = server.lifecycle.connections
        sock = transport.get_extra_info("socket")
        milliseconds = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert milliseconds > 100_000
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


class _Counting(Cache):
    """Records the number and size of the entries that each read returns."""

    asked: list[int] = []
    read: list[int] = []  # bytes
    given: list[Entry] = []

    async def get_many(
        self, keys: Sequence[str], size: int = 0, max_stale: float | None = None
    ) -> list[Lookup]:
        self.asked.append(len(keys))
        found = await super().get_many(keys, size, max_stale)
        entries = [each.entry for each in found if each.entry is not None]
        self.given.extend(entries)
        self.read.append(sum(len(entry.value) for entry in entries))
        return found


def counting(cache: Cache) -> Cache:
    counted = object.__new__(_Counting)
    counted.__dict__.update(cache.__dict__)
    _Counting.asked, _Counting.read, _Counting.given = [], [], []
    return counted


@pytest.mark.parametrize("cached", [True, False])
async def test_a_bulk_read_stays_within_its_memory(
    start: Start, memcached: MemcachedProcess, cached: bool
) -> None:
    """Even after small values and absent keys, it does not read too many large ones at once."""
    small = [f"small/{n}" for n in range(200)]
    large = [f"large/{n:02}" for n in range(24)]
    value = b"x" * (MIB - 1000)  # small enough for memcached
    async with start(wrap=counting, memcached=memcached if cached else None) as server:
        for key in large:
            assert (await server.ask("PUT", f"/v1/values/{key}", value)).status == 201
        # In the order of the rows, and in reverse.
        for keys in (small + large, [*reversed(large), *small]):
            answer = await server.ask("POST", "/get-values", json.dumps({"keys": keys}))
            assert [each["key"] for each in answer.json["values"]] == [
                key for key in keys if key in large
            ]
            assert answer.json["missing"] == small
    # 8 MiB from memcached, and as much from the database if memcached has only some of them.
    assert max(_Counting.read) <= 17 * MIB
    assert len(_Counting.given) < 4 * len(large), "what was read is not read again and again"


async def test_a_bulk_read_of_small_values_takes_one_round_trip(start: Start) -> None:
    keys = [f"k{n}" for n in range(100)]
    async with start(web_settings(max_value_bytes=64 * MIB), wrap=counting) as server:
        values = [{"key": key, "value": "x" * 100} for key in keys]
        assert (await server.ask("POST", "/set-values", json.dumps({"values": values}))).json
        answer = await server.ask("POST", "/get-values", json.dumps({"keys": keys}))
        assert [each["key"] for each in answer.json["values"]] == keys
    assert _Counting.asked == [100]


async def test_a_bulk_read_holds_little_for_a_client_that_reads_nothing(start: Start) -> None:
    small = [f"small/{n}" for n in range(300)]
    large = [f"large/{n}" for n in range(24)]
    async with start(wrap=counting) as server:
        for key in large:
            assert (await server.ask("PUT", f"/v1/values/{key}", key[-1] * MIB)).status == 201
        async with await _slow_reader(server, "/livez") as wire:
            await _all_of(wire, 1)
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            body = json.dumps({"keys": small + large}).encode()
            await wire.send(request("POST", "/get-values", body))
            await poll_async(lambda: bool(_Counting.given), "the large ones are read")
            await asyncio.sleep(0.5)
            references = [sys.getrefcount(each) for each in _Counting.given]
            held = sum(count > min(references) for count in references)
            assert held <= 5 and len(references) < len(large), "the others are read later"
    async with start(wrap=counting) as server:
        answer = await server.ask("POST", "/get-values", body)
        assert [each["key"] for each in answer.json["values"]] == large
        assert [each["value"][:4] for each in answer.json["values"]] == [
            b64encode(key[-1].encode() * 3).decode() for key in large
        ]
        assert answer.json["missing"] == small


# Requests that are refused because of their head, with the status.
REFUSED_BY_HEAD = [
    (413, "PUT", "/v1/values/k", {"Content-Length": str(1 << 30)}),
    (415, "PUT", "/v1/values/k", {"Content-Encoding": "gzip"}),
    (421, "PUT", "/v1/values/k", {"Host": "evil.example"}),
    (421, "PUT", "/nothing", {"Host": "evil.example"}),
    (403, "PUT", "/v1/values/k", {"Origin": "http://evil.example"}),
    (400, "PUT", "/v1/values/k?ttl=x", {}),
    (400, "PUT", "/v1/values/k", {"Content-Type": "nonsense"}),
    (400, "PUT", "/v1/values/k", {"If-Match": "nonsense"}),
    (404, "PUT", "/nothing", {}),
    (405, "PUT", "/get-value", {}),
    (400, "POST", "/set-values?x=y", {}),
    (413, "POST", "/set-value", {"Content-Length": str(1 << 30)}),
    (413, "POST", "/increment-value", {"Content-Length": str(1 << 30)}),
]


@pytest.mark.parametrize(
    ("status", "method", "target", "headers"),
    REFUSED_BY_HEAD,
    ids=[f"{each[0]} {each[2]} {','.join(each[3])}" for each in REFUSED_BY_HEAD],
)
async def test_no_100_continue_for_a_request_refused_by_its_head(
    server: Server, status: int, method: str, target: str, headers: dict[str, str]
) -> None:
    headers = {"Content-Length": "5", "Expect": "100-continue", **headers}
    async with server.wire() as wire:
        await wire.send(server.request(method, target, headers=headers))
        answer = await wire.answer()
        assert answer.status == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["server"] == "tenantbase"
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("expected", ["200-ok", "\xff", "100-continue, x"])
async def test_an_unknown_expectation(server: Server, expected: str) -> None:
    for target in ("/v1/values/k", "/nothing"):
        answer = await server.ask("PUT", target, b"x", {"Expect": expected})
        assert (answer.status, answer.json) == (417, problem("expectation-failed", 417))
    answer = await server.ask("GET", "/livez", headers={"Expect": "100-continue"})
    assert answer.status == 200


async def test_a_body_sent_without_waiting_is_accepted(server: Server) -> None:
    async with server.wire() as wire:
        await wire.send(
            server.request("PUT", "/v1/values/uninvited", b"x", {"Expect": "100-continue"})
        )
        answers: list[Answer] = [await wire.answer()]
        if answers[-1].status == 100:  # the key did not exist yet when the head was read
            answers.append(await wire.answer())
        assert answers[-1].status == 201


async def test_large_bodies_are_parsed_one_per_turn(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, other connections are served in between."""
    parsed: list[int] = []
    turn = 0

    async def count() -> None:
        nonlocal turn
        while len(parsed) < 8:  # then, it would only keep the writes from the processor
            await asyncio.sleep(0)
            turn += 1

    def split_many(text: bytes, max_entries: int) -> Sequence[msgspec.Raw]:
        parsed.append(turn)
        return json_requests.split_many(text, max_entries)

    monkeypatch.setattr("tenantbase.web.handlers.bulk.split_many", split_many)
    body = json.dumps({"values": [{"key": f"k{n}", "value": n} for n in range(4_000)]}).encode()
    async with start() as server, AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(server.wire()) for _ in range(8)]
        for wire in wires:
            await wire.send(request("POST", "/set-values", body))
        counting = asyncio.create_task(count())
        stack.callback(counting.cancel)
        assert {(await wire.answer()).status for wire in wires} == {200}
    assert len(parsed) == 8
    assert len(set(parsed)) == 8, "two of them in one turn of the event loop"


async def test_a_bulk_write_is_refused_before_its_entries_are_read(
    start: Start, tmp_path: Path
) -> None:
    """While too many large writes wait; small ones are accepted."""
    keys = [f"k{n}" for n in range(9_999)]
    body = json.dumps({"values": [*({"key": key, "value": 1} for key in keys), "not an entry"]})
    async with start() as server:
        lock = os.open(tmp_path / "x.db-lock", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        writes: list[asyncio.Future[tuple[Applied, ...]]] = []
        try:
            value = bytes(3 * MIB)
            while not writes or not writes[-1].done():
                writes.append(server.cache.write(Set(DEFAULT.key("large"), value, OCTETS)))
                await asyncio.sleep(0)
            refused = await server.ask("POST", "/set-values", body)
            assert (refused.status, refused.json) == (429, problem("overloaded", 429))
            refused = await server.ask("POST", "/delete-values", json.dumps({"keys": keys}))
            assert refused.status == 429
            invalid = await server.ask("POST", "/set-values", '{"values": ["not an entry"]}')
            assert invalid.status == 400
        finally:
            os.close(lock)
        assert isinstance(writes.pop().exception(), Overloaded)
        await asyncio.gather(*writes)
        assert (await server.ask("POST", "/set-values", body)).status == 400


async def answer_beside_a_queued_write(server: Server, slow: BlockedCache, data: bytes) -> Answer:
    """The answer to a request that must not become a second write, which would wait as well."""
    asked = asyncio.ensure_future(server.send(data))
    await poll_async(lambda: asked.done() or slow.begun > 1, "it is answered, or a write")
    assert slow.begun == 1
    return await asked


async def test_the_memory_of_parsed_requests_is_within_the_budget(start: Start) -> None:
    """Ten thousand short keys take much more of it than their text."""
    keys = [f"k{n}" for n in range(10_000)]
    many = [
        request("POST", "/get-values", json.dumps({"keys": keys})),
        request("POST", "/delete-values", json.dumps({"keys": keys})),
        request(
            "POST", "/set-values", json.dumps({"values": [{"key": k, "value": 1} for k in keys]})
        ),
    ]
    settings = web_settings(max_inflight_bytes=2 * MIB, max_request_bytes=2 * MIB)
    async with start(settings, wrap=blocked) as server, server.wire() as queued:
        slow = server.cache
        assert isinstance(slow, BlockedCache)
        await queued.send(request("PUT", "/v1/values/queued", b"x" * 100_000))
        await poll_async(lambda: slow.begun == 1, "it is queued")
        try:
            for each in many:
                refused = await answer_beside_a_queued_write(server, slow, each)
                assert (refused.status, refused.json) == (503, over_limit("max-inflight-bytes"))
        finally:
            slow.gate.set()
        assert (await queued.answer()).status == 201
        for each in many:  # alone, even more than there is
            assert (await server.send(each)).status == 200
