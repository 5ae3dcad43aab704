"""The ring against three real memcacheds: where items are, and what a failing server costs."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from hashlib import blake2b
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantbase.errors import CacheUnavailable
from tenantbase.figures import CACHE_FAILURES, CacheFailure, private_cells
from tenantbase.interfaces.cache import AWAY, LEFT_OUT, Item
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.interfaces.memcached.client import MemcacheClient
from tenantbase.interfaces.memcached.protocol import KEPT_BYTES
from tenantbase.interfaces.memcached.ring import MemcacheRing
from tests.servers import (
    READY_SECONDS,
    FaultProxy,
    MemcachedProcess,
    free_port,
    let_pass,
    poll_async,
)

PATIENT: Final = 3600.0
"""Seconds: a timeout longer than any test, so that it never expires by itself."""
NAMES: Final = [
    blake2b(b"%d" % number, digest_size=16).hexdigest().encode() for number in range(300)
]
ITEMS: Final[list[Item]] = [(name, b"item " + name, 0) for name in NAMES]
THREE: Final = ("a:11211", "b:11211", "c:11211")


class Recorder:
    """A server that keeps items in memory, and records what it is asked."""

    available = True
    away: Sequence[int] = ()

    def __init__(self) -> None:
        self.items: dict[bytes, bytes] = {}
        self.calls = 0

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        self.calls += 1
        return {key: self.items[key] for key in keys if key in self.items}

    async def set_many(self, items: Sequence[Item]) -> None:
        self.calls += 1
        self.items.update((name, value) for name, value, _ in items)


class Ring:
    """A ring, and what it consists of: each server behind a proxy."""

    def __init__(
        self,
        clients: dict[str, MemcacheClient],
        servers: list[MemcachedProcess],
        proxies: list[FaultProxy],
    ) -> None:
        self._figures = private_cells()
        self._clients = clients
        self.ring = MemcacheRing(clients, self._figures)
        self.servers = servers
        self.proxies = proxies

    async def of_each(self) -> list[set[bytes]]:
        """The names that each server has, asked directly."""
        held = []
        for server in self.servers:
            async with MemcacheClient(MemcacheAddress.parse(server.address), timeout=30) as client:
                held.append(set(await client.get_many(NAMES)))
        return held

    def waiting(self) -> list[int]:
        """The servers that have not answered, once all were asked for items."""
        if not all(b"get " in proxy.received for proxy in self.proxies):
            return []
        return [at for at, each in enumerate(self._clients.values()) if each._pool._in_use]

    def failures(self, reason: CacheFailure) -> int:
        return self._figures[CACHE_FAILURES[reason]]


@pytest.fixture
def servers() -> Iterator[list[MemcachedProcess]]:
    """Three servers, each reached in another way."""
    with ExitStack() as stack:
        addresses = (f"127.0.0.1:{free_port()}", f"[::1]:{free_port()}", None)
        yield [stack.enter_context(MemcachedProcess(address)) for address in addresses]


@pytest.fixture
async def ring(servers: list[MemcachedProcess]) -> AsyncIterator[Ring]:
    """A ring of these servers, with all items in it."""
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(FaultProxy(each.address)) for each in servers]
        clients = {
            proxy.address: await stack.enter_async_context(
                MemcacheClient(MemcacheAddress.parse(proxy.address), timeout=PATIENT)
            )
            for proxy in proxies
        }
        ring = Ring(clients, servers, proxies)
        await ring.ring.set_many(ITEMS)
        yield ring


def where(addresses: Sequence[str]) -> dict[bytes, str]:
    """The address of each name's server."""
    servers = {address: Recorder() for address in addresses}
    asyncio.run(MemcacheRing(servers, private_cells()).set_many(ITEMS))
    return {name: address for address, server in servers.items() for name in server.items}


# Where items are


ADDRESSES = st.lists(st.from_regex(r"[a-z]{1,8}:[1-9][0-9]{0,3}", fullmatch=True), unique=True)


@given(ADDRESSES.filter(lambda addresses: len(addresses) > 1), st.randoms())
def test_removing_a_server_moves_only_its_items(
    addresses: list[str], chance: random.Random
) -> None:
    before = where(addresses)
    assert set(before) == set(NAMES), "each item is on exactly one server"
    removed = chance.choice(addresses)
    others = [address for address in addresses if address != removed]
    chance.shuffle(others)
    after = where(others)
    assert {name: at for name, at in before.items() if at != removed}.items() <= after.items()


def test_places_are_those_of_every_other_version() -> None:
    # Servers of different versions share a ring while they are replaced one by one.
    held = where(THREE)
    assert [held[name][0] for name in NAMES[:24]] == list("bbbaccccbbccabcacbbbbcab")


def test_every_server_gets_its_share() -> None:
    names = [b"%04x%028x" % (digits, 0) for digits in range(1 << 16)]
    servers = {address: Recorder() for address in THREE}
    asyncio.run(MemcacheRing(servers, private_cells()).set_many([(name, b"", 0) for name in names]))
    shares = Counter({address: len(server.items) for address, server in servers.items()})
    assert all(abs(share - len(names) / 3) < 0.02 * len(names) for share in shares.values()), shares


async def test_a_batch_asks_each_server_once() -> None:
    servers = {address: Recorder() for address in THREE}
    ring = MemcacheRing(servers, private_cells())
    await ring.set_many(ITEMS)
    assert await ring.get_many(NAMES) == {name: value for name, value, _ in ITEMS}
    assert [server.calls for server in servers.values()] == [2, 2, 2]
    await ring.get_many(NAMES[:1])
    assert sum(server.calls for server in servers.values()) == 7
    assert await ring.get_many([]) == {}


async def test_all_servers_are_asked_at_the_same_time() -> None:
    everyone = asyncio.Barrier(3)

    class Waiting(Recorder):
        async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
            await everyone.wait()
            return {}

        async def set_many(self, items: Sequence[Item]) -> None:
            await everyone.wait()

    ring = MemcacheRing({address: Waiting() for address in THREE}, private_cells())
    async with asyncio.timeout(READY_SECONDS):
        await ring.set_many(ITEMS)
        assert await ring.get_many(NAMES) == {}


async def test_items_are_on_the_servers_and_come_back(ring: Ring) -> None:
    held = await ring.of_each()
    assert set.union(*held) == set(NAMES)
    assert sum(map(len, held)) == len(NAMES)
    assert min(map(len, held)) > len(NAMES) / 6
    absent = b"0" * 32
    assert await ring.ring.get_many([*NAMES, absent]) == {name: item for name, item, _ in ITEMS}
    with pytest.raises(ValueError, match="32 lowercase hexadecimal"):
        await ring.ring.get_many([*NAMES, b"x" * 32])


# What a failing server costs

Fault = Callable[[Ring, int], Awaitable[None]]


async def _killed(ring: Ring, at: int) -> None:
    ring.servers[at].kill()
    await ring.proxies[at].reset()


async def _refused(ring: Ring, at: int) -> None:
    await ring.proxies[at].refuse()


async def _reset(ring: Ring, at: int) -> None:
    await ring.proxies[at].reset()


async def _cut(ring: Ring, at: int) -> None:
    await ring.proxies[at].cut_after(100)


CONNECTION, PROTOCOL = CacheFailure.CONNECTION, CacheFailure.PROTOCOL


@pytest.mark.parametrize("fault", [_killed, _refused, _reset, _cut])
async def test_a_failing_server_costs_only_its_own_items(ring: Ring, fault: Fault) -> None:
    held = await ring.of_each()
    await fault(ring, 1)
    found = await ring.ring.get_many(NAMES)
    await expect_away(ring, held, found, 1)
    assert ring.failures(CONNECTION) == 1
    # The breaker is open: nothing more is counted, and writes go to the others.
    other = {name: b"newer" for name in NAMES}
    await ring.ring.set_many([(name, value, 0) for name, value in other.items()])
    again = await ring.ring.get_many(NAMES)
    assert {name for name in again if again[name] == b"newer"} == held[0] | held[2]
    assert ring.failures(CONNECTION) == 1 and ring.failures(CacheFailure.DOWN) == 0


async def expect_away(
    ring: Ring, held: list[set[bytes]], found: dict[bytes, bytes], at: int
) -> None:
    """Check that exactly the items of one server were not found, because it is away."""
    lost = {name for name, item in found.items() if item is AWAY}
    assert lost == held[at]
    assert {name for name in found if name not in lost} == set(NAMES) - lost
    assert all(found[name] == b"item " + name for name in set(NAMES) - lost)
    assert ring.ring.available and list(ring.ring.away) == [at]


async def test_a_hanging_server_costs_one_timeout_and_its_items(ring: Ring) -> None:
    held = await ring.of_each()
    ring.servers[2].pause()
    try:
        call = asyncio.create_task(ring.ring.get_many(NAMES))
        await poll_async(lambda: ring.waiting() == [2], "the others have answered")
        let_pass(PATIENT)
        await expect_away(ring, held, await call, 2)
        assert ring.failures(CacheFailure.TIMEOUT) == 1
    finally:
        ring.servers[2].resume()


async def test_wrong_bytes_cost_only_their_own_items(ring: Ring) -> None:
    held = await ring.of_each()
    await ring.proxies[0].hang()
    ring.proxies[0].received.clear()
    call = asyncio.create_task(ring.ring.get_many(NAMES))
    await poll_async(lambda: b"get " in ring.proxies[0].received, "it is asked")
    # A well-formed answer, with an item of another server.
    foreign = min(held[1])
    await ring.proxies[0].say(b"VALUE " + foreign + b" 0 3\r\nbad\r\n" + b"END\r\n" * 3)
    await expect_away(ring, held, await call, 0)
    assert ring.failures(PROTOCOL) == 1


async def test_a_slow_server_keeps_its_items(ring: Ring) -> None:
    await ring.proxies[1].delay(0.05)
    assert await ring.ring.get_many(NAMES) == {name: item for name, item, _ in ITEMS}
    assert list(ring.ring.away) == []


async def test_a_server_comes_back_with_its_place(ring: Ring) -> None:
    held = await ring.of_each()
    await ring.proxies[0].refuse()
    await ring.ring.get_many(NAMES)
    assert list(ring.ring.away) == [0]
    await ring.proxies[0].pass_through()
    await poll_async(lambda: not ring.ring.away, "a probe is answered")
    assert await ring.ring.get_many(NAMES) == {name: item for name, item, _ in ITEMS}
    assert await ring.of_each() == held, "nothing has moved"


async def test_without_any_server_everything_is_away(ring: Ring) -> None:
    for proxy in ring.proxies:
        await proxy.refuse()
    found = await ring.ring.get_many(NAMES)
    assert found.keys() == set(NAMES) and all(item is AWAY for item in found.values())
    await ring.ring.set_many(ITEMS)
    assert not ring.ring.available and list(ring.ring.away) == [0, 1, 2]
    single = await ring.ring.get_many(NAMES[:1])
    assert single[NAMES[0]] is AWAY


async def test_a_server_that_is_away_while_items_are_stored_is_counted(ring: Ring) -> None:
    await ring.proxies[1].refuse()
    await ring.ring.set_many(ITEMS)
    assert ring.failures(CONNECTION) == 1 and list(ring.ring.away) == [1]


async def test_an_item_cannot_pass_for_one_that_is_away(ring: Ring) -> None:
    await ring.ring.set_many([(NAMES[0], bytes(AWAY), 0)])
    found = await ring.ring.get_many(NAMES[:1])
    assert found[NAMES[0]] == AWAY and found[NAMES[0]] is not AWAY


async def test_a_client_keeps_no_more_of_an_answer_than_its_share(
    servers: list[MemcachedProcess],
) -> None:
    address = MemcacheAddress.parse(servers[0].address)
    async with MemcacheClient(address, timeout=30, kept_bytes=KEPT_BYTES // 3) as client:
        await client.set_many([(name, bytes(500_000), 0) for name in NAMES[:12]])
        found = await client.get_many(NAMES[:12])
        kept = [name for name in NAMES[:12] if found[name] is not LEFT_OUT]
        assert kept == NAMES[:6]


async def test_mistakes_of_ours_are_not_hidden(ring: Ring) -> None:
    class Broken(Recorder):
        async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
            raise RuntimeError("a bug")

        async def set_many(self, items: Sequence[Item]) -> None:
            raise CacheUnavailable("not a bug", CacheFailure.TIMEOUT)

    broken = MemcacheRing({address: Broken() for address in THREE}, private_cells())
    await broken.set_many(ITEMS)
    with pytest.raises(RuntimeError, match="a bug"):
        await broken.get_many(NAMES)
