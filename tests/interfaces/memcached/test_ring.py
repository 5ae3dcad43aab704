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
from tenantbase.interfaces.cache import (
    ABSENT,
    AWAY,
    LEFT_OUT,
    UNCHANGED,
    Answer,
    Fetched,
    Item,
    NotFetched,
)
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.interfaces.memcached.client import MemcacheClient
from tenantbase.interfaces.memcached.protocol import KEPT_BYTES
from tenantbase.interfaces.memcached.ring import MemcacheRing
from tests.servers import (
    READY_SECONDS,
    FaultProxy,
    MemcachedProcess,
    contents,
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


def cas_of(name: bytes) -> bytes:
    """The CAS value of an item in a ``Recorder``; different for each name."""
    return b"%d" % int(name[-16:], 16)


class Recorder:
    """A server that keeps items in memory, and records what it is asked."""

    available = True
    away: Sequence[int] = ()

    def __init__(self) -> None:
        self.items: dict[bytes, bytes] = {}
        self.calls = 0
        self.asked: list[tuple[bytes, bytes | None]] = []
        """All names that were asked for, and what was said to be known of each."""

    async def get_many(self, names: Sequence[bytes], known: Sequence[bytes | None]) -> list[Answer]:
        self.calls += 1
        self.asked += zip(names, known, strict=True)
        return [self._answer(name, cas) for name, cas in zip(names, known, strict=True)]

    def _answer(self, name: bytes, known: bytes | None) -> Answer:
        if name not in self.items:
            return ABSENT
        return UNCHANGED if known == cas_of(name) else Fetched(self.items[name], cas_of(name))

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
                held.append(set(await contents(client, NAMES)))
        return held

    def waiting(self) -> list[int]:
        """The servers that have not answered, once all were asked for items."""
        if not all(b"mg " in proxy.received for proxy in self.proxies):
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
    assert await contents(ring, NAMES) == {name: value for name, value, _ in ITEMS}
    assert [server.calls for server in servers.values()] == [2, 2, 2]
    await contents(ring, NAMES[:1])
    assert sum(server.calls for server in servers.values()) == 7
    assert list(await ring.get_many([], [])) == []


async def test_cas_values_go_to_the_servers_of_their_names() -> None:
    servers = {address: Recorder() for address in THREE}
    ring = MemcacheRing(servers, private_cells())
    await ring.set_many(ITEMS[:200])
    # Each name twice, and never beside itself; a third of each is unknown, known, or outdated.
    names = [*NAMES, *reversed(NAMES)]
    known = [(None, cas_of(name), b"0")[at % 3] for at, name in enumerate(names)]
    answers = await ring.get_many(names, known)
    assert list(answers) == [expected(name, cas) for name, cas in zip(names, known, strict=True)]
    assert {type(each) for each in answers[:200]} == {Fetched, NotFetched}
    places = {name: at for at, server in servers.items() for name in server.items}
    for address, server in servers.items():
        asked = [each for each in zip(names, known, strict=True) if places.get(each[0]) == address]
        assert [each for each in server.asked if each[0] in places] == asked
    assert sum(len(server.asked) for server in servers.values()) == len(names)


def expected(name: bytes, known: bytes | None) -> Answer:
    """What is found in ``Recorder``s that have the first 200 items."""
    if name not in NAMES[:200]:
        return ABSENT
    return UNCHANGED if known == cas_of(name) else Fetched(b"item " + name, cas_of(name))


async def test_cas_values_go_to_a_single_server() -> None:
    servers = {address: Recorder() for address in THREE}
    ring = MemcacheRing(servers, private_cells())
    await ring.set_many(ITEMS)
    for recorder in servers.values():
        names = [*recorder.items, *recorder.items]
        known = [cas_of(name) if at % 2 else None for at, name in enumerate(names)]
        answers = await ring.get_many(names, known)
        assert list(answers) == [
            UNCHANGED if cas else Fetched(b"item " + name, cas_of(name))
            for name, cas in zip(names, known, strict=True)
        ]
        assert recorder.asked == list(zip(names, known, strict=True))


async def test_all_servers_are_asked_at_the_same_time() -> None:
    everyone = asyncio.Barrier(3)

    class Waiting(Recorder):
        async def get_many(
            self, names: Sequence[bytes], known: Sequence[bytes | None]
        ) -> list[Answer]:
            await everyone.wait()
            return [ABSENT] * len(names)

        async def set_many(self, items: Sequence[Item]) -> None:
            await everyone.wait()

    ring = MemcacheRing({address: Waiting() for address in THREE}, private_cells())
    async with asyncio.timeout(READY_SECONDS):
        await ring.set_many(ITEMS)
        assert await contents(ring, NAMES) == {}


async def test_items_are_on_the_servers_and_come_back(ring: Ring) -> None:
    held = await ring.of_each()
    assert set.union(*held) == set(NAMES)
    assert sum(map(len, held)) == len(NAMES)
    assert min(map(len, held)) > len(NAMES) / 6
    absent = b"0" * 32
    assert await contents(ring.ring, [*NAMES, absent]) == {name: item for name, item, _ in ITEMS}
    with pytest.raises(ValueError, match="32 lowercase hexadecimal"):
        await ring.ring.get_many([*NAMES, b"x" * 32], [None] * (len(NAMES) + 1))


async def test_items_that_have_not_changed_on_any_server(ring: Ring) -> None:
    items = await ring.ring.get_many(NAMES, [None] * len(NAMES))
    known = [item.cas for item in items if isinstance(item, Fetched)]
    assert list(await ring.ring.get_many(NAMES, known)) == [UNCHANGED] * len(NAMES)
    # Servers count independently, so one's CAS values say nothing about another's items.
    assert len(set(known)) < len(known)
    newer = NAMES[::7]
    await ring.ring.set_many([(name, b"newer", 0) for name in newer])
    answers = await ring.ring.get_many(NAMES[::-1], known[::-1])
    found = dict(zip(NAMES[::-1], answers, strict=True))
    changed = [name for name in NAMES if found[name] is not UNCHANGED]
    assert changed == newer
    assert [item.data for item in map(found.get, newer) if isinstance(item, Fetched)] == [
        b"newer"
    ] * len(newer)


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
    found = await answers_of(ring)
    await expect_away(ring, held, found, 1)
    assert ring.failures(CONNECTION) == 1
    # The breaker is open: nothing more is counted, and writes go to the others.
    other = {name: b"newer" for name in NAMES}
    await ring.ring.set_many([(name, value, 0) for name, value in other.items()])
    again = await answers_of(ring)
    newer = {name for name, item in again.items() if item is not AWAY}
    assert newer == held[0] | held[2]
    assert {item.data for item in again.values() if isinstance(item, Fetched)} == {b"newer"}
    assert ring.failures(CONNECTION) == 1 and ring.failures(CacheFailure.DOWN) == 0


async def answers_of(ring: Ring) -> dict[bytes, Answer]:
    """The ring's answers about all names, none of which is known."""
    answers = await ring.ring.get_many(NAMES, [None] * len(NAMES))
    return dict(zip(NAMES, answers, strict=True))


async def expect_away(
    ring: Ring, held: list[set[bytes]], found: dict[bytes, Answer], at: int
) -> None:
    """Check that exactly the items of one server were not found, because it is away."""
    lost = {name for name, item in found.items() if item is AWAY}
    assert lost == held[at]
    data = {name: item.data for name, item in found.items() if isinstance(item, Fetched)}
    assert data == {name: b"item " + name for name in NAMES if name not in lost}
    assert ring.ring.available and list(ring.ring.away) == [at]


async def test_known_items_while_a_server_is_away(ring: Ring) -> None:
    """With duplicates, some of them known, in a random order."""
    held = await ring.of_each()
    items = await answers_of(ring)
    await ring.proxies[1].refuse()
    names = NAMES * 3
    random.Random(0).shuffle(names)
    known: list[bytes | None] = []
    expected: list[Answer] = []
    for at, name in enumerate(names):
        item = items[name]
        assert isinstance(item, Fetched)
        known.append((None, item.cas, b"0")[at % 3])
        expected.append(UNCHANGED if at % 3 == 1 else item)
        if name in held[1]:
            expected[-1] = AWAY
    for _ in range(2):  # it fails, and is known to be away
        assert list(await ring.ring.get_many(names, known)) == expected
    assert list(ring.ring.away) == [1] and ring.failures(CONNECTION) == 1


async def test_a_hanging_server_costs_one_timeout_and_its_items(ring: Ring) -> None:
    held = await ring.of_each()
    ring.servers[2].pause()
    try:
        call = asyncio.create_task(answers_of(ring))
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
    call = asyncio.create_task(answers_of(ring))
    await poll_async(lambda: b"mg " in ring.proxies[0].received, "it is asked")
    # Well-formed answers, but one too many.
    await ring.proxies[0].say(b"VA 3 c1\r\nbad\r\n" + b"EN\r\n" * len(held[0]))
    await expect_away(ring, held, await call, 0)
    assert ring.failures(PROTOCOL) == 1


async def test_a_slow_server_keeps_its_items(ring: Ring) -> None:
    await ring.proxies[1].delay(0.05)
    assert await contents(ring.ring, NAMES) == {name: item for name, item, _ in ITEMS}
    assert list(ring.ring.away) == []


async def test_a_server_comes_back_with_its_place(ring: Ring) -> None:
    held = await ring.of_each()
    await ring.proxies[0].refuse()
    await answers_of(ring)
    assert list(ring.ring.away) == [0]
    await ring.proxies[0].pass_through()
    await poll_async(lambda: not ring.ring.away, "a probe is answered")
    assert await contents(ring.ring, NAMES) == {name: item for name, item, _ in ITEMS}
    assert await ring.of_each() == held, "nothing has moved"


async def test_without_any_server_everything_is_away(ring: Ring) -> None:
    for proxy in ring.proxies:
        await proxy.refuse()
    assert list((await answers_of(ring)).values()) == [AWAY] * len(NAMES)
    await ring.ring.set_many(ITEMS)
    assert not ring.ring.available and list(ring.ring.away) == [0, 1, 2]
    for known in (None, b"1"):
        assert list(await ring.ring.get_many(NAMES[:1], [known])) == [AWAY]


async def test_a_server_that_is_away_while_items_are_stored_is_counted(ring: Ring) -> None:
    await ring.proxies[1].refuse()
    await ring.ring.set_many(ITEMS)
    assert ring.failures(CONNECTION) == 1 and list(ring.ring.away) == [1]


async def test_a_client_keeps_no_more_of_an_answer_than_its_share(
    servers: list[MemcachedProcess],
) -> None:
    address = MemcacheAddress.parse(servers[0].address)
    async with MemcacheClient(address, timeout=30, kept_bytes=KEPT_BYTES // 3) as client:
        await client.set_many([(name, bytes(500_000), 0) for name in NAMES[:12]])
        answers = await client.get_many(NAMES[:12], [None] * 12)
        assert [type(each) for each in answers[:6]] == [Fetched] * 6
        assert answers[6:] == [LEFT_OUT] * 6


async def test_mistakes_of_ours_are_not_hidden(ring: Ring) -> None:
    class Broken(Recorder):
        async def get_many(
            self, names: Sequence[bytes], known: Sequence[bytes | None]
        ) -> list[Answer]:
            raise RuntimeError("a bug")

        async def set_many(self, items: Sequence[Item]) -> None:
            raise CacheUnavailable("not a bug", CacheFailure.TIMEOUT)

    broken = MemcacheRing({address: Broken() for address in THREE}, private_cells())
    await broken.set_many(ITEMS)
    with pytest.raises(RuntimeError, match="a bug"):
        await broken.get_many(NAMES, [None] * len(NAMES))
