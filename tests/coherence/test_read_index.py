"""The policy over a shared database: questions, terms, clocks and staged races.

memcached is the worst one possible: a test can have it answer with any item it was ever given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Any, Final

import pytest

from tenantbase.coherence.authority import Tag
from tenantbase.coherence.policy import Cache
from tenantbase.coherence.read_index import ReadIndex
from tenantbase.coherence.shared import shared_cache
from tenantbase.commands import Delete, DeletePrefix, Set
from tenantbase.entry import JSON
from tenantbase.errors import StoreUnavailable
from tenantbase.figures import (
    HITS,
    MISSES,
    QUESTION_READS,
    REJECTED_ITEMS,
    SECOND,
    STALE_HITS,
    STORE_CONFIRMED_AT,
    STORE_POSITION,
    STORE_TERM,
    private_cells,
)
from tenantbase.interfaces.cache import Answer, NotFetched
from tenantbase.lookup import CacheStatus
from tests.coherence.questions import ABSENT, CHANGED, LOST, SENT, UNCHANGED, Questions
from tests.fake_cluster import TERM_GAP, FakeCluster, FakeSharedStore
from tests.ring import Ring
from tests.servers import poll_async

HIT: Final = CacheStatus.HIT
MISS: Final = CacheStatus.MISS
STALE: Final = CacheStatus.STALE
K: Final = "default/k"


class Node:
    """One node: a connection to the database, and the policy."""

    def __init__(self, cluster: FakeCluster, ring: Ring) -> None:
        self.store = FakeSharedStore(cluster)
        self.ring = ring
        self.figures = private_cells()
        self.cache: Cache = shared_cache(self.store, ring, figures=self.figures, read_timeout=5.0)
        index = self.cache._authority
        assert isinstance(index, ReadIndex)
        self.index = index

    async def set(self, value: bytes, key: str = K, **more: Any) -> int:
        (applied,) = await self.cache.write(Set(key, value, JSON, **more))
        assert applied.entry is not None
        return applied.entry.version

    async def get(
        self, key: str = K, max_stale: float | None = None
    ) -> tuple[bytes | None, CacheStatus]:
        found = await self.cache.get(key, max_stale)
        return None if found.entry is None else found.entry.value, found.cache_status


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def ring() -> Ring:
    return Ring()


@pytest.fixture
def node(cluster: FakeCluster, ring: Ring) -> Node:
    return Node(cluster, ring)


@pytest.fixture
def other(cluster: FakeCluster, ring: Ring) -> Node:
    return Node(cluster, ring)


class Gate:
    """Holds what waits for it, once.

    Attributes:
        reached: something waits.
    """

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._open = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self._open.wait()

    def open(self) -> None:
        self._open.set()


# Questions


async def test_write_of_another_node_is_found_in_memcached(node: Node, other: Node) -> None:
    await node.set(b"1")
    assert await other.get() == (b"1", HIT)
    await other.cache.write(Delete(K))
    assert await node.get() == (None, HIT)
    assert node.store.selected == other.store.selected == []


async def test_old_item_is_a_miss(node: Node, other: Node, ring: Ring) -> None:
    await node.set(b"1")
    await node.set(b"2")
    ring.age = 1
    assert await node.get() == (b"2", MISS)
    ring.age = 2  # the fill is the newest
    assert await other.get() == (b"2", MISS)


async def test_reads_of_one_turn_are_one_question(node: Node) -> None:
    await node.set(b"1")
    bulk = node.cache.get_many([K, "default/a", "default/b"])
    await asyncio.gather(bulk, *(node.get(key) for key in (K, "default/c", "default/d")))
    assert len(node.store.asked) == 1
    assert node.figures[QUESTION_READS] == 6


async def test_read_that_begins_during_a_question_waits_for_the_next(
    node: Node, other: Node
) -> None:
    await node.set(b"old")
    gates = [Gate() for _ in range(9)]
    waiting = iter(gates)
    node.store.after_ask = lambda: next(waiting)()
    early = asyncio.ensure_future(node.get())
    await gates[0].reached.wait()
    await other.set(b"new")
    late = asyncio.ensure_future(node.get())
    await gates[1].reached.wait()
    gates[0].open()
    assert await early == (b"old", HIT), "it began before the write"
    assert not late.done(), "the first answer is older than this read"
    gates[1].open()
    assert await late == (b"new", HIT)


async def test_few_questions_are_in_flight_at_once(node: Node) -> None:
    await node.set(b"1")
    gate = Gate()
    node.store.after_ask = gate
    reads = []
    for _ in range(6):
        reads.append(asyncio.ensure_future(node.get()))
        for _ in range(20):
            await asyncio.sleep(0)
    assert len(node.store.asked) == 2
    gate.open()
    assert await asyncio.gather(*reads) == [(b"1", HIT)] * 6
    assert len(node.store.asked) == 3


async def test_memcached_is_asked_beside_the_database(node: Node, ring: Ring) -> None:
    await node.set(b"1")
    asked, fetched = Gate(), Gate()
    node.store.after_ask, ring.before_answer = asked, fetched
    read = asyncio.ensure_future(node.get())
    await asked.reached.wait()
    await fetched.reached.wait()
    fetched.open()
    asked.open()
    assert await read == (b"1", HIT)


@pytest.mark.parametrize("remembered", [False, True])
async def test_item_is_judged_by_the_answer_however_early_it_came(
    node: Node, other: Node, remembered: bool
) -> None:
    await node.set(b"old")
    if remembered:
        assert await node.get() == (b"old", HIT)
    gate = Gate()
    node.store.before_ask = gate
    read = asyncio.ensure_future(node.get())
    await gate.reached.wait()
    await asyncio.sleep(0)
    await other.set(b"new")
    gate.open()
    assert (await read)[0] == b"new"


async def test_database_that_does_not_answer_fails_reads(node: Node) -> None:
    await node.set(b"1")
    node.store.read_error = StoreUnavailable("cut off")
    with pytest.raises(StoreUnavailable, match="cut off"):
        await node.get()
    with pytest.raises(StoreUnavailable, match="cut off"):
        await node.cache.get_many([K])
    node.store.read_error = None
    assert await node.get() == (b"1", HIT)


async def test_question_that_takes_too_long_fails_its_reads(
    cluster: FakeCluster, ring: Ring
) -> None:
    store, gate = FakeSharedStore(cluster), Gate()
    cache = shared_cache(store, ring, read_timeout=0.05)
    store.after_ask = gate
    with pytest.raises(StoreUnavailable, match="in time"):
        await cache.get(K)
    gate.open()
    await cache.drained()


async def test_failed_question_leaves_no_request_to_memcached_behind(
    node: Node, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = False

    async def get_many(names: Sequence[bytes], known: Sequence[bytes | None]) -> Sequence[Answer]:
        nonlocal ended
        for _ in range(50):  # turns of the event loop, in which the question fails
            await asyncio.sleep(0)
        ended = True
        return [NotFetched.ABSENT] * len(names)

    async def refuse() -> None:
        raise StoreUnavailable("there is no primary")

    monkeypatch.setattr(ring, "get_many", get_many)
    node.store.after_ask = refuse
    with pytest.raises(StoreUnavailable, match="no primary"):
        await node.get()
    assert ended


async def test_memcached_that_fails_is_bypassed(node: Node, ring: Ring) -> None:
    await node.set(b"1")
    ring.failing = True
    assert await node.get() == (b"1", CacheStatus.BYPASS)


async def test_many_commits_are_read_page_by_page(
    cluster: FakeCluster, node: Node, other: Node, ring: Ring
) -> None:
    cluster.page = 3
    for at in range(10):
        await other.set(b"%d" % at, f"default/{at}")
    await other.set(b"new", "default/9")
    ring.age = 1
    assert await node.get("default/9") == (b"new", MISS)
    assert await node.get("default/0") == (b"0", MISS)
    assert len(node.store.asked) == 4 + 1


async def test_node_far_behind_drops_its_older_copies(
    cluster: FakeCluster, node: Node, other: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenantbase.coherence.read_index._PAGES", 2)
    cluster.page = 3
    for at in range(10):
        await other.set(b"%d" % at, f"default/{at}")
    assert await node.get("default/0") == (b"0", MISS), "its copy is older than the floor"
    assert await node.get("default/9") == (b"9", HIT)
    assert len(node.store.asked) == 3
    assert node.cache.commits == cluster.position


# Nodes, trims and terms


async def test_node_that_starts_uses_what_it_can_prove(
    cluster: FakeCluster, node: Node, ring: Ring
) -> None:
    for key in ("default/old", "default/trimmed", K):
        await node.set(b"1", key)
    cluster.trim(kept=1)
    await node.set(b"1", "default/new")
    late = Node(cluster, ring)
    assert await late.get("default/old") == (b"1", MISS), "it may have changed since"
    assert await late.get() == (b"1", HIT)
    assert await late.get("default/new") == (b"1", HIT)


async def test_failover_leaves_the_cache_warm(
    cluster: FakeCluster, node: Node, other: Node
) -> None:
    await node.set(b"1")
    assert await node.get() == (b"1", HIT)
    cluster.fail_over()
    assert await node.get() == (b"1", HIT)
    assert await other.get() == (b"1", HIT), "nor must a node have known the term before"
    await other.set(b"2")
    assert await node.get() == (b"2", HIT)
    assert node.store.selected == []
    assert node.figures[STORE_TERM] == 2
    assert node.figures[STORE_POSITION] == cluster.position


async def test_lost_write_is_never_found_again(
    cluster: FakeCluster, node: Node, other: Node
) -> None:
    await node.set(b"kept")
    assert await other.get() == (b"kept", HIT)
    await node.set(b"lost")
    assert await node.get() == (b"lost", HIT)
    cluster.fail_over(lose=1)
    assert await node.get() == (b"kept", MISS)
    assert await other.get() == (b"kept", HIT), "the fill is of the new term"
    await other.set(b"new", "default/x")
    assert await node.get("default/x") == (b"new", HIT)


async def test_answer_from_before_a_failover_is_asked_for_again(
    cluster: FakeCluster, node: Node, other: Node
) -> None:
    await node.set(b"kept")
    await node.set(b"lost")
    gate = Gate()
    node.store.after_ask = gate
    early = asyncio.ensure_future(node.get("default/x"))
    await gate.reached.wait()
    node.store.after_ask = Gate()
    node.store.after_ask.open()
    cluster.fail_over(lose=1)
    assert (await node.get())[0] == b"kept"
    gate.open()
    assert (await early)[0] is None
    assert node.cache.commits == cluster.position
    assert (await node.get())[0] == b"kept"


# Loads and fills


async def test_fill_overtaken_by_a_write_is_never_valid(node: Node, other: Node) -> None:
    """SELECT old, commit new, question, store old."""
    await node.set(b"old")
    node.store.cluster.trim()
    gate = Gate()
    fresh = Node(node.store.cluster, Ring())
    fresh.store.after_select = gate
    read = asyncio.ensure_future(fresh.get())
    await gate.reached.wait()
    await other.set(b"new")
    await asyncio.gather(fresh.index.poll())
    gate.open()
    assert await read == (b"old", MISS), "it began before the write"
    fresh.store.after_select = Gate()
    fresh.store.after_select.open()
    assert await fresh.get() == (b"new", MISS)
    assert await fresh.get() == (b"new", HIT)


async def test_fill_goes_under_the_position_of_its_snapshot(
    node: Node, other: Node, ring: Ring
) -> None:
    """A change that the question did not show, but the SELECT did, does not make the fill invalid."""
    await node.get("default/x")
    gate = Gate()
    node.store.after_ask = gate
    read = asyncio.ensure_future(node.get())
    await gate.reached.wait()
    await other.set(b"1")
    ring.given.clear()
    gate.open()
    assert await read == (b"1", MISS)
    assert await node.get() == (b"1", HIT)


async def test_load_is_shared_within_a_question_only(node: Node, other: Node) -> None:
    gate = Gate()
    node.store.after_select = gate
    first = [asyncio.ensure_future(node.get()), asyncio.ensure_future(node.cache.get_many([K]))]
    await gate.reached.wait()
    late = asyncio.ensure_future(node.get())
    await poll_async(lambda: len(node.store.selected) == 2, "another load begins")
    gate.open()
    await asyncio.gather(*first, late)
    assert node.store.selected == [[K], [K]]


async def test_only_the_last_state_of_a_group_is_cached(node: Node, ring: Ring) -> None:
    gate = Gate()
    node.store.before_commit = gate
    plug = asyncio.ensure_future(node.set(b"0", "default/plug"))
    await gate.reached.wait()
    writes = [asyncio.ensure_future(node.set(b"%d" % at)) for at in range(5)]
    gate.open()
    await asyncio.gather(plug, *writes)
    assert len(ring.given) == 2
    assert sum(map(len, ring.given.values())) == 2
    assert await node.get() == (b"4", HIT)


async def test_write_is_published_under_its_own_position(
    cluster: FakeCluster, node: Node, other: Node
) -> None:
    gate = Gate()
    node.store.after_commit = gate
    write = asyncio.ensure_future(node.set(b"1"))
    await gate.reached.wait()
    await other.set(b"2")
    await node.index.poll()
    gate.open()
    await write
    assert await node.get() == (b"2", MISS), "memcached has the first value last"


async def test_large_prefix_changes_every_bucket(node: Node, other: Node) -> None:
    for at in range(3):
        await node.set(b"1", f"default/p/{at}")
    await node.set(b"1")
    node.store._one_by_one = 2
    await node.cache.write(DeletePrefix("default/p/"))
    assert await other.get("default/p/0") == (None, MISS)
    assert await other.get() == (b"1", MISS)
    assert await other.get() == (b"1", HIT)


# Remembered items


async def remember(node: Node, value: bytes) -> Questions:
    """Write the key, and read it until it is remembered. Returns: what memcached is asked from now on."""
    await node.set(value)
    assert await node.get() == (value, HIT)
    questions = Questions(node.ring)
    assert await node.get() == (value, HIT)
    assert questions.taken() == [UNCHANGED]
    return questions


async def test_unchanged_item_is_not_sent_again(node: Node) -> None:
    questions = await remember(node, b"1")
    asked = len(node.store.asked)
    first = await node.cache.get(K)
    assert (await node.cache.get_many([K, K])) == [first, first]
    assert len(node.store.asked) == asked + 2, "the database is asked as before"
    assert await node.get("default/absent") == (None, MISS)
    for _ in range(2):
        assert await node.get("default/absent") == (None, HIT)
    assert questions.taken() == [UNCHANGED, UNCHANGED, ABSENT, SENT, UNCHANGED]
    assert node.store.selected == [["default/absent"]]


async def test_write_of_another_node_replaces_what_is_remembered(node: Node, other: Node) -> None:
    questions = await remember(node, b"1")
    await other.set(b"2")
    assert await node.get() == (b"2", HIT)
    assert await node.get() == (b"2", HIT)
    await other.cache.write(Delete(K))
    assert await node.get() == (None, HIT)
    assert questions.taken() == [CHANGED, UNCHANGED, CHANGED]
    assert node.store.selected == []


async def test_remembered_item_of_a_changed_bucket_is_a_miss(
    cluster: FakeCluster, node: Node, ring: Ring
) -> None:
    """The writer does not reach this memcached, which has the old item, unchanged."""
    questions = await remember(node, b"old")
    far = Node(cluster, Ring())
    await far.set(b"new")
    assert await node.get() == (b"new", MISS)
    assert questions.taken() == [UNCHANGED]
    assert node.figures[REJECTED_ITEMS] == 1
    assert await node.get() == (b"new", HIT)
    assert await node.get() == (b"new", HIT)
    assert questions.taken() == [SENT, UNCHANGED], "what was outdated is forgotten"
    await far.cache.write(Delete(K))
    bulk = await node.cache.get_many([K, "default/x", K])
    assert [each.entry for each in bulk] == [None] * 3
    assert {each.cache_status for each in bulk} == {MISS}


async def test_remembered_item_is_no_longer_valid_if_another_key_of_its_bucket_changes(
    cluster: FakeCluster, node: Node
) -> None:
    sealer = node.cache._reading._sealer
    bucket = sealer.bucket(K)
    numbers = (f"default/{number}" for number in count())
    neighbour = next(key for key in numbers if sealer.bucket(key) == bucket)
    questions = await remember(node, b"1")
    await Node(cluster, node.ring).set(b"2", neighbour)
    assert await node.get() == (b"1", MISS)
    assert await node.get() == (b"1", HIT)
    assert await node.get() == (b"1", HIT)
    assert questions.taken() == [UNCHANGED, SENT, UNCHANGED]


async def test_remembered_item_survives_a_failover_with_one_verdict(
    cluster: FakeCluster, node: Node, other: Node
) -> None:
    questions = await remember(node, b"1")
    sealer = node.cache._reading._sealer
    accepts, verdicts = sealer._accepts, list[tuple[Tag, Tag]]()

    def noted(sealed_under: Tag, current: Tag) -> bool:
        verdicts.append((sealed_under, current))
        return accepts(sealed_under, current)

    sealer._accepts = noted
    sealed_under = cluster.terms[0].epoch, cluster.position
    for terms in range(1, 4):
        cluster.fail_over()
        for _ in range(3):
            assert await node.get() == (b"1", HIT)
        assert len(verdicts) == terms, "one for each tag"
        assert verdicts[-1] == (sealed_under, (cluster.terms[0].epoch, sealed_under[1]))
    assert questions.taken() == [UNCHANGED] * 9
    await other.set(b"2")
    assert await node.get() == (b"2", HIT)
    assert node.store.selected == []


async def test_remembered_item_that_a_failover_lost_does_not_count(
    cluster: FakeCluster, node: Node
) -> None:
    await node.set(b"kept")
    questions = await remember(node, b"lost")
    cluster.fail_over(lose=1)
    assert await node.get() == (b"kept", MISS)
    assert questions.taken() == [UNCHANGED]
    assert node.figures[REJECTED_ITEMS] == 1
    assert await node.get() == (b"kept", HIT)


async def test_remembered_item_older_than_the_floor_does_not_count(
    cluster: FakeCluster, node: Node, other: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node was asleep, and cannot know any more what has changed."""
    questions = await remember(node, b"1")
    for _ in range(3):
        await other.set(b"1", "default/x")
    cluster.trim()
    assert await node.get() == (b"1", MISS)
    assert await node.get() == (b"1", HIT)
    assert questions.taken() == [UNCHANGED, SENT]


async def test_only_memcached_makes_a_hit(node: Node, ring: Ring) -> None:
    questions = await remember(node, b"1")
    ring.given.clear()
    assert await node.get() == (b"1", MISS)
    assert questions.taken() == [LOST]
    assert await node.get() == (b"1", HIT)
    ring.failing = True
    assert await node.get() == (b"1", CacheStatus.BYPASS)
    assert node.store.selected == [[K], [K]]


async def test_remembered_entry_expires_by_the_databases_time(
    cluster: FakeCluster, node: Node
) -> None:
    await node.set(b"1", expires_at=cluster.now + 10)
    questions = Questions(node.ring)
    for _ in range(2):
        assert await node.get() == (b"1", HIT)
    cluster.now += 10
    for _ in range(2):
        assert await node.get() == (None, HIT)
    assert questions.taken() == [SENT, *[UNCHANGED] * 3]
    assert node.store.selected == []


# Time


async def test_expiry_is_judged_by_the_databases_time(
    cluster: FakeCluster, node: Node, other: Node
) -> None:
    await node.set(b"1", expires_at=cluster.now + 10)
    assert await other.get() == (b"1", HIT)
    cluster.now += 10
    assert await other.get() == (None, HIT)
    assert await node.get() == (None, HIT)


async def test_loads_write_and_list_by_the_databases_time(
    cluster: FakeCluster, node: Node, ring: Ring
) -> None:
    """Its clock is years away from the node's."""
    await node.get()
    await node.set(b"1", expires_at=cluster.now + 10)
    ring.given.clear()
    assert await node.get() == (b"1", MISS)
    assert node.cache.now() == pytest.approx(cluster.now, abs=60)
    cluster.now += 10
    ring.given.clear()
    assert await node.get() == (None, MISS)


async def test_time_goes_on_between_answers(cluster: FakeCluster) -> None:
    seconds = 5.0
    index = ReadIndex(FakeSharedStore(cluster).ask, monotonic=lambda: seconds)
    await index.poll()
    assert index.now() == cluster.now
    seconds += 2.5
    assert index.now() == cluster.now + 2.5
    remembered = index.remembered([0], 10.0)
    assert remembered is not None and remembered.now == cluster.now + 2.5


async def test_what_is_remembered_names_its_question(cluster: FakeCluster) -> None:
    """Its number tells which reads may share a load."""
    index = ReadIndex(FakeSharedStore(cluster).ask)
    numbers = []
    for _ in range(2):
        answered = await index.tags([0])
        remembered = index.remembered([0], 60.0)
        assert remembered is not None
        assert remembered.question == answered.question
        numbers.append(answered.question)
    assert numbers == sorted(set(numbers)) and 0 not in numbers


async def test_the_age_shown_counts_from_before_the_question(cluster: FakeCluster) -> None:
    seconds, figures = 5.0, private_cells()
    store = FakeSharedStore(cluster)

    async def take_two_seconds() -> None:
        nonlocal seconds
        seconds += 2

    store.after_ask = take_two_seconds
    await ReadIndex(store.ask, figures=figures, monotonic=lambda: seconds).poll()
    assert figures[STORE_CONFIRMED_AT] == 5 * SECOND


async def test_an_index_is_drained_when_its_questions_are_answered(cluster: FakeCluster) -> None:
    store, gate = FakeSharedStore(cluster), Gate()
    store.after_ask = gate
    index = ReadIndex(store.ask)
    asking = index.tags([0])
    await gate.reached.wait()
    draining = asyncio.ensure_future(index.drained())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not draining.done()
    gate.open()
    await draining
    assert asking.done()


# Stale reads


class Aging:
    """A node whose clock the test moves."""

    def __init__(self, node: Node) -> None:
        self.seconds = 1_000.0
        node.index._monotonic = lambda: self.seconds


async def test_stale_read_asks_nothing_while_the_index_is_recent(node: Node, other: Node) -> None:
    time = Aging(node)
    await node.set(b"1")
    assert await node.get(max_stale=10) == (b"1", HIT), "nothing was ever confirmed"
    asked = len(node.store.asked)
    time.seconds += 10
    assert await node.get(max_stale=10) == (b"1", STALE)
    assert [each.cache_status for each in await node.cache.get_many([K, K], max_stale=10)] == [
        STALE,
        STALE,
    ]
    assert len(node.store.asked) == asked
    assert node.figures[STALE_HITS] == 3
    assert node.figures[HITS] == 1
    assert await node.get(max_stale=9) == (b"1", HIT)
    assert len(node.store.asked) == asked + 1


async def test_stale_read_is_answered_without_a_primary(node: Node) -> None:
    Aging(node)
    await node.set(b"1")
    await node.get()
    node.store.read_error = StoreUnavailable("no primary")
    assert await node.get(max_stale=5) == (b"1", STALE)
    with pytest.raises(StoreUnavailable):
        await node.get("default/absent", max_stale=5)
    with pytest.raises(StoreUnavailable):
        await node.get()


async def test_stale_read_may_miss_the_latest_write_of_another(
    node: Node, other: Node, ring: Ring
) -> None:
    Aging(node)
    await node.set(b"old")
    await node.get()
    await other.set(b"new")
    ring.age = 1
    assert await node.get(max_stale=60) == (b"old", STALE)
    assert await node.get() == (b"new", MISS)
    ring.age = 2  # after the fill
    assert (await node.get(max_stale=60))[0] == b"new", "the index has moved on"


async def test_age_counts_from_before_the_question(node: Node) -> None:
    time = Aging(node)
    await node.set(b"1")

    async def take_five_seconds() -> None:
        time.seconds += 5

    node.store.after_ask = take_five_seconds
    await node.get()
    assert (await node.get(max_stale=5))[1] is STALE
    assert (await node.get(max_stale=4))[1] is HIT


async def test_late_answer_does_not_make_the_index_older(node: Node) -> None:
    time = Aging(node)
    await node.set(b"1")
    slow = Gate()
    node.store.after_ask = slow
    early = asyncio.ensure_future(node.get())
    await slow.reached.wait()
    node.store.after_ask = Gate()
    node.store.after_ask.open()
    time.seconds += 5
    await node.get()
    slow.open()
    await early
    assert (await node.get(max_stale=1))[1] is STALE


async def test_stale_read_that_misses_is_loaded(node: Node, ring: Ring) -> None:
    Aging(node)
    await node.set(b"1")
    await node.get()
    ring.given.clear()
    assert await node.get(max_stale=5) == (b"1", MISS)
    assert node.figures[MISSES] == 1


async def test_stale_read_uses_what_is_remembered(node: Node) -> None:
    Aging(node)
    questions = await remember(node, b"1")
    fresh = await node.cache.get(K)
    asked = len(node.store.asked)
    assert await node.get(max_stale=60) == (b"1", STALE)
    bulk = await node.cache.get_many([K, "default/absent", K], max_stale=60)
    assert [each.entry and each.entry.value for each in bulk] == [b"1", None, b"1"]
    assert [each.cache_status for each in bulk] == [STALE, MISS, STALE]
    assert questions.taken() == [UNCHANGED, UNCHANGED, UNCHANGED, ABSENT]
    assert len(node.store.asked) == asked
    assert (await node.cache.get(K)) is fresh and fresh.cache_status is HIT


async def test_stale_read_judges_what_is_remembered_by_the_remembered_tags(
    cluster: FakeCluster, node: Node
) -> None:
    """A writer that does not reach this memcached leaves the old item there, unchanged."""
    Aging(node)
    questions = await remember(node, b"old")
    far = Node(cluster, Ring())
    await far.set(b"new")
    for _ in range(2):
        assert await node.get(max_stale=60) == (b"old", STALE)
    assert questions.taken() == [UNCHANGED] * 2
    await node.index._questions.submit(())
    assert await node.get(max_stale=60) == (b"new", MISS), "the index has moved on"
    assert questions.taken() == [UNCHANGED]
    assert await node.get(max_stale=60) == (b"new", STALE)


async def test_stale_read_of_a_remembered_entry_that_has_expired(
    cluster: FakeCluster, node: Node
) -> None:
    time = Aging(node)
    await node.set(b"1", expires_at=cluster.now + 10)
    for _ in range(2):
        assert await node.get() == (b"1", HIT)
    questions = Questions(node.ring)
    time.seconds += 9.75
    assert await node.get(max_stale=60) == (b"1", STALE)
    time.seconds += 0.25
    assert await node.get(max_stale=60) == (None, STALE)
    assert questions.taken() == [UNCHANGED] * 2


# Watching


async def test_poll_asks_only_if_nobody_has(node: Node, other: Node) -> None:
    time = Aging(node)
    await node.get()
    asked = len(node.store.asked)
    await other.set(b"1")
    await node.cache.poll()
    assert len(node.store.asked) == asked
    time.seconds += 0.025
    before = node.cache.commits
    await node.cache.poll()
    assert len(node.store.asked) == asked + 1
    assert node.cache.commits > before


async def test_change_log_does_not_reach_back_to_what_was_lost(
    cluster: FakeCluster, node: Node
) -> None:
    kept = await node.set(b"1")
    lost = await node.set(b"2")
    cluster.fail_over(lose=1)
    await node.get()
    assert await node.cache.changes(lost, 10) == ([], False)
    events, complete = await node.cache.changes(kept, 10)
    assert (events, complete) == ([], True)
    new = await node.set(b"3")
    assert new == kept + TERM_GAP + 1
    events, complete = await node.cache.changes(kept, 10)
    assert [event.version for event in events] == [new]
