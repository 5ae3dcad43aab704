"""The client against a real memcached that is killed, stopped, cut off and slow."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tenantbase.errors import CacheUnavailable
from tenantbase.interfaces.cache import LEFT_OUT
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.interfaces.memcached.client import MemcacheClient
from tenantbase.interfaces.memcached.protocol import KEPT_BYTES
from tests.servers import FaultProxy, MemcachedProcess, free_port, poll_async

pytestmark = pytest.mark.integration

EVENT_LOOPS = ["asyncio", "uvloop"]

A, B, C = b"a" * 32, b"b" * 32, b"c" * 32
AWKWARD = b"\r\nEND\r\nVALUE " + A + b" 0 5\r\n\x00\xff\r\n"
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
            return await client.get_many(keys)
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
    assert await client.get_many([A, key(1), B, C, A]) == items
    assert await client.get_many([key(1)]) == {}


async def test_thousands_of_keys_in_one_call(client: MemcacheClient) -> None:
    items = {key(number): b"%d\r\n" % number for number in range(5_000)}
    await client.set_many([(name, value, 60) for name, value in items.items()])
    assert await client.get_many(list(items)) == items


async def test_empty_calls_do_not_need_memcached(memcached: MemcachedProcess) -> None:
    memcached.kill()
    async with connect_to(memcached) as client:
        assert await client.get_many([]) == {}
        await client.set_many([])
        assert client.available
    memcached.start()


async def test_lifetimes(client: MemcacheClient) -> None:
    await client.set_many([(A, b"gone", -1), (B, b"here", 60), (C, b"here", 30 * 86_400)])
    assert await client.get_many([A, B, C]) == {B: b"here", C: b"here"}


async def test_large_values_in_both_directions(client: MemcacheClient) -> None:
    items = {key(number): bytes([number]) * 900_000 for number in range(30)}
    await client.set_many([(name, value, 0) for name, value in items.items()])
    wanted, rounds = list(items), 0
    while wanted:
        found = await client.get_many(wanted)
        assert list(found) == wanted, "each is there, or named as left out"
        read = [name for name, value in found.items() if value is not LEFT_OUT]
        assert read[0] == wanted[0], "the first is never left out"
        assert all(found[name] == items[name] for name in read)
        assert len(read) * 900_000 < KEPT_BYTES + 900_000
        wanted, rounds = [name for name in wanted if name not in read], rounds + 1
    assert rounds == 3


async def test_an_item_cannot_pass_for_one_left_out(client: MemcacheClient) -> None:
    await client.set_many([(A, bytes(LEFT_OUT), 0), (B, b"", 0)])
    found = await client.get_many([A, B])
    assert found == {A: b"left out", B: b""}
    assert found[A] is not LEFT_OUT


async def test_an_item_that_is_too_large_is_left_out(proxy: FaultProxy) -> None:
    async with connect_to(proxy) as client:
        await client.set_many([(B, b"old", 0)])
        await client.set_many([(A, b"1", 0), (B, b"x" * 2_000_000, 0), (C, b"3", 0)])
        assert await client.get_many([A, B, C]) == {A: b"1", C: b"3"}
        largest = (1 << 20) - 200
        await client.set_many([(B, b"x" * largest, 0)])
        assert len((await client.get_many([B]))[B]) == largest
        assert proxy.connections == 1, "the connection has stayed in step"


async def test_many_calls_share_a_few_connections(proxy: FaultProxy) -> None:
    async with connect_to(proxy, pool_size=3) as client:
        await client.set_many([(key(number), b"%d" % number, 0) for number in range(100)])
        calls = [client.get_many([key(number)]) for number in range(100)]
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


# memcached goes down and comes back


async def test_memcached_is_down_at_the_start(memcached: MemcachedProcess) -> None:
    memcached.kill()
    async with connect_to(memcached) as client:
        assert client.available
        with pytest.raises(CacheUnavailable):
            await client.get_many([A])
        assert not client.available
        memcached.start()
        assert await served(client, A) == {}


async def test_a_restart_between_calls_is_not_a_failure(memcached: MemcachedProcess) -> None:
    async with connect_to(memcached) as client:
        # Several idle connections, all of which will be dead.
        await asyncio.gather(*(client.get_many([key(number)]) for number in range(4)))
        for seen in (True, False):
            memcached.restart()
            if seen:
                await turns()  # the ends of the connections are read before the next call
            calls = [client.set_many([(key(number), b"new", 0)]) for number in range(8)]
            await asyncio.gather(*calls)
            assert await client.get_many([key(7)]) == {key(7): b"new"}
        assert client.available


async def test_a_kill_during_calls_ends_all_of_them(memcached: MemcachedProcess) -> None:
    """Calls that wait for an answer and calls that wait for their turn fail, and nothing spins."""
    async with connect_to(memcached, timeout=PATIENT, pool_size=2) as client:
        await client.set_many([(A, b"1", 0)])
        memcached.pause()
        calls: list[asyncio.Task[object]] = []
        for _ in range(20):
            calls.append(asyncio.create_task(client.get_many([A])))
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
                await client.get_many([A])
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
                await client.get_many([A])
        assert proxy.received.count(b"get ") == 1
        # The probe keeps asking by itself, without any call.
        await poll_async(lambda: proxy.received.count(b"version") >= 2, "two probes")
        assert proxy.received.count(b"get ") == 1
        await proxy.pass_through()
        assert await served(client, A) == {}


async def test_calls_at_the_same_time_share_one_deadline(
    proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    await proxy.hang()
    async with connect_to(proxy, timeout=HASTY, pool_size=2) as client:
        calls = [client.get_many([key(number)]) for number in range(50)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [CacheUnavailable] * 50
        assert proxy.received.count(b"get ") == 2, "those in the queue were never sent"
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
            await client.get_many([A])
        assert not client.available
        await proxy.pass_through()
        assert await served(client, A) == {A: b"1"}


async def test_answers_cut_at_every_byte(proxy: FaultProxy) -> None:
    async with connect_to(proxy) as client:
        await client.set_many([(A, AWKWARD, 0)])
    found = b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (A, len(AWKWARD), AWKWARD)
    stored = b"STORED\r\nSTORED\r\n"
    for size in range(len(found)):
        await proxy.cut_after(size)
        async with connect_to(proxy, timeout=PATIENT) as client:
            with pytest.raises(CacheUnavailable):
                await client.get_many([A])
        await proxy.cut_after(size % len(stored))
        async with connect_to(proxy, timeout=PATIENT) as client:
            with pytest.raises(CacheUnavailable):
                await client.set_many([(B, b"1", 0), (C, b"2", 0)])
        await proxy.pass_through()
        async with connect_to(proxy) as client:
            assert await client.get_many([key(1), A]) == {A: AWKWARD}


async def test_a_connection_cut_once_is_replaced(proxy: FaultProxy) -> None:
    async with connect_to(proxy) as client:
        await client.set_many([(A, AWKWARD, 0)])
        for size in range(40):
            proxy.cut_existing_after(size)
            assert await client.get_many([A]) == {A: AWKWARD}
            assert client.available
        assert proxy.connections == 41


async def test_idle_connections_that_have_died_unnoticed(proxy: FaultProxy) -> None:
    """As behind a router that drops idle connections: each turns out to be dead when it is used."""
    async with connect_to(proxy) as client:
        await asyncio.gather(*(client.get_many([key(number)]) for number in range(4)))
        assert proxy.connections == 4
        proxy.cut_existing_after(0)
        await client.set_many([(A, b"1", 0)])
        assert await client.get_many([A]) == {A: b"1"}
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
                await client.get_many([A])
            assert not client.available
    assert "220 mail.example" in caplog.text


async def test_a_server_that_answers_only_probes_is_asked_less_often() -> None:
    """Otherwise, such a server would cost a timeout every tenth of a second."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line == b"version\r\n":
                writer.write(b"VERSION 1.6.18\r\n")
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
                    await client.get_many([A])
            assert clock() - start > 0.1 + 0.2 + 0.4


async def test_a_long_answer_is_not_a_failure(proxy: FaultProxy) -> None:
    """The answer does not arrive within the timeout, but its sender is not down."""
    async with connect_to(proxy, timeout=1.0) as client:
        await client.set_many([(A, b"x" * 10_000, 0)])
        await proxy.drip(0.001)
        with pytest.raises(CacheUnavailable):
            await client.get_many([A])
        assert client.available
        await proxy.pass_through()
        assert await client.get_many([A]) == {A: b"x" * 10_000}


# Answers match their questions


async def test_a_cancelled_call_leaves_no_answer_behind(
    memcached: MemcachedProcess, proxy: FaultProxy
) -> None:
    async with connect_to(memcached) as other:
        for after in range(8):
            async with connect_to(proxy, pool_size=1) as client:
                for value in (b"1", b"2"):  # while it connects, and on an open connection
                    await other.set_many([(A, b"old", 0)])
                    call = asyncio.create_task(client.get_many([A]))
                    await turns(after)
                    call.cancel()
                    await asyncio.gather(call, return_exceptions=True)
                    await other.set_many([(A, value, 0)])
                    assert await client.get_many([A]) == {A: value}, after
                assert client.available, "a caller who gives up is no failure of memcached"


async def test_a_cancelled_set_leaves_no_answer_behind(proxy: FaultProxy) -> None:
    async with connect_to(proxy, pool_size=1) as client:
        await client.get_many([A])
        await proxy.delay(0.02)
        for size in (10, 900_000):
            call = asyncio.create_task(client.set_many([(A, b"x" * size, 0)] * 3))
            await turns()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await client.get_many([B]) == {}
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
            await client.get_many([A])
        await other.set_many([(A, b"new", 0)])
        await proxy.pass_through()
        assert await served(client, A) == {A: b"new"}


async def test_unexpected_bytes_end_a_connection(proxy: FaultProxy) -> None:
    async with connect_to(proxy) as client:
        await client.set_many([(A, b"1", 0)])
        await proxy.say(b"VALUE %b 0 5\r\nstale\r\nEND\r\n" % A)
        await turns()
        assert await client.get_many([A]) == {A: b"1"}
        assert proxy.connections == 2
        assert client.available


async def test_a_caller_in_the_queue_can_give_up(memcached: MemcachedProcess) -> None:
    async with connect_to(memcached, timeout=PATIENT, pool_size=1) as client:
        await client.get_many([A])
        memcached.pause()
        first, second, third = (asyncio.create_task(client.get_many([A])) for _ in range(3))
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
    calls = [asyncio.create_task(client.get_many([A])) for _ in range(5)]
    await poll_async(lambda: proxy.received.count(b"get ") == 2, "two calls have been sent")
    await client.close()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [CacheUnavailable] * 5
    with pytest.raises(CacheUnavailable):
        await client.get_many([A])
    assert not client.available
    await client.close()


async def test_close_while_connecting(memcached: MemcachedProcess) -> None:
    for count in range(4):
        client = connect_to(memcached)
        call = asyncio.create_task(client.get_many([A]))
        await turns(count)
        await client.close()
        await asyncio.gather(call, return_exceptions=True)
        with pytest.raises(CacheUnavailable):
            await client.get_many([A])


async def test_close_ends_the_probe(memcached: MemcachedProcess) -> None:
    memcached.kill()
    async with connect_to(memcached) as client:
        with pytest.raises(CacheUnavailable):
            await client.get_many([A])
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        assert len(tasks) == 1
    assert all(task.cancelled() for task in tasks)
