"""The policy over a real database and a real memcached, with staged races."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tenantbase.coherence import pending
from tenantbase.coherence.authority import Answer, Tag
from tenantbase.coherence.filler import HEAVY_BYTES
from tenantbase.coherence.policy import Cache
from tenantbase.coherence.sealed_item import CACHED_BYTES, ItemSealer, Slot, Verdict, bucket_of
from tenantbase.coherence.tag_file import TagFile
from tenantbase.coherence.tag_seqlock import TagSeqlock, WriteLock
from tenantbase.coherence.write_queue import QUEUE_BYTES
from tenantbase.coherence.writing import WriteThrough
from tenantbase.commands import Condition, Delete, DeletePrefix, Set
from tenantbase.entry import JSON, OCTETS, Entry
from tenantbase.errors import (
    CacheUnavailable,
    ConditionFailed,
    OutcomeUnknown,
    Overloaded,
    StoreError,
    StoreUnavailable,
)
from tenantbase.figures import CACHE_FAILURES, COMMITS, MISSES, REJECTED_ITEMS, CacheFailure
from tenantbase.interfaces.cache import Fetched, Item, NotFetched
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.interfaces.memcached.client import MemcacheClient
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.interfaces.store import GroupResult, PendingWrite, Seqlock, Ticket
from tenantbase.listing import KeyRange, Place
from tenantbase.lookup import CacheStatus, Lookup
from tenantbase.plain_sets import PlainSets
from tests.servers import MemcachedProcess, contents, let_pass, poll_async

pytestmark = pytest.mark.integration


class StagedStore(SqliteStore):
    """The real store. A test can hold a read after its SELECT, or a write before its commit."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.after_select: Callable[[], object] | None = None
        self.before_write: Callable[[], object] | None = None
        self.reads: list[list[str]] = []
        self.groups: list[int] = []

    async def read(self, keys: Sequence[str], now: float) -> list[Entry | None | StoreError]:
        self.reads.append(list(keys))
        rows = await super().read(keys, now)
        if self.after_select is not None:
            await self.after_select()  # type: ignore[misc]
        return rows

    async def write(
        self, group: Sequence[PendingWrite], now: float, seqlock: Seqlock[Ticket]
    ) -> GroupResult[Ticket]:
        self.groups.append(len(group))
        if self.before_write is not None:
            await self.before_write()  # type: ignore[misc]
        return await super().write(group, now, seqlock)


class Gate:
    """Holds all callers until it is opened.

    Attributes:
        reached: set when a caller has come.
    """

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._opened = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self._opened.wait()

    def open(self) -> None:
        self._opened.set()


class AwaitedTags:
    """The tag file behind awaited answers, like an authority on another machine.

    Attributes:
        questions: how many queries it has received.
        before_answer: awaited before each answer, if given.
    """

    parallel = 1

    def __init__(self, tags: TagFile, clock: Callable[[], float]) -> None:
        self.file = tags
        self._clock = clock
        self.questions = 0
        self.before_answer: Callable[[], Awaitable[object]] | None = None

    @property
    def commits(self) -> int:
        return self.file.commits

    def tags(self, buckets: Sequence[int]) -> asyncio.Future[Answer]:
        return asyncio.ensure_future(self._answer(buckets))

    async def _answer(self, buckets: Sequence[int]) -> Answer:
        self.questions += 1
        if self.before_answer is not None:
            await self.before_answer()
        return Answer(self.file.tags(buckets), self._clock(), self.questions)

    def remembered(self, buckets: Sequence[int], max_age: float) -> None:
        return None

    async def poll(self) -> None:
        pass

    async def drained(self) -> None:
        pass


class Node:
    """The parts of one server, as another process would have them."""

    def __init__(self, cache: Cache, store: StagedStore, memcache: MemcacheClient) -> None:
        self.cache = cache
        self.store = store
        self.memcache = memcache
        self.sealer = ItemSealer(store.secret)
        self.now = 1_000_000.0

    async def set(self, key: str, value: bytes, **more: object) -> int:
        (applied,) = await self.cache.write(Set(key, value, JSON, **more))  # type: ignore[arg-type]
        assert applied.entry is not None
        return applied.entry.version

    async def get(self, key: str) -> tuple[bytes | None, CacheStatus]:
        found = await self.cache.get(key)
        return None if found.entry is None else found.entry.value, found.cache_status

    async def misses(self, count: int) -> None:
        """Wait until this many reads since the start have missed, and load, or have joined a load."""
        await poll_async(lambda: self.cache.figures[MISSES] == count, "they have missed")
        for _ in range(10):  # from there, a few turns of the event loop
            await asyncio.sleep(0)


class Cluster:
    """Nodes on one database and one memcached."""

    def __init__(self, directory: Path, server: MemcachedProcess, stack: AsyncExitStack) -> None:
        self.path = directory / "x.db"
        self.server = server
        self.stack = stack

    async def start(self, *, awaited: bool = False, **settings: float) -> Node:
        tags = TagFile.open(self.path.with_name("x.db-tags"))
        self.stack.callback(tags.close)
        lock = WriteLock(self.path.with_name("x.db-lock"))
        self.stack.callback(lock.close)
        store = await StagedStore.open(self.path, lock.held)
        self.stack.push_async_callback(store.close)
        memcache = MemcacheClient(MemcacheAddress.parse(self.server.address), timeout=2.0)
        self.stack.push_async_callback(memcache.close)
        sealer = ItemSealer(store.secret)
        seqlock = TagSeqlock(tags, lock, lambda key: bucket_of(sealer.name(key)))
        cache = Cache(
            store,
            AwaitedTags(tags, lambda: started.now) if awaited else tags,
            lambda group, now: store.write(group, now, seqlock),
            sealer,
            memcache,
            clock=lambda: started.now,
            **settings,  # type: ignore[arg-type]
        )
        self.stack.push_async_callback(cache.drained)
        started = Node(cache, store, memcache)
        return started


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    with MemcachedProcess(None, "-I", "2m") as server:
        async with AsyncExitStack() as stack:
            yield Cluster(tmp_path, server, stack)


@pytest.fixture
async def node(cluster: Cluster) -> Node:
    return await cluster.start()


async def test_a_write_is_found_in_the_cache(node: Node) -> None:
    await node.set("default/k", b"1")
    assert await node.get("default/k") == (b"1", CacheStatus.HIT)
    assert node.store.reads == []
    await node.cache.write(Delete("default/k"))
    assert await node.get("default/k") == (None, CacheStatus.HIT), "an absence is cached too"


async def test_a_miss_fills(cluster: Cluster, node: Node) -> None:
    await node.set("default/k", b"1")
    cluster.server.flush()
    assert await node.get("default/k") == (b"1", CacheStatus.MISS)
    assert await node.get("default/k") == (b"1", CacheStatus.HIT)
    assert await node.get("default/absent") == (None, CacheStatus.MISS)
    assert await node.get("default/absent") == (None, CacheStatus.HIT)


async def test_reads_of_one_turn_are_one_query_and_one_load_a_key(node: Node) -> None:
    results = await asyncio.gather(
        *map(node.get, ["default/a", "default/b", "default/a", "default/a"])
    )
    assert results == [(None, CacheStatus.MISS)] * 4
    assert node.store.reads == [["default/a", "default/b"]]


async def test_bulk_reads_of_one_turn_share_one_request(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("default/a", "default/b", "default/c"):
        await node.set(key, key.encode())
    asked: list[int] = []
    get_many = node.memcache.get_many

    async def counting(
        names: Sequence[bytes], known: Sequence[bytes | None]
    ) -> Sequence[Fetched | NotFetched]:
        asked.append(len(names))
        return await get_many(names, known)

    monkeypatch.setattr(node.memcache, "get_many", counting)
    bulks = [
        ["default/a", "default/b"],
        ["default/absent"],
        ["default/b", "default/c", "default/a"],
        [],
    ]
    results = await asyncio.gather(*map(node.cache.get_many, bulks))
    values = [[found.entry and found.entry.value for found in each] for each in results]
    assert values == [
        [b"default/a", b"default/b"],
        [None],
        [b"default/b", b"default/c", b"default/a"],
        [],
    ]
    assert asked == [4]


async def test_a_bulk_read_from_the_database_does_not_delay_others(cluster: Cluster) -> None:
    node = await cluster.start()
    await node.set("default/cached", b"1")
    gate = asyncio.Event()
    node.store.after_select = gate.wait
    slow = asyncio.ensure_future(node.cache.get_many(["default/absent"]))
    while not node.store.reads:
        await asyncio.sleep(0.001)
    (found,) = await node.cache.get_many(["default/cached"])
    assert found.cache_status is CacheStatus.HIT
    assert not slow.done()
    gate.set()
    assert (await slow)[0].entry is None


async def test_a_fill_overtaken_by_a_write_is_never_valid(node: Node) -> None:
    """The classic stale set: SELECT old, commit new, store old."""
    await node.set("default/k", b"old")
    await node.memcache.set_many([(node.sealer.name("default/k"), b"", 0)])

    async def overtake() -> None:
        node.store.after_select = None
        await node.set("default/k", b"new")

    node.store.after_select = overtake
    assert await node.get("default/k") == (b"old", CacheStatus.MISS)
    # Its fill came after the write-through, and is in memcached now under the old tag.
    assert await node.get("default/k") == (b"new", CacheStatus.MISS)
    assert await node.get("default/k") == (b"new", CacheStatus.HIT)


async def test_while_a_write_is_in_flight_the_cache_is_neither_asked_nor_filled(
    node: Node,
) -> None:
    await node.set("default/k", b"1")
    tags = node.cache._authority
    assert isinstance(tags, TagFile)
    bucket = bucket_of(node.sealer.name("default/k"))
    tags.sequences[bucket] |= 1
    assert await node.get("default/k") == (b"1", CacheStatus.BYPASS)
    assert await node.get("default/k") == (b"1", CacheStatus.BYPASS)
    tags.sequences[bucket] += 1
    assert await node.get("default/k") == (b"1", CacheStatus.MISS)
    assert await node.get("default/k") == (b"1", CacheStatus.HIT)


async def test_an_authority_may_be_awaited(cluster: Cluster) -> None:
    node = await cluster.start(awaited=True)
    authority = node.cache._authority
    assert isinstance(authority, AwaitedTags)
    await node.set("default/k", b"1")
    assert await node.get("default/k") == (b"1", CacheStatus.HIT)
    await node.memcache.set_many([(node.sealer.name("default/k"), b"", 0)])
    assert await node.get("default/k") == (b"1", CacheStatus.MISS)
    found = await node.cache.get_many(["default/k", "default/none"])
    assert [each.cache_status for each in found] == [CacheStatus.HIT, CacheStatus.MISS]
    authority.file.sequences[bucket_of(node.sealer.name("default/k"))] |= 1
    assert await node.get("default/k") == (b"1", CacheStatus.BYPASS)
    assert authority.questions == 4, "one for each batch, however many keys"


@pytest.mark.parametrize("remembered", [False, True])
async def test_tags_that_arrive_after_the_items_decide(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, remembered: bool
) -> None:
    node = await cluster.start(awaited=True)
    authority = node.cache._authority
    assert isinstance(authority, AwaitedTags)
    await node.set("default/k", b"old")
    if remembered:
        assert await node.get("default/k") == (b"old", CacheStatus.HIT)
    fetched = asyncio.Event()
    answered: list[Fetched | NotFetched] = []
    get_many = node.memcache.get_many

    async def fetching(
        names: Sequence[bytes], known: Sequence[bytes | None]
    ) -> Sequence[Fetched | NotFetched]:
        items = await get_many(names, known)
        answered.extend(items)
        fetched.set()
        return items

    async def overtake() -> None:
        authority.before_answer = None
        await fetched.wait()
        await node.set("default/k", b"new")

    monkeypatch.setattr(node.memcache, "get_many", fetching)
    authority.before_answer = overtake
    assert await node.get("default/k") == (b"new", CacheStatus.MISS)
    assert (answered == [NotFetched.UNCHANGED]) == remembered


async def test_reads_fail_if_the_authority_does(cluster: Cluster) -> None:
    node = await cluster.start(awaited=True)
    authority = node.cache._authority
    assert isinstance(authority, AwaitedTags)

    async def fail() -> None:
        raise StoreUnavailable("cut off")

    await node.set("default/k", b"1")
    authority.before_answer = fail
    with pytest.raises(StoreUnavailable, match="cut off"):
        await node.get("default/k")
    authority.before_answer = None
    assert await node.get("default/k") == (b"1", CacheStatus.HIT)


async def test_a_load_is_shared_by_later_readers(node: Node) -> None:
    gate = asyncio.Event()
    node.store.after_select = gate.wait
    first = asyncio.ensure_future(node.get("default/k"))
    while not node.store.reads:
        await asyncio.sleep(0)
    late = [asyncio.ensure_future(node.get("default/k")) for _ in range(5)]
    await node.misses(6)
    gate.set()
    assert await asyncio.gather(first, *late) == [(None, CacheStatus.MISS)] * 6
    assert node.store.reads == [["default/k"]]


async def test_a_load_from_before_the_expiry_is_not_believed_after_it(
    cluster: Cluster, node: Node
) -> None:
    await node.set("default/k", b"1", expires_at=node.now + 10)
    cluster.server.flush()
    gate = asyncio.Event()
    node.store.after_select = gate.wait
    early = asyncio.ensure_future(node.get("default/k"))
    while not node.store.reads:
        await asyncio.sleep(0)
    node.now += 10
    late = [asyncio.ensure_future(node.get("default/k")) for _ in range(2)]
    bulk = asyncio.ensure_future(node.cache.get_many(["default/k"]))
    await node.misses(4)
    gate.set()
    assert await early == (b"1", CacheStatus.MISS), "it began before the expiry"
    assert await asyncio.gather(*late) == [(None, CacheStatus.MISS)] * 2
    assert [found.entry for found in await bulk] == [None]
    assert node.store.reads == [["default/k"]]


async def test_a_load_begun_before_a_write_is_not_shared_after_it(
    cluster: Cluster, node: Node
) -> None:
    await node.set("default/k", b"old")
    cluster.server.flush()
    gate = Gate()
    node.store.after_select = gate
    early = asyncio.ensure_future(node.get("default/k"))
    await gate.reached.wait()
    node.store.after_select = None
    await node.set("default/k", b"new")
    cluster.server.flush()
    late = asyncio.ensure_future(node.get("default/k"))
    assert await late == (b"new", CacheStatus.MISS)
    gate.open()
    assert await early == (b"old", CacheStatus.MISS), "it began before the write"
    assert (await node.get("default/k"))[0] == b"new"


async def test_of_one_group_only_the_last_state_of_a_key_is_cached(node: Node) -> None:
    gate = Gate()
    node.store.before_write = gate
    plug = asyncio.ensure_future(node.set("default/plug", b"0"))
    await gate.reached.wait()
    writes = [asyncio.ensure_future(node.set("default/k", b"%d" % n)) for n in range(20)]
    await asyncio.sleep(0)  # all are queued
    gate.open()
    versions = await asyncio.gather(plug, *writes)
    assert node.store.groups == [1, 20]
    assert sorted(versions) == list(versions)
    assert await node.get("default/k") == (b"19", CacheStatus.HIT)


async def test_a_set_is_not_cached_when_its_group_deletes_it_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "_PREFIX_ROWS", 1)  # or it would be a group of its own
    await asyncio.gather(
        node.cache.write(Set("default/k", b"1", JSON)), node.cache.write(DeletePrefix("default/"))
    )
    assert node.store.groups == [2]
    assert (await node.get("default/k"))[0] is None


async def test_a_set_is_not_cached_when_columns_of_its_group_replace_it(node: Node) -> None:
    columns = PlainSets(["default/k", "default/l"], [b"2", b"2"])
    await asyncio.gather(
        node.cache.write(Set("default/k", b"1", JSON)), node.cache.write_all(columns)
    )
    assert node.store.groups == [2]
    assert await node.get("default/k") == (b"2", CacheStatus.MISS)
    assert await node.get("default/l") == (b"2", CacheStatus.MISS)


async def test_a_failed_condition_does_not_touch_its_neighbours(node: Node) -> None:
    results = await asyncio.gather(
        node.set("default/a", b"1"),
        node.set("default/b", b"1", condition=Condition(versions=frozenset({99}))),
        node.set("default/c", b"1"),
        return_exceptions=True,
    )
    assert node.store.groups == [3]
    assert [type(result) for result in results] == [int, ConditionFailed, int]
    assert [(await node.get(key))[0] for key in ("default/a", "default/b", "default/c")] == [
        b"1",
        None,
        b"1",
    ]


async def test_items_that_are_not_this_keys_newest_are_misses(node: Node) -> None:
    a, b = node.sealer.name("default/a"), node.sealer.name("default/b")
    await node.set("default/a", b"1")
    old = (await contents(node.memcache, [a]))[a]
    await node.set("default/a", b"2")
    await node.set("default/b", b"3")
    good = await contents(node.memcache, [a, b])
    for lie in (old, good[b], b"", b"x" * 500, good[a][:-1], good[a] + b"\0"):
        await node.memcache.set_many([(a, lie, 0)])
        assert await node.get("default/a") == (b"2", CacheStatus.MISS)
    assert node.cache.figures[REJECTED_ITEMS] == 6
    assert await node.get("default/a") == (b"2", CacheStatus.HIT)


async def test_two_nodes_never_contradict_each_other(cluster: Cluster) -> None:
    """Random work on both nodes: a read is at least as new as all that was known before it."""
    nodes = [await cluster.start(), await cluster.start()]
    rng = random.Random(7)
    keys = [f"default/k{n}" for n in range(5)]
    seen = dict.fromkeys(keys, 0)
    stop = asyncio.get_running_loop().time() + 3

    async def write() -> None:
        while asyncio.get_running_loop().time() < stop:
            key = rng.choice(keys)
            version = await rng.choice(nodes).set(key, b"%d" % rng.randrange(1 << 30))
            seen[key] = max(seen[key], version)

    async def read() -> int:
        hits = 0
        while asyncio.get_running_loop().time() < stop:
            key = rng.choice(keys)
            floor = seen[key]
            found = await rng.choice(nodes).cache.get(key)
            version = found.entry.version if found.entry else 0
            assert version >= floor
            seen[key] = max(seen[key], version)
            hits += found.cache_status is CacheStatus.HIT
        return hits

    results = await asyncio.gather(*(write() for _ in range(2)), *(read() for _ in range(4)))
    assert sum(hits for hits in results if hits) > 100


async def test_expiry_is_checked_in_the_item(node: Node) -> None:
    await node.set("default/k", b"1", expires_at=node.now + 10)
    assert await node.get("default/k") == (b"1", CacheStatus.HIT)
    node.now += 10
    assert await node.get("default/k") == (None, CacheStatus.HIT)


async def test_sweeping_invalidates_the_cached_copy(node: Node) -> None:
    """Setting the clock back must not revive entries that are gone from the database."""
    await node.set("default/k", b"1", expires_at=node.now + 10)
    node.now += 20
    assert await node.cache.sweep() is False
    node.now -= 20
    assert await node.get("default/k") == (None, CacheStatus.MISS)


async def test_values_too_large_to_cache_are_served_from_the_database(node: Node) -> None:
    big = b'"' + b"x" * (1 << 20) + b'"'
    await node.set("default/k", b"1")
    await node.set("default/k", big)
    assert await node.get("default/k") == (big, CacheStatus.MISS)
    assert await node.get("default/k") == (big, CacheStatus.MISS)


async def test_without_memcached_everything_works(cluster: Cluster, node: Node) -> None:
    await node.set("default/k", b"1")
    cluster.server.kill()
    await node.set("default/k", b"2")
    assert (await node.get("default/k")) == (b"2", CacheStatus.BYPASS)
    assert node.cache.cache_available is False
    assert await node.get("default/absent") == (None, CacheStatus.BYPASS)


async def test_a_cancelled_writer_cancels_no_commit(node: Node) -> None:
    gate = Gate()
    node.store.before_write = gate
    write = asyncio.ensure_future(node.set("default/k", b"1"))
    await gate.reached.wait()
    write.cancel()
    gate.open()
    await node.cache.drained()
    assert (await node.get("default/k"))[0] == b"1"


async def test_a_write_that_waits_too_long_is_withdrawn(cluster: Cluster) -> None:
    node = await cluster.start(write_timeout=0.1)
    gate = asyncio.Event()
    node.store.before_write = gate.wait
    with pytest.raises(StoreUnavailable, match="nothing was written"):
        await node.set("default/k", b"1")
    gate.set()
    await node.cache.drained()
    assert (await node.get("default/k"))[0] is None


async def test_a_write_not_finished_in_time_has_an_unknown_outcome(cluster: Cluster) -> None:
    node = await cluster.start(write_timeout=3600.0)
    write = StagedStore.write
    told = asyncio.Event()

    async def slow(
        group: Sequence[PendingWrite], now: float, seqlock: Seqlock[Ticket]
    ) -> GroupResult[Ticket]:
        written = await write(node.store, group, now, seqlock)
        let_pass(3600.0)
        await told.wait()
        return written

    node.store.write = slow  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown, match="may or may not"):
        await node.set("default/k", b"1")
    told.set()
    await node.cache.drained()
    assert (await node.get("default/k"))[0] == b"1"


async def test_a_write_that_waits_only_for_memcached_succeeds(cluster: Cluster) -> None:
    node = await cluster.start(write_timeout=3600.0)

    async def slow(items: object) -> None:
        let_pass(3600.0)
        for _ in range(10):  # enough turns of the event loop for the timeout to be checked
            await asyncio.sleep(0)

    node.memcache.set_many = slow  # type: ignore[method-assign]
    await node.set("default/k", b"1")
    assert (await node.get("default/k"))[0] == b"1"


async def test_the_next_group_is_committed_while_one_is_stored_in_memcached(node: Node) -> None:
    stored = asyncio.Event()

    async def slow(items: object) -> None:
        await stored.wait()

    node.memcache.set_many = slow  # type: ignore[method-assign]
    first = node.cache.write(Set("default/a", b"1", JSON))
    while node.cache.figures[COMMITS] < 1:
        await asyncio.sleep(0)
    second = node.cache.write(Set("default/b", b"1", JSON))
    while node.cache.figures[COMMITS] < 2:
        await asyncio.sleep(0)
    assert not first.done() and not second.done()
    stored.set()
    await asyncio.gather(first, second)


async def test_a_large_group_is_cached_some_entries_at_a_time(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Working out what to store of 10,000 entries would block the event loop for 50 ms."""
    sizes: list[int] = []
    fills = WriteThrough._fills

    def counted(self: WriteThrough, states: Sequence[Any], ticket: Any) -> list[Any]:
        sizes.append(len(states))
        return fills(self, states, ticket)

    monkeypatch.setattr(WriteThrough, "_fills", counted)
    keys = [f"default/{number}" for number in range(1_000)]
    await node.cache.write(*(Set(key, b"1", JSON) for key in keys))
    assert sum(sizes) == len(keys) and max(sizes) <= 256
    found = await node.cache.get_many(keys[:256])
    assert {each.cache_status for each in found} == {CacheStatus.HIT}


async def test_all_items_of_a_group_are_sent_to_memcached_at_once(node: Node) -> None:
    under_way = 0
    all_at_once = asyncio.Event()

    async def slow(items: object) -> None:
        nonlocal under_way
        under_way += 1
        if under_way == 2:
            all_at_once.set()
        await all_at_once.wait()

    node.memcache.set_many = slow  # type: ignore[method-assign]
    large = node.cache.write(*(Set(f"default/{n}", b"1", JSON) for n in range(500)))
    small = node.cache.write(Set("default/k", b"1", JSON))
    async with asyncio.timeout(20):
        await asyncio.gather(large, small)
    assert node.store.groups == [2]


@pytest.mark.parametrize("count", [1, 20])
async def test_large_values_are_sealed_and_opened_beside_the_event_loop(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    node = await cluster.start(max_item_bytes=2 << 20)
    loop_thread = threading.get_ident()
    hashed: dict[bool, int] = {
        True: 0,
        False: 0,
    }  # bytes, by whether the event loop's thread did it
    seal, unseal = ItemSealer.seal, ItemSealer.unseal

    def encoded(self: ItemSealer, name: bytes, tag: Tag, entry: Entry | None) -> bytes:
        item = seal(self, name, tag, entry)
        hashed[threading.get_ident() == loop_thread] += len(item)
        return item

    def decoded(self: ItemSealer, data: bytes, slot: Slot, tag: Tag) -> Lookup | Verdict:
        hashed[threading.get_ident() == loop_thread] += len(data)
        return unseal(self, data, slot, tag)

    monkeypatch.setattr(ItemSealer, "seal", encoded)
    monkeypatch.setattr(ItemSealer, "unseal", decoded)
    size = 20 * 50_000 // count + 65_536
    changes = [Set(f"default/{number}", bytes(size), OCTETS) for number in range(count)]
    await node.cache.write(*changes)
    found = await node.cache.get_many([*(change.key for change in changes), "default/none"])
    assert [each.cache_status for each in found] == [CacheStatus.HIT] * count + [CacheStatus.MISS]
    assert all(each.entry is not None and each.entry.value == bytes(size) for each in found[:-1])
    assert hashed[False] + hashed[True] > 2 * count * size
    assert hashed[True] <= HEAVY_BYTES, "no more than what makes it worth while"


async def test_large_values_that_are_remembered_are_opened_once(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await cluster.start()
    unsealed: list[str] = []
    unseal = ItemSealer.unseal

    def noted(self: ItemSealer, data: bytes, slot: Slot, tag: Tag) -> Lookup | Verdict:
        unsealed.append(slot.key)
        return unseal(self, data, slot, tag)

    monkeypatch.setattr(ItemSealer, "unseal", noted)
    changes = [Set(f"default/{number}", b"%d" % number * 25_000, OCTETS) for number in range(30)]
    keys = [change.key for change in changes]
    await node.cache.write(*changes)
    for _ in range(2):
        found = await node.cache.get_many(keys)
        assert [each.entry and each.entry.value for each in found] == [c.value for c in changes]
        assert {each.cache_status for each in found} == {CacheStatus.HIT}
    assert sorted(unsealed) == sorted(keys)
    await node.cache.write(Set(keys[7], b"new", OCTETS))
    found = await node.cache.get_many(keys)
    assert found[7].entry is not None and found[7].entry.value == b"new"
    assert unsealed[len(keys) :] == [keys[7]]


async def test_values_above_the_cache_limit_are_read_from_the_database(cluster: Cluster) -> None:
    node = await cluster.start(max_item_bytes=64 << 20)
    await node.cache.write(Set("default/k", bytes(CACHED_BYTES + 1), OCTETS))
    for _ in range(2):
        found = await node.cache.get("default/k")
        assert found.entry is not None and len(found.entry.value) == CACHED_BYTES + 1
        assert found.cache_status is CacheStatus.MISS
    assert node.cache.figures[CACHE_FAILURES[CacheFailure.CONNECTION]] == 0


async def test_failures_to_store_a_large_write_are_counted(node: Node) -> None:
    async def fail_to_store(items: Sequence[Item]) -> None:
        raise CacheUnavailable("cut off", CacheFailure.CONNECTION)

    node.memcache.set_many = fail_to_store  # type: ignore[method-assign]
    await node.cache.write(*(Set(f"default/{n}", b"1", JSON) for n in range(1000)))
    assert node.cache.figures[CACHE_FAILURES[CacheFailure.CONNECTION]] == 4


async def test_a_failed_condition_does_not_keep_its_groups_values_alive(node: Node) -> None:
    class Kind(str):
        """A content type that allows weak references, and lives exactly as long as its value."""

    gc.disable()  # a value that only the garbage collector would free counts as kept
    try:
        kind = Kind(JSON)
        kept = weakref.ref(kind)
        results = await asyncio.gather(
            node.cache.write(Set("default/a", b"1", kind)),
            node.cache.write(Delete("default/b", Condition(versions=frozenset({99})))),
            return_exceptions=True,
        )
        assert node.store.groups == [2]
        assert isinstance(results[1], ConditionFailed)
        del kind, results
        await node.cache.write(Delete("default/c"))
        await node.cache.drained()
        assert kept() is None
    finally:
        gc.enable()


async def test_too_many_waiting_writes_are_refused(cluster: Cluster) -> None:
    node = await cluster.start(max_queue=3)
    gate = Gate()
    node.store.before_write = gate
    first = asyncio.ensure_future(node.set("default/k", b"1"))
    await gate.reached.wait()
    waiting = [asyncio.ensure_future(node.set("default/k", b"1")) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await node.set("default/k", b"1")
    gate.open()
    await asyncio.gather(first, *waiting)


def bulk(name: str, count: int = 10_000) -> list[Set]:
    return [Set(f"default/{name}/{n}", b"1", JSON) for n in range(count)]


async def test_a_small_write_waits_for_one_large_group_at_most(cluster: Cluster) -> None:
    node = await cluster.start()
    gate = asyncio.Event()
    node.store.before_write = gate.wait
    writes = [node.cache.write(*bulk(f"{number}")) for number in range(4)]
    await asyncio.sleep(0)  # the first is in flight
    writes += [node.cache.write(Set(f"default/{number}", b"1", JSON)) for number in range(600)]
    gate.set()
    await asyncio.gather(*writes)
    # First the large one in flight, then all small ones, then the other large ones.
    assert node.store.groups == [1, 256, 256, 88, 1, 1, 1]


async def test_large_writes_are_not_starved_by_small_ones(node: Node) -> None:
    async def keep_writing() -> None:
        while not large.done():
            await node.cache.write(Set("default/k", b"1", JSON))

    large = asyncio.gather(*(node.cache.write(*bulk(f"{number}", 600)) for number in range(5)))
    small = [asyncio.create_task(keep_writing()) for _ in range(20)]
    async with asyncio.timeout(30):
        await large
    await asyncio.gather(*small)


async def test_waiting_writes_hold_a_bounded_amount_of_memory(cluster: Cluster) -> None:
    node = await cluster.start()
    gate = asyncio.Event()
    node.store.before_write = gate.wait
    writes = []
    held = 0
    changes = bulk("same")
    for _ in range(110):
        writes.append(node.cache.write(*changes))
        await asyncio.sleep(0)
        held = max(held, node.cache.queued_bytes)
    refused = [write for write in writes if write.done()]
    if held > QUEUE_BYTES:
        gate.set()  # or closing would wait forever
    assert held <= QUEUE_BYTES
    assert 50 < len(refused) < 110
    assert {type(write.exception()) for write in refused} == {Overloaded}
    with pytest.raises(Overloaded):
        node.cache.check_room("default/", len(changes))
    node.cache.check_room("default/", 1)
    small = node.cache.write(Set("default/k", b"1", JSON))  # for which there is still room
    await asyncio.sleep(0)
    assert not small.done()
    gate.set()
    await small
    assert len(node.store.groups) <= 3, "the one under way, perhaps one more, and its own"
    for write in writes:
        if write not in refused:
            write.cancel()
    await node.cache.drained()


async def test_small_writes_with_large_values_are_refused_by_their_bytes(cluster: Cluster) -> None:
    node = await cluster.start(max_queue_bytes=10 << 20)
    gate = asyncio.Event()
    node.store.before_write = gate.wait
    writes = []
    for number in range(16):
        writes.append(node.cache.write(Set(f"default/{number}", bytes(1 << 20), OCTETS)))
        await asyncio.sleep(0)
    done = [write.done() for write in writes]
    # The first of its kind may be larger than the queue.
    huge = node.cache.write(Set("default/huge", bytes(11 << 20), OCTETS))
    refused = huge.done()
    gate.set()
    assert done == [False] * 10 + [True] * 6
    assert not refused
    await asyncio.gather(huge, *writes[:10])
    for write in writes[10:]:
        assert isinstance(write.exception(), Overloaded)


async def test_readers_that_joined_a_load_get_its_failure(node: Node) -> None:
    gate = asyncio.Event()

    async def fail() -> None:
        await gate.wait()
        raise StoreUnavailable("default/gone")

    node.store.after_select = fail
    first = asyncio.ensure_future(node.get("default/k"))
    while not node.store.reads:
        await asyncio.sleep(0)
    late = asyncio.ensure_future(node.get("default/k"))
    await node.misses(2)
    gate.set()
    for read in (first, late):
        with pytest.raises(StoreUnavailable):
            await read
    node.store.after_select = None
    assert await node.get("default/k") == (None, CacheStatus.MISS)


async def test_a_cancelled_bulk_read_leaves_no_caller_waiting(node: Node) -> None:
    gate = asyncio.Event()
    node.store.after_select = gate.wait
    bulk = asyncio.ensure_future(node.cache.get_many(["default/k"]))
    while not node.store.reads:
        await asyncio.sleep(0)
    joined = asyncio.ensure_future(node.get("default/k"))
    await node.misses(2)
    bulk.cancel()
    gate.set()
    assert await joined == (None, CacheStatus.MISS)


async def test_the_cache_failing_in_mid_batch_is_a_bypass(node: Node) -> None:
    async def fail(
        names: Sequence[bytes], known: Sequence[bytes | None]
    ) -> Sequence[Fetched | NotFetched]:
        raise CacheUnavailable("cut off", CacheFailure.CONNECTION)

    async def fail_to_store(items: Sequence[Item]) -> None:
        raise CacheUnavailable("cut off", CacheFailure.CONNECTION)

    node.memcache.get_many = fail  # type: ignore[method-assign]
    node.memcache.set_many = fail_to_store  # type: ignore[method-assign]
    await node.set("default/k", b"1")
    assert await node.get("default/k") == (b"1", CacheStatus.BYPASS)
    assert node.cache.figures[CACHE_FAILURES[CacheFailure.CONNECTION]] == 2


async def test_a_listing_is_complete_and_in_byte_order(node: Node) -> None:
    keys = [f"default/{n:04}" for n in range(600)]
    keys += ["default/é", "default/z", "default/\U0001f600", "default/Z"]
    await node.cache.write(*(Set(key, b"1", JSON) for key in keys))
    pieces = [piece async for piece, _ in node.cache.scan(KeyRange())]
    assert [entry.key for piece in pieces for entry in piece] == sorted(keys, key=str.encode)
    assert len(pieces) > 2
    later = KeyRange("default/0").after(Place("default/0007"))
    limited = [piece async for piece, _ in node.cache.scan(later, limit=300)]
    assert [entry.key for piece in limited for entry in piece] == keys[8:308]


async def test_hits_never_wait_for_loads(cluster: Cluster) -> None:
    node = await cluster.start(read_timeout=2.0)
    await node.set("default/cached", b"1")
    gate = asyncio.Event()
    node.store.after_select = gate.wait
    misses = []
    for n in range(20):
        misses.append(asyncio.ensure_future(node.get(f"default/absent {n}")))
        assert await node.get("default/cached") == (b"1", CacheStatus.HIT)
        assert (await node.cache.get_many(["default/cached"]))[0].cache_status is CacheStatus.HIT
    for miss in misses:
        with pytest.raises(StoreUnavailable, match="in time"):
            await miss
    assert await node.get("default/cached") == (b"1", CacheStatus.HIT)
    gate.set()
    node.store.after_select = None
    assert await node.get("default/absent") == (None, CacheStatus.MISS)
