"""Entries that a worker remembers, over a real database and a real memcached.

memcached says whether it still has the item, and the tag says whether the item counts. So what is
remembered must change nothing about a read, except that memcached does not send it again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tenantbase.coherence.sealed_item import Remembered, bucket_of
from tenantbase.commands import Delete, Set
from tenantbase.entry import OCTETS
from tenantbase.figures import BYPASSES, HITS, MISSES, REJECTED_ITEMS
from tenantbase.interfaces.cache import Fetched, NotFetched
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.interfaces.memcached.client import MemcacheClient
from tenantbase.lookup import CacheStatus
from tests.coherence.questions import ABSENT, CHANGED, LOST, SENT, UNCHANGED, Questions
from tests.coherence.test_policy import AwaitedTags, Cluster, Node
from tests.servers import MemcachedProcess, contents, poll_async

pytestmark = pytest.mark.integration

K = "default/k"
HIT, MISS, BYPASS = CacheStatus.HIT, CacheStatus.MISS, CacheStatus.BYPASS


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    with MemcachedProcess() as server:
        async with AsyncExitStack() as stack:
            yield Cluster(tmp_path, server, stack)


@pytest.fixture(params=["immediate tags", "awaited tags"])
async def node(cluster: Cluster, request: pytest.FixtureRequest) -> Node:
    """With tags that are there before memcached is asked, or that arrive after its answer.

    In the first case, memcached is asked only about what has the right tag.
    """
    return await cluster.start(awaited=request.param == "awaited tags")


def is_awaited(node: Node) -> bool:
    return isinstance(node.cache._authority, AwaitedTags)


def slot_of(node: Node, key: str = K) -> Remembered | None:
    """What the node remembers of a key."""
    return node.cache._reading._sealer.slot(key).remembered


async def remember(node: Node, value: bytes, key: str = K) -> Questions:
    """Write a key, and read it until it is remembered. Returns: what memcached is asked from now on."""
    await node.set(key, value)
    assert await node.get(key) == (value, HIT)
    questions = Questions(node.memcache)
    assert await node.get(key) == (value, HIT)
    assert questions.taken() == [UNCHANGED]
    assert node.store.reads == []
    return questions


async def values(node: Node, keys: Sequence[str]) -> list[tuple[bytes | None, CacheStatus]]:
    found = await node.cache.get_many(keys)
    return [(each.entry.value if each.entry else None, each.cache_status) for each in found]


async def test_an_item_is_sent_once(cluster: Cluster, node: Node) -> None:
    questions = Questions(node.memcache)
    await node.cache.write(Set(K, bytes(50_000), OCTETS))
    sent = [cluster.server.stat("bytes_written")]
    for _ in range(4):
        assert await node.get(K) == (bytes(50_000), HIT)
        sent.append(cluster.server.stat("bytes_written"))
    assert questions.taken() == [SENT, UNCHANGED, UNCHANGED, UNCHANGED]
    assert sent[1] - sent[0] > 50_000
    assert sent[4] - sent[1] < 50_000, "mostly the answers to the questions for this number"
    assert node.store.reads == []


async def test_a_remembered_entry_is_the_same_object(node: Node) -> None:
    """So its document, and the head of its answer, need not be made again."""
    await node.set(K, b"1")
    first = await node.cache.get(K)
    assert await node.cache.get(K) is first
    assert (await node.cache.get_many([K]))[0] is first


async def test_an_absence_is_remembered(cluster: Cluster, node: Node) -> None:
    questions = Questions(node.memcache)
    assert await node.get(K) == (None, MISS)
    for _ in range(3):
        assert await node.get(K) == (None, HIT)
    assert questions.taken() == [ABSENT, SENT, UNCHANGED, UNCHANGED]
    other = await cluster.start()
    await other.set(K, b"1")
    assert await node.get(K) == (b"1", HIT)
    await other.cache.write(Delete(K))
    assert await node.get(K) == (None, HIT)
    again = CHANGED if is_awaited(node) else SENT
    assert questions.taken() == [again, again]


@pytest.mark.parametrize("size", [1, 1_025, 50_000])
@pytest.mark.parametrize("by_another", [False, True])
async def test_a_write_replaces_what_is_remembered(
    cluster: Cluster, node: Node, by_another: bool, size: int
) -> None:
    writer = await cluster.start() if by_another else node
    questions = await remember(node, b"a" * size)
    sent = CHANGED if is_awaited(node) else SENT
    for value in (b"b" * size, b"c" * size):
        await writer.set(K, value)
        assert await node.get(K) == (value, HIT)
        assert await node.get(K) == (value, HIT)
        assert questions.taken() == [sent, UNCHANGED], "the whole item, once"
    await writer.cache.write(Delete(K))
    assert await node.get(K) == (None, HIT)
    assert questions.taken() == [sent]
    assert node.cache.figures[REJECTED_ITEMS] == 0


async def test_a_value_that_is_too_large_to_be_remembered_replaces_one(node: Node) -> None:
    questions = await remember(node, b"1")
    await node.set(K, bytes(100_000))
    for _ in range(3):
        assert await node.get(K) == (bytes(100_000), HIT)
    assert questions.taken() == [CHANGED if is_awaited(node) else SENT, SENT, SENT]
    assert slot_of(node) is None


async def test_a_write_that_is_not_in_memcached_counts(cluster: Cluster, node: Node) -> None:
    """A server that is cut off from memcached writes. memcached has the old item, unchanged."""
    questions = await remember(node, b"old")
    other = await cluster.start()
    other.cache._writing._filler._memcache = None
    await other.set(K, b"new")
    assert await node.get(K) == (b"new", MISS)
    assert questions.taken() == [UNCHANGED if is_awaited(node) else SENT], "but outdated"
    assert node.cache.figures[REJECTED_ITEMS] == 1
    assert node.store.reads == [[K]]
    assert await node.get(K) == (b"new", HIT)


async def test_while_a_write_is_in_flight_nothing_remembered_counts(node: Node) -> None:
    questions = await remember(node, b"1")
    authority = node.cache._authority
    tags = authority.file if isinstance(authority, AwaitedTags) else authority
    bucket = bucket_of(node.sealer.name(K))
    tags.sequences[bucket] |= 1  # type: ignore[attr-defined]
    assert await node.get(K) == (b"1", BYPASS)
    assert await values(node, [K]) == [(b"1", BYPASS)]
    assert node.store.reads == [[K], [K]]
    tags.sequences[bucket] += 1  # type: ignore[attr-defined]
    assert await node.get(K) == (b"1", MISS)
    assert await node.get(K) == (b"1", HIT)
    assert UNCHANGED not in questions.taken()[-1:]


async def test_only_memcached_makes_a_hit(cluster: Cluster, node: Node) -> None:
    """What is remembered spares memcached the sending, not the question."""
    questions = await remember(node, b"1")
    cluster.server.flush()
    assert await node.get(K) == (b"1", MISS)
    assert questions.taken() == [LOST]
    assert node.store.reads == [[K]]
    assert await node.get(K) == (b"1", HIT)
    assert await node.get(K) == (b"1", HIT)
    assert questions.taken() == [CHANGED, UNCHANGED], "the fill is another item"


async def test_without_memcached_nothing_remembered_counts(cluster: Cluster, node: Node) -> None:
    await remember(node, b"1")
    bypasses = node.cache.figures[BYPASSES]
    cluster.server.kill()
    for reads in range(1, 4):
        assert await node.get(K) == (b"1", BYPASS)
        assert len(node.store.reads) == reads
    assert await values(node, [K, K]) == [(b"1", BYPASS)] * 2
    assert node.cache.figures[BYPASSES] == bypasses + 5
    cluster.server.start()
    await poll_async(lambda: bool(node.cache.cache_available), "memcached is back")
    assert await node.get(K) == (b"1", MISS), "it has been restarted, and is empty"
    assert await node.get(K) == (b"1", HIT)


async def test_another_item_is_looked_at(node: Node) -> None:
    questions = await remember(node, b"1")
    await node.set("default/other", b"2")
    k, other = node.sealer.name(K), node.sealer.name("default/other")
    good = await contents(node.memcache, [k, other])
    questions.taken()
    lies = [b"", b"x" * 500, good[k][:-1], good[k][:-1] + b"2", good[other]]
    for count, lie in enumerate(lies, 1):
        await node.memcache.set_many([(k, lie, 0)])
        assert await node.get(K) == (b"1", MISS)
        assert questions.taken() == [CHANGED]
        assert node.cache.figures[REJECTED_ITEMS] == count
        assert len(node.store.reads) == count
        assert await node.get(K) == (b"1", HIT)
        assert await node.get(K) == (b"1", HIT)
        assert questions.taken() == [CHANGED, UNCHANGED]
    await node.memcache.set_many([(k, good[k], 0)])
    assert await node.get(K) == (b"1", HIT), "the very same item"
    assert await node.get(K) == (b"1", HIT)
    assert questions.taken() == [CHANGED, UNCHANGED]


async def test_a_remembered_entry_expires(node: Node) -> None:
    await node.set(K, b"1", expires_at=node.now + 10)
    await node.set("default/lasting", b"2")
    questions = Questions(node.memcache)
    for _ in range(2):
        assert await node.get(K) == (b"1", HIT)
    node.now += 9.75
    assert await node.get(K) == (b"1", HIT)
    assert await values(node, [K, "default/lasting", K]) == [(b"1", HIT), (b"2", HIT), (b"1", HIT)]
    node.now += 0.25
    for _ in range(2):
        assert await node.get(K) == (None, HIT)
        assert await values(node, [K, "default/lasting"]) == [(None, HIT), (b"2", HIT)]
    assert questions.taken() == [SENT, *[UNCHANGED] * 3, SENT, *[UNCHANGED] * 6]
    assert node.store.reads == []


async def test_a_remembered_entry_that_was_swept_does_not_come_back(node: Node) -> None:
    """Not even if the clock is set back."""
    await node.set(K, b"1", expires_at=node.now + 10)
    for _ in range(2):
        assert await node.get(K) == (b"1", HIT)
    node.now += 20
    assert await node.cache.sweep() is False
    node.now -= 20
    assert await node.get(K) == (None, MISS)
    assert await node.get(K) == (None, HIT)


async def test_each_key_of_a_bulk_read_is_judged_by_itself(cluster: Cluster, node: Node) -> None:
    other = await cluster.start()
    names = ["kept", "changed", "flushed", "rubbish", "deleted", "unread", "absent"]
    keys = {name: f"default/{name}" for name in names}
    for name in names[:-1]:
        await node.set(keys[name], name.encode())
    remembered = [keys[name] for name in names[:5]]
    assert await values(node, remembered) == [(name.encode(), HIT) for name in names[:5]]
    await other.set(keys["changed"], b"new")
    await other.cache.write(Delete(keys["deleted"]))
    sealed_names = {node.sealer.name(key): name for name, key in keys.items()}
    flushed, rubbish = node.sealer.name(keys["flushed"]), node.sealer.name(keys["rubbish"])
    assert cluster.server.command(b"delete %b\r\n" % flushed) == b"DELETED\r\n"
    await node.memcache.set_many([(rubbish, b"rubbish", 0)])

    asked = [keys[name] for name in ("kept", *names, "changed", "kept", "rubbish")]
    expected = {
        "kept": (b"kept", HIT),
        "changed": (b"new", HIT),
        "flushed": (b"flushed", MISS),
        "rubbish": (b"rubbish", MISS),
        "deleted": (None, HIT),
        "unread": (b"unread", HIT),
        "absent": (None, MISS),
    }
    before = [node.cache.figures[cell] for cell in (HITS, MISSES, REJECTED_ITEMS)]
    questions = Questions(node.memcache)
    assert await values(node, asked) == [expected[key.removeprefix("default/")] for key in asked]
    sent = CHANGED if is_awaited(node) else SENT
    assert [(sealed_names[name], kind) for name, kind in questions.taken_by_name()] == [
        ("kept", UNCHANGED),
        ("changed", sent),
        ("flushed", LOST),
        ("rubbish", CHANGED),
        ("deleted", sent),
        ("unread", SENT),
        ("absent", ABSENT),
    ]
    after = [node.cache.figures[cell] for cell in (HITS, MISSES, REJECTED_ITEMS)]
    assert [now - then for now, then in zip(after, before, strict=True)] == [7, 4, 1]
    assert [sorted(read) for read in node.store.reads] == [
        sorted(keys[name] for name in ("flushed", "rubbish", "absent"))
    ]

    hits = [(expected[key.removeprefix("default/")][0], HIT) for key in asked]
    assert await values(node, asked) == hits
    questions.taken()
    assert await values(node, asked) == hits
    assert questions.taken() == [UNCHANGED] * len(names)


async def test_memcached_is_not_believed_that_an_outdated_item_is_valid(
    cluster: Cluster, node: Node
) -> None:
    """It says of everything that it has not changed, whatever it has."""
    await remember(node, b"old")
    other = await cluster.start()
    get_many = node.memcache.get_many

    async def lie(
        names: Sequence[bytes], known: Sequence[bytes | None]
    ) -> Sequence[Fetched | NotFetched]:
        answers = await get_many(names, known)
        pairs = zip(known, answers, strict=True)
        return [answer if cas is None else NotFetched.UNCHANGED for cas, answer in pairs]

    node.memcache.get_many = lie  # type: ignore[method-assign]
    assert await node.get(K) == (b"old", HIT), "this is the truth"
    for value in (b"new", b"newer"):
        await other.set(K, value)
        assert (await node.get(K))[0] == value
        assert (await values(node, [K, K]))[1][0] == value
    await other.cache.write(Delete(K))
    assert (await node.get(K))[0] is None
    if is_awaited(node):
        assert node.cache.figures[REJECTED_ITEMS] > 0
    else:
        assert node.cache.figures[REJECTED_ITEMS] == 0, "it was not even asked about outdated ones"


async def test_a_cas_value_that_is_used_again_does_no_harm(cluster: Cluster, node: Node) -> None:
    """A memcached counts from 1 again when it is restarted, so another item may get the same value."""
    for number in range(20):
        await node.set("default/other", b"%d" % number)
    await remember(node, b"1")
    known = slot_of(node)
    assert known is not None and int(known.cas) > 20
    name = node.sealer.name(K)
    cluster.server.restart()
    async with MemcacheClient(MemcacheAddress.parse(cluster.server.address), timeout=2.0) as client:
        cas = 0
        while cas < int(known.cas):
            await client.set_many([(name, b"rubbish", 0)])
            (item,) = await client.get_many([name], [None])
            assert isinstance(item, Fetched)
            cas = int(item.cas)
    assert cas == int(known.cas), "it counts one by one"
    # The first read finds the connection closed, the others find nothing to connect with for a while.
    while (found := await node.get(K))[1] is BYPASS:
        await poll_async(lambda: bool(node.cache.cache_available), "memcached is back")
    questions = Questions(node.memcache)
    assert found == (b"1", HIT), "it is what memcached had before, and nothing has changed since"
    other = await cluster.start()
    other.cache._writing._filler._memcache = None
    await other.set(K, b"2")
    assert await node.get(K) == (b"2", MISS)
    assert questions.taken() == [UNCHANGED if is_awaited(node) else SENT]
    assert node.cache.figures[REJECTED_ITEMS] == 1
    assert await node.get(K) == (b"2", HIT)


@pytest.mark.parametrize("awaited", [False, True])
async def test_a_memcached_without_cas_values(tmp_path: Path, awaited: bool) -> None:
    """It says of every item that it has not changed."""
    with MemcachedProcess(None, "-C") as server:
        async with AsyncExitStack() as stack:
            cluster = Cluster(tmp_path, server, stack)
            node, other = await cluster.start(awaited=awaited), await cluster.start()
            await remember(node, b"1")
            for value in (b"2", b"3"):
                await other.set(K, value)
                assert await node.get(K) == (value, MISS if awaited else HIT)
                for _ in range(2):
                    assert await node.get(K) == (value, HIT)
