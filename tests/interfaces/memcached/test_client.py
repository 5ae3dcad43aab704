"""The client against a real memcached that is killed, stopped, cut off and slow."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tenantbase.errors import CacheUnavailable
from tenantbase.figures import CacheFailure
from tenantbase.interfaces.cache import ABSENT, LEFT_OUT, UNCHANGED, Answer, Fetched
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.interfaces.memcached.client import MemcacheClient
from tenantbase.interfaces.memcached.protocol import KEPT_BYTES
from tests.servers import FaultProxy, MemcachedProcess, contents, free_port, poll_async

pytestmark = pytest.mark.integration

EVENT_LOOPS = ["asyncio", "uvloop"]

A, B, C = b"a" * 32, b"b" * 32, b"c" * 32
AWKWARD = b"\r\nEN\r\nVA 5 c1\r\n\x00\xff\r\nHD c1\r\n"
PATIENT = 3600.0
"""Seconds: a timeout longer than any test, so that it never expires."""
HASTY = 0.3
"""Seconds: a timeout that tests wait for. On a busy machine, even good answers may exceed it."""


@pytest.fixture(params=["unix", "tcp"])
def memcached(request: pytest.FixtureRequest) -> Iterator[MemcachedProcess]:
    address = f"127.0.0.1:{free_port()}" if request.param == "tcp" else None
    with MemcachedProcess(address) as process:
        yield process


@pytest.fixture
async def client(memcached: MemcachedProcess) -> AsyncIterator[MemcacheClient]:
    async with connect_to(memcached) as client:
        yield client


@pytest.fixture
async def proxy(memcached: MemcachedProcess) -> AsyncIterator[FaultProxy]:
    """A proxy in front of memcached, on the same kind of address."""
    address = f"{memcached.address}-proxy" if memcached.address.startswith("unix:") else None
    async with FaultProxy(memcached.address, address) as proxy:
        yield proxy


def connect_to(
    server: MemcachedProcess | FaultProxy, *, timeout: float = 10.0, pool_size: int = 4
) -> MemcacheClient:
    address = MemcacheAddress.parse(server.address)
    return MemcacheClient(address, timeout=timeout, pool_size=pool_size)


def key(number: int) -> bytes:
    return b"%032x" % number


async def served(client: MemcacheClient, *keys: bytes) -> dict[bytes, bytes]:
    """The client's result, once it gets an answer; it may have to recover first."""
    deadline = time.monotonic() + 10
    while True:
        await poll_async(lambda: client.available, "the breaker is closed")
        try:
            return await contents(client, keys)
        except CacheUnavailable:
            assert time.monotonic() < deadline, "the client does not recover"


async def turns(count: int = 10) -> None:
    """Let the event loop take enough turns to read everything in a local socket."""
    for _ in range(count):
        await asyncio.sleep(0)


# What it is for


async def test_items_come_back_as_they_were(client: MemcacheClient) -> None:
    items = {A: AWKWARD, B: b"", C: bytes(range(256)) * 100}
    await client.set_many([(name, value, 0) for name, value in items.items()])
    assert await contents(client, [A, key(1), B, C, A]) == items
    answers = await client.get_many([A, key(1), B, C, A], [None] * 5)
    assert [isinstance(answer, Fetched) and answer.data for answer in answers] == [
        items[A],
        False,
        items[B],
        items[C],
        items[A],
    ]
    assert await contents(client, [key(1)]) == {}


async def test_thousands_of_keys_in_one_call(client: MemcacheClient) -> None:
    items = {key(number): b"%d\r\n" % number for number in range(5_000)}
    await client.set_many([(name, value, 60) for name, value in items.items()])
    assert await contents(client, list(items)) == items


async def test_empty_calls_do_not_need_memcached(memcached: MemcachedProcess) -> None:
    memcached.kill()
    async with connect_to(memcached) as client:
        assert await client.get_many([], []) == []
        await client.set_many([])
        assert client.available
    memcached.start()


async def test_lifetimes(client: MemcacheClient) -> None:
    await client.set_many([(A, b"gone", -1), (B, b"here", 60), (C, b"here", 30 * 86_400)])
    assert await contents(client, [A, B, C]) == {B: b"here", C: b"here"}


async def test_large_values_in_both_directions(client: MemcacheClient) -> None:
    items = {key(number): bytes([number]) * 900_000 for number in range(30)}
    await client.set_many([(name, value, 0) for name, value in items.items()])
    wanted, rounds = list(items), 0
    while wanted:
        answers = await client.get_many(wanted, [None] * len(wanted))
        found = dict(zip(wanted, answers, strict=True))
        read = {name: each for name, each in found.items() if isinstance(each, Fetched)}
        assert wanted[0] in read, "the first is never left out"
        assert all(each.data == items[name] for name, each in read.items())
        assert all(each in read or found[each] is LEFT_OUT for each in wanted)
        assert len(read) * 900_000 < KEPT_BYTES + 900_000
        wanted, rounds = [name for name in wanted if name not in read], rounds + 1
    assert rounds == 3


async def test_an_item_cannot_pass_for_an_answer_without_one(client: MemcacheClient) -> None:
    items = {A: b"EN\r\n", B: b"HD c1\r\n", C: b"ERROR\r\n", key(1): b"VA 1 c1\r\nx\r\n"}
    await client.set_many([(name, value, 0) for name, value in items.items()])
    assert await contents(client, list(items)) == items


async def test_an_item_that_is_too_large_is_left_out(proxy: FaultProxy) -> None:
    async with connect_to(proxy) as client:
        await client.set_many([(B, b"old", 0)])
        await client.set_many([(A, b"1", 0), (B, b"x" * 2_000_000, 0), (C, b"3", 0)])
        assert await contents(client, [A, B, C]) == {A: b"1", C: b"3"}
        largest = (1 << 20) - 200
        await client.set_many([(B, b"x" * largest, 0)])
        assert len((await contents(client, [B]))[B]) == largest
        assert proxy.connections == 1, "the connection has stayed in step"


async def test_many_calls_share_a_few_connections(proxy: FaultProxy) -> None:
    async with connect_to(proxy, pool_size=3) as client:
        await client.set_many([(key(number), b"%d" % number, 0) for number in range(100)])
        calls = [contents(client, [key(number)]) for number in range(100)]
        found = await asyncio.gather(*calls)
        assert found == [{key(number): b"%d" % number} for number in range(100)]
        assert proxy.connections == 3


async def test_tcp_connections_do_not_wait_to_fill_packets() -> None:
    # The client relies on the event loop for this.
    with MemcachedProcess(f"127.0.0.1:{free_port()}") as memcached:
        address = MemcacheAddress.parse(memcached.address)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, address.host, address.port)
        connection = transport.get_extra_info("socket")
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.abort()
        await turns()


# Items that the caller has


async def fetched(client: MemcacheClient, *names: bytes) -> list[Fetched]:
    """Items that must be there."""
    answers = await client.get_many(names, [None] * len(names))
    items = [answer for answer in answers if isinstance(answer, Fetched)]
    assert len(items) == len(names)
    return items


async def test_an_item_that_has_not_changed(client: MemcacheClient) -> None:
    await client.set_many([(A, AWKWARD, 0), (B, b"", 60)])
    a, b = await fetched(client, A, B)
    assert a.cas != b.cas
    for _ in range(3):
        assert await client.get_many([A, B], [a.cas, b.cas]) == [UNCHANGED] * 2
        assert await client.get_many([A, B, C], [a.cas, None, None]) == [UNCHANGED, b, ABSENT]
    assert await client.get_many([A, A, A], [a.cas, None, b.cas]) == [UNCHANGED, a, a]


async def test_the_bytes_of_an_item_that_has_not_changed_are_not_sent(proxy: FaultProxy) -> None:
    async with connect_to(proxy) as client:
        await client.set_many([(A, b"x" * 500_000, 0)])
        (item,) = await fetched(client, A)
        proxy.cut_existing_after(len(b"HD c%b\r\n" % item.cas))
        assert await client.get_many([A], [item.cas]) == [UNCHANGED]
        assert proxy.connections == 1


async def test_an_item_that_was_stored_again(
    client: MemcacheClient, memcached: MemcachedProcess
) -> None:
    """Even if its bytes are the same: memcached does not compare them."""
    await client.set_many([(A, b"1", 0), (B, b"other", 0)])
    before, other = await fetched(client, A, B)
    seen = {before.cas}
    for value in (b"1", b"2", AWKWARD, b""):
        async with connect_to(memcached) as writer:
            await writer.set_many([(A, value, 0)])
        after, unchanged = await client.get_many([A, B], [before.cas, other.cas])
        assert unchanged is UNCHANGED
        assert isinstance(after, Fetched) and after.data == value and after.cas not in seen
        assert await client.get_many([A], [after.cas]) == [UNCHANGED]
        before = after
        seen.add(after.cas)


@pytest.mark.parametrize("loss", ["delete", "expiry", "flush", "restart"])
async def test_an_item_that_memcached_has_lost(
    client: MemcacheClient, memcached: MemcachedProcess, loss: str
) -> None:
    await client.set_many([(A, b"1", 0)])
    (item,) = await fetched(client, A)
    match loss:
        case "delete":
            assert memcached.command(b"delete %b\r\n" % A) == b"DELETED\r\n"
        case "expiry":
            assert memcached.command(b"touch %b -1\r\n" % A) == b"TOUCHED\r\n"
        case "flush":
            memcached.flush()
        case "restart":
            memcached.restart()
    assert await client.get_many([A], [item.cas]) == [ABSENT]
    assert await client.get_many([B, A], [None, item.cas]) == [ABSENT] * 2
    assert client.available


async def test_thousands_of_known_items_in_one_call(client: MemcacheClient) -> None:
    names = [key(number) for number in range(5_000)]
    await client.set_many([(name, name, 60) for name in names])
    items = await fetched(client, *names)
    assert len({item.cas for item in items}) == len(names)
    known = [item.cas for item in items]
    assert await client.get_many(names, known) == [UNCHANGED] * len(names)
    last = [*known[:-1], b"0"]
    assert await client.get_many(names, last) == [UNCHANGED] * (len(names) - 1) + [items[-1]]


@pytest.mark.parametrize("at_once", ["1", "20", "1000"])
async def test_hundreds_of_items_however_many_memcached_answers_at_once(at_once: str) -> None:
    """By default 20, so that an answer consists of many pieces, and breaks off between commands."""
    names = [key(number) for number in range(700)]
    with MemcachedProcess(None, "-R", at_once) as memcached:
        async with connect_to(memcached) as client:
            await client.set_many([(name, name * 50, 60) for name in names[:600]])
            items = await fetched(client, *names[:600])
            assert [item.data for item in items] == [name * 50 for name in names[:600]]
            known: list[bytes | None] = [item.cas for item in items]
            assert await client.get_many(names[:600], known) == [UNCHANGED] * 600
            newer = names[:600:7]
            await client.set_many([(name, b"newer", 60) for name in newer])
            expected: list[Answer] = [*[UNCHANGED] * 600, *[ABSENT] * 100]
            expected[:600:7] = await fetched(client, *newer)
            assert await client.get_many(names, known + [None, b"1"] * 50) == expected
            # Some more are unknown, so that all kinds of answers alternate.
            known[::5] = [None] * 120
            for at in range(0, 600, 5):
                if expected[at] is UNCHANGED:
                    expected[at] = items[at]
            assert await client.get_many(names, known + [None] * 100) == expected
            assert client.available


async def test_a_known_item_in_an_answer_that_is_too_large(client: MemcacheClient) -> None:
    names = [key(number) for number in range(12)]
    await client.set_many([(name, bytes(900_000), 0) for name in names])
    first, last = await fetched(client, names[0], names[-1])
    known: list[bytes | None] = [None] * 11
    answers = await client.get_many(names, [*known, last.cas])
    assert [type(answer) for answer in answers[:10]] == [Fetched] * 10
    assert answers[10:] == [LEFT_OUT, UNCHANGED]
    answers = await client.get_many(names, [*known, b"0"])
    assert answers[10:] == [LEFT_OUT, last], "what has changed is fetched in another answer"
    answers = await client.get_many(names, [b"0"] * 12)
    assert answers[0] == first and answers[10:] == [LEFT_OUT] * 2
    assert LEFT_OUT not in answers[:10]


async def test_memcached_without_cas_values() -> None:
    """All are 0, so that nothing seems to change; the caller must not rely on ``UNCHANGED`` alone."""
    with MemcachedProcess(None, "-C") as memcached:
        async with connect_to(memcached) as client:
            await client.set_many([(A, b"1", 0), (B, b"2", 0)])
            assert await fetched(client, A, B) == [Fetched(b"1", b"0"), Fetched(b"2", b"0")]
            assert await client.get_many([A, B, C], [b"0"] * 3) == [UNCHANGED, UNCHANGED, ABSENT]
            await client.set_many([(A, b"newer", 0)])
            assert await client.get_many([A, B], [b"0", None]) == [UNCHANGED, Fetched(b"2", b"0")]
            assert await client.get_many([A], [None]) == [Fetched(b"newer", b"0")]
            assert client.available


# memcached goes down and comes back


async def test_memcached_is_down_at_the_start(memcached: MemcachedProcess) -> None:
    memcached.kill()
    async with connect_to(memcached) as client:
        assert client.available
        with pytest.raises(CacheUnavailable):
            await contents(client, [A])
        assert not client.available
        memcached.start()
        assert await served(client, A) == {}


async def test_a_restart_between_calls_is_not_a_failure(memcached: MemcachedProcess) -> None:
    async with connect_to(memcached) as client:
        # Several idle connections, all of which will be dead.
        await asyncio.gather(*(contents(client, [key(number)]) for number in range(4)))
        for seen in (True, False):
            memcached.restart()
            if seen:
                await turns()  # the ends of the connections are read before the next call
            calls = [client.set_many([(key(number), b"new", 0)]) for number in range(8)]
            await asyncio.gather(*calls)
            assert await contents(client, [key(7)]) == {key(7): b"new"}
        assert client.available


async def test_a_kill_during_calls_ends_all_of_them(memcached: MemcachedProcess) -> None:
    """Calls that wait for an answer and calls that wait for their turn fail, and nothing spins."""
    async with connect_to(memcached, timeout=PATIENT, pool_size=2) as client:
        await client.set_many([(A, b"1", 0)])
        memcached.pause()
        calls: list[asyncio.Task[object]] = []
        for _ in range(20):
            calls.append(asyncio.create_task(contents(client, [A])))
            calls.append(asyncio.create_task(client.set_many([(A, b"2", 0)])))
        await turns()
        memcached.kill()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [CacheUnavailable] * 40
        memcached.start()
        assert await served(client, A) == {}


async def test_a_stopped_memcached_costs_one_deadline(
    memcached: MemcachedProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tenantbase.memcache")
    async with connect_to(memcached, timeout=1.0) as client:
        await client.set_many([(A, b"1", 0)])
        memcached.pause()
        for _ in range(100):
            with pytest.raises(CacheUnavailable):
                await contents(client, [A])
            with pytest.raises(CacheUnavailable):
                await client.set_many([(A, b"2", 0)])
        assert not client.available
        memcached.resume()
        assert await served(client, B) == {}
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "WARNING"], "told once each, not once a request"
    assert caplog.messages[0] == f"memcached at {memcached.address} is down: no answer in 1 s"


async def test_a_hanging_memcached_is_asked_once(proxy: FaultProxy) -> None:
    async with connect_to(proxy, timeout=HASTY) as client:
        await served(client, A)
        proxy.received.clear()
        await proxy.hang()
        for _ in range(100):
            with pytest.raises(CacheUnavailable):
                await contents(client, [A])
        assert proxy.received.count(b"mg ") == 1
        # The probe keeps asking by itself, without any call.
        await poll_async(lambda: proxy.received.count(b"mn\r\n") >= 2, "two probes")
        assert proxy.received.count(b"mg ") == 1
        await proxy.pass_through()
        assert await served(client, A) == {}


async def test_calls_at_the_same_time_share_one_deadline(
    proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    await proxy.hang()
    async with connect_to(proxy, timeout=HASTY, pool_size=2) as client:
        calls = [contents(client, [key(number)]) for number in range(50)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [CacheUnavailable] * 50
        assert proxy.received.count(b"mg ") == 2, "those in the queue were never sent"
        assert len(caplog.records) == 1


@pytest.mark.parametrize("fault", ["refuse", "reset", "cut", "delay", "hang"])
async def test_network_faults_cost_misses_only(
    memcached: MemcachedProcess, proxy: FaultProxy, fault: str
) -> None:
    async with connect_to(memcached) as other, connect_to(proxy, timeout=HASTY) as client:
        await other.set_many([(A, b"1", 0)])
        assert await served(client, A) == {A: b"1"}
        match fault:
            case "refuse":
                await proxy.refuse()
            case "reset":
                await proxy.reset()
            case "cut":
                await proxy.cut_after(0)
            case "delay":
                await proxy.delay(10.0)
            case "hang":
                await proxy.hang()
        with pytest.raises(CacheUnavailable):
            await contents(client, [A])
        assert not client.available
        await proxy.pass_through()
        assert await served(client, A) == {A: b"1"}


async def test_answers_cut_at_every_byte(proxy: FaultProxy) -> None:
    async with connect_to(proxy) as client:
        await client.set_many([(A, AWKWARD, 0)])
        (item,) = await fetched(client, A)
    found = b"VA %d c%b\r\n%b\r\n" % (len(AWKWARD), item.cas, AWKWARD)
    changed = b"HD c%b\r\n" % item.cas + found
    stored = b"STORED\r\nSTORED\r\n"
    for size in range(len(changed)):
        await proxy.cut_after(size % len(found))
        async with connect_to(proxy, timeout=PATIENT) as client:
            with pytest.raises(CacheUnavailable):
                await contents(client, [A])
        await proxy.cut_after(size)
        async with connect_to(proxy, timeout=PATIENT) as client:
            with pytest.raises(CacheUnavailable):
                await client.get_many([A], [b"0"])
        await proxy.cut_after(size % len(stored))
        async with connect_to(proxy, timeout=PATIENT) as client:
            with pytest.raises(CacheUnavailable):
                await client.set_many([(B, b"1", 0), (C, b"2", 0)])
        await proxy.pass_through()
        async with connect_to(proxy) as client:
            assert await contents(client, [key(1), A]) == {A: AWKWARD}


async def test_a_connection_cut_once_is_replaced(proxy: FaultProxy) -> None:
    async with connect_to(proxy) as client:
        await client.set_many([(A, AWKWARD, 0)])
        (item,) = await fetched(client, A)
        whole = b"VA %d c%b\r\n%b\r\n" % (len(AWKWARD), item.cas, AWKWARD)
        for size in range(len(whole)):
            proxy.cut_existing_after(size)
            assert await contents(client, [A]) == {A: AWKWARD}
            assert client.available
        assert proxy.connections == len(whole) + 1


async def test_a_connection_cut_before_a_changed_item_is_replaced(proxy: FaultProxy) -> None:
    """Then both questions are asked again."""
    async with connect_to(proxy) as client:
        await client.set_many([(A, AWKWARD, 0)])
        (item,) = await fetched(client, A)
        first = b"HD c%b\r\n" % item.cas
        for count, size in enumerate((len(first), len(first) + 1, len(first) + 9), 2):
            proxy.cut_existing_after(size)
            assert await client.get_many([A], [b"0"]) == [item]
            assert client.available
            assert proxy.connections == count


async def test_idle_connections_that_have_died_unnoticed(proxy: FaultProxy) -> None:
    """As behind a router that drops idle connections: each turns out to be dead when it is used."""
    async with connect_to(proxy) as client:
        await asyncio.gather(*(contents(client, [key(number)]) for number in range(4)))
        assert proxy.connections == 4
        proxy.cut_existing_after(0)
        await client.set_many([(A, b"1", 0)])
        assert await contents(client, [A]) == {A: b"1"}
        assert proxy.connections == 5
        assert client.available


async def test_a_server_that_is_not_memcached(caplog: pytest.LogCaptureFixture) -> None:
    def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    port = free_port()
    async with await asyncio.start_server(greet, "127.0.0.1", port):
        async with MemcacheClient(MemcacheAddress.parse(f"127.0.0.1:{port}")) as client:
            with pytest.raises(CacheUnavailable):
                await contents(client, [A])
            assert not client.available
    assert "220 mail.example" in caplog.text


async def test_an_old_memcached_counts_as_down(caplog: pytest.LogCaptureFixture) -> None:
    """It knows neither the commands nor the probe, so it stays down, and the log says why."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            received.append(line)
            writer.write(b"ERROR\r\n")
        writer.close()

    port = free_port()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        async with MemcacheClient(MemcacheAddress.parse(f"127.0.0.1:{port}")) as client:
            with pytest.raises(CacheUnavailable) as caught:
                await client.get_many([A, B], [b"1", None])
            assert caught.value.reason is CacheFailure.PROTOCOL
            await poll_async(lambda: received.count(b"mn\r\n") == 2, "it is probed twice")
            assert not client.available
    assert "1.6.9 and newer" in caplog.text


async def test_a_server_that_answers_only_probes_is_asked_less_often() -> None:
    """Otherwise, such a server would cost a timeout every tenth of a second."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line == b"mn\r\n":
                writer.write(b"MN\r\n")
        writer.close()

    port = free_port()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        address = MemcacheAddress.parse(f"127.0.0.1:{port}")
        async with MemcacheClient(address, timeout=0.05) as client:
            clock = asyncio.get_running_loop().time
            start = clock()
            for _ in range(4):
                await poll_async(lambda: client.available, "the probe is answered")
                with pytest.raises(CacheUnavailable):
                    await contents(client, [A])
            assert clock() - start > 0.1 + 0.2 + 0.4


async def test_a_long_answer_is_not_a_failure(proxy: FaultProxy) -> None:
    """The answer does not arrive within the timeout, but its sender is not down."""
    async with connect_to(proxy, timeout=1.0) as client:
        await client.set_many([(A, b"x" * 10_000, 0)])
        await proxy.drip(0.001)
        with pytest.raises(CacheUnavailable):
            await contents(client, [A])
        assert client.available
        await proxy.pass_through()
        assert await contents(client, [A]) == {A: b"x" * 10_000}


# Answers match their questions


async def test_a_cancelled_call_leaves_no_answer_behind(
    memcached: MemcachedProcess, proxy: FaultProxy
) -> None:
    async with connect_to(memcached) as other:
        for after in range(8):
            async with connect_to(proxy, pool_size=1) as client:
                for value in (b"1", b"2"):  # while it connects, and on an open connection
                    await other.set_many([(A, b"old", 0)])
                    call = asyncio.create_task(contents(client, [A]))
                    await turns(after)
                    call.cancel()
                    await asyncio.gather(call, return_exceptions=True)
                    await other.set_many([(A, value, 0)])
                    assert await contents(client, [A]) == {A: value}, after
                assert client.available, "a caller who gives up is no failure of memcached"


async def test_a_cancelled_set_leaves_no_answer_behind(proxy: FaultProxy) -> None:
    async with connect_to(proxy, pool_size=1) as client:
        await contents(client, [A])
        await proxy.delay(0.02)
        for size in (10, 900_000):
            call = asyncio.create_task(client.set_many([(A, b"x" * size, 0)] * 3))
            await turns()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await contents(client, [B]) == {}
        assert proxy.connections == 3
        await poll_async(lambda: proxy.open_connections == 1, "the other two are closed")
        assert client.available


async def test_a_late_answer_is_dropped(memcached: MemcachedProcess, proxy: FaultProxy) -> None:
    async with (
        connect_to(memcached) as other,
        connect_to(proxy, timeout=HASTY, pool_size=1) as client,
    ):
        await other.set_many([(A, b"old", 0)])
        assert await served(client, A) == {A: b"old"}
        await proxy.delay(2 * HASTY)
        with pytest.raises(CacheUnavailable):
            await contents(client, [A])
        await other.set_many([(A, b"new", 0)])
        await proxy.pass_through()
        assert await served(client, A) == {A: b"new"}


async def test_unexpected_bytes_end_a_connection(proxy: FaultProxy) -> None:
    async with connect_to(proxy) as client:
        await client.set_many([(A, b"1", 0)])
        await proxy.say(b"VA 5 c1\r\nstale\r\n")
        await turns()
        assert await contents(client, [A]) == {A: b"1"}
        assert proxy.connections == 2
        assert client.available


async def test_a_caller_in_the_queue_can_give_up(memcached: MemcachedProcess) -> None:
    async with connect_to(memcached, timeout=PATIENT, pool_size=1) as client:
        await contents(client, [A])
        memcached.pause()
        first, second, third = (asyncio.create_task(contents(client, [A])) for _ in range(3))
        await turns()
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        memcached.resume()
        assert await first == await third == {}


# The end


async def test_close_ends_everything(memcached: MemcachedProcess, proxy: FaultProxy) -> None:
    await proxy.hang()
    client = connect_to(proxy, timeout=PATIENT, pool_size=2)
    calls = [asyncio.create_task(contents(client, [A])) for _ in range(5)]
    await poll_async(lambda: proxy.received.count(b"mg ") == 2, "two calls have been sent")
    await client.close()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [CacheUnavailable] * 5
    with pytest.raises(CacheUnavailable):
        await contents(client, [A])
    assert not client.available
    await client.close()


async def test_close_while_connecting(memcached: MemcachedProcess) -> None:
    for count in range(4):
        client = connect_to(memcached)
        call = asyncio.create_task(contents(client, [A]))
        await turns(count)
        await client.close()
        await asyncio.gather(call, return_exceptions=True)
        with pytest.raises(CacheUnavailable):
            await contents(client, [A])


async def test_close_ends_the_probe(memcached: MemcachedProcess) -> None:
    memcached.kill()
    async with connect_to(memcached) as client:
        with pytest.raises(CacheUnavailable):
            await contents(client, [A])
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        assert len(tasks) == 1
    assert all(task.cancelled() for task in tasks)
