"""The change feed over real databases, with concurrent writers."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tenantbase.changes import feed
from tenantbase.changes.feed import Feed
from tenantbase.changes.subscription import BATCH, Subscription
from tenantbase.coherence.policy import Cache
from tenantbase.coherence.sealed_item import ItemSealer, bucket_of
from tenantbase.coherence.tag_file import TagFile
from tenantbase.coherence.tag_seqlock import TagSeqlock, WriteLock
from tenantbase.commands import Delete, DeletePrefix, Set
from tenantbase.entry import JSON
from tenantbase.errors import StoreError, StoreUnavailable
from tenantbase.events import ChangeEvent, EventKind
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.scope import DEFAULT
from tests.servers import poll_async

PATIENCE = 20.0
MORE_THAN_A_QUEUE = 5000


class Node:
    """The parts of one process, and a change log that can be made to fail."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.now = 1_000_000.0
        self.failing = False
        self.counting = True
        self.feed = Feed(self, heartbeat=3600)

    @property
    def commits(self) -> int:
        return self.cache.commits if self.counting else 0

    async def poll(self) -> None:
        await self.cache.poll()

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        if self.failing:
            raise StoreUnavailable("the disk reports an error")
        return await self.cache.changes(after, limit)

    async def last_version(self) -> int:
        return await self.cache.last_version()

    async def set(self, *keys: str, expires_at: float | None = None) -> int:
        """Set keys in one transaction. Returns: the version of the last one."""
        applied = await self.cache.write(*(Set(key, b"1", JSON, expires_at) for key in keys))
        assert applied[-1].entry is not None
        return applied[-1].entry.version


class Database:
    """One file, opened by any number of nodes."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.path = directory / "x.db"
        self.stack = stack

    async def node(self, change_log_size: int = 65_536) -> Node:
        tags = TagFile.open(self.path.with_name("x.db-tags"))
        self.stack.callback(tags.close)
        lock = WriteLock(self.path.with_name("x.db-lock"))
        self.stack.callback(lock.close)
        store = await SqliteStore.open(self.path, lock.held, change_log_size=change_log_size)
        self.stack.push_async_callback(store.close)
        sealer = ItemSealer(store.secret)
        seqlock = TagSeqlock(tags, lock, lambda key: bucket_of(sealer.name(key)))
        cache = Cache(
            store,
            tags,
            lambda group, now: store.write(group, now, seqlock),
            sealer,
            None,
            clock=lambda: parts.now,
        )
        self.stack.push_async_callback(cache.drained)
        parts = Node(cache)
        self.stack.push_async_callback(parts.feed.close)
        return parts


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with AsyncExitStack() as stack:
        yield Database(tmp_path, stack)


@pytest.fixture
async def node(database: Database) -> Node:
    return await database.node()


async def take(watcher: Subscription, count: int) -> list[ChangeEvent]:
    """At least the next ``count`` events."""
    events: list[ChangeEvent] = []
    async with asyncio.timeout(PATIENCE):
        while len(events) < count:
            events += await anext(watcher)
    return events


def feed_runs() -> bool:
    return any(task.get_name() == "change feed" for task in asyncio.all_tasks())


def stored(version: int, key: str) -> ChangeEvent:
    """The event of ``Node.set``."""
    return ChangeEvent(version, EventKind.SET, key, 1, JSON, None)


def never() -> None:
    raise AssertionError("dropped, though it was not slow")


async def test_every_kind_of_change_in_order(node: Node) -> None:
    async with node.feed.subscribe("default/a/", None, never) as watcher:
        await node.set("default/a/1")
        await node.set("default/b/1")
        await node.set("default/a/2", expires_at=node.now + 1)
        await node.cache.write(Delete("default/a/1"))
        await node.cache.write(Delete("default/a/1"))
        node.now += 2
        assert not await node.cache.sweep()
        assert await take(watcher, 4) == [
            stored(1, "default/a/1"),
            ChangeEvent(3, EventKind.SET, "default/a/2", 1, JSON, 1_000_001.0),
            ChangeEvent(4, EventKind.DELETE, "default/a/1"),
            ChangeEvent(5, EventKind.EXPIRE, "default/a/2"),
        ]


@pytest.mark.parametrize("prefix", ["", "%", "a_", "é", "k" * 1024])
async def test_prefixes_are_literal(node: Node, prefix: str) -> None:
    prefix = DEFAULT.prefix(prefix)
    keys = [
        DEFAULT.key(key)
        for key in ("%", "%x", "a_", "ab", "a_/", "é/", "e", "k" * 1024, "k" * 1023)
    ]
    async with (
        node.feed.subscribe("default/%x and others", None, never),
        node.feed.subscribe(prefix, None, never) as watcher,
    ):
        await node.set(*keys)
        wanted = [key for key in keys if key.startswith(prefix)]
        assert [event.key for event in await take(watcher, len(wanted))] == wanted


async def test_watchers_of_a_prefix_share_their_lists(node: Node) -> None:
    async with (
        node.feed.subscribe("default/a", None, never) as one,
        node.feed.subscribe("default/a", None, never) as other,
        node.feed.subscribe("default/", None, never) as wider,
    ):
        taking = [asyncio.ensure_future(anext(each)) for each in (one, other, wider)]
        await asyncio.sleep(0)  # they wait, and get events live
        version = await node.set("default/a1", "default/b", "default/a2")
        async with asyncio.timeout(PATIENCE):
            of_one, of_other, of_wider = await asyncio.gather(*taking)
        assert of_one is of_other
        assert of_one == [stored(version - 2, "default/a1"), stored(version, "default/a2")]
        assert len(of_wider) == 3


async def test_writes_of_other_processes_are_seen(database: Database, node: Node) -> None:
    other = await database.node()
    async with node.feed.subscribe("", None, never) as watcher:
        version = await other.set("default/k")
        assert await take(watcher, 1) == [stored(version, "default/k")]


async def test_watching_from_now_skips_earlier_changes(node: Node) -> None:
    """Even if the feed has yet to hand out earlier changes."""
    async with node.feed.subscribe("", None, never):
        for _ in range(20):
            await node.set("default/old")
            async with node.feed.subscribe("", None, never) as watcher:
                assert watcher.position == (version := await node.set("default/new")) - 1
                assert (await take(watcher, 1))[0] == stored(version, "default/new")


async def test_resuming_leaves_no_gap_and_repeats_nothing(database: Database, node: Node) -> None:
    """Watchers come and go at random while two processes write."""
    other = await database.node()
    total = 3000

    async def write(writer: Node, count: int) -> None:
        while count:
            size = min(count, random.randint(1, 40))
            await writer.set(*(f"default/k/{number}" for number in range(size)))
            count -= size

    async def follow(reader: Node) -> list[int]:
        seen: list[int] = []
        after = 0
        while after < total:
            async with reader.feed.subscribe("default/k/", after, never) as watcher:
                for _ in range(random.randint(1, 3)):
                    events = await take(watcher, 1)
                    seen += [event.version for event in events]
                    assert seen[-1] == watcher.position
                    if seen[-1] == total:
                        break
                after = watcher.position
        return seen

    writers = asyncio.gather(write(node, total // 2), write(other, total // 2))
    async with asyncio.timeout(PATIENCE):
        followers = await asyncio.gather(*(follow(reader) for reader in (node, node, other)))
    await writers
    for seen in followers:
        assert seen == list(range(1, total + 1))


async def test_a_watcher_too_slow_for_the_queue_reads_the_log(node: Node) -> None:
    async with (
        node.feed.subscribe("", None, never) as slow,
        node.feed.subscribe("", None, never) as quick,
    ):
        await node.set("default/first")
        assert (await take(slow, 1))[0].key == "default/first"
        for start in range(0, MORE_THAN_A_QUEUE, 500):
            await node.set(*(f"default/k/{number}" for number in range(start, start + 500)))
            await take(quick, 500 if start else 501)
        last = await node.set("default/last")
        seen = await take(slow, MORE_THAN_A_QUEUE + 1)
        assert [event.version for event in seen] == list(range(2, last + 1))
        await node.set("default/later")
        assert (await take(slow, 1))[0].key == "default/later"


async def test_lists_are_of_bounded_length(node: Node) -> None:
    async with node.feed.subscribe("", None, never) as watcher:
        await take_ready(node, watcher)
        await node.set(*(f"default/k/{number}" for number in range(3 * BATCH)))
        await poll_async(lambda: node.feed.position == 3 * BATCH + 1, "it has caught up")
        async with asyncio.timeout(PATIENCE):
            assert [len(await anext(watcher)) for _ in range(3)] == [BATCH] * 3


async def take_ready(node: Node, watcher: Subscription) -> None:
    """Wait until it has caught up with the feed, so that it gets events live."""
    taking = asyncio.create_task(take(watcher, 1))
    await poll_async(lambda: not watcher._behind, "it waits for the feed")
    await node.set("default/ready")
    await taking


async def test_asking_for_more_than_the_log_holds_is_a_reset(database: Database) -> None:
    node = await database.node(change_log_size=10)
    for _ in range(20):
        await node.set("default/k")
    while await node.cache.sweep():
        pass
    async with (
        node.feed.subscribe("default/a", 3, never) as lost,
        node.feed.subscribe("default/k", 15, never) as found,
    ):
        assert await take(lost, 1) == [ChangeEvent(20, EventKind.RESET, "default/a")]
        assert [event.version for event in await take(found, 5)] == [16, 17, 18, 19, 20]
        await node.set("default/a")
        assert await take(lost, 1) == [stored(21, "default/a")]


async def test_falling_out_of_the_log_while_watching_is_a_reset(database: Database) -> None:
    node = await database.node(change_log_size=10)
    async with node.feed.subscribe("default/k", None, never) as watcher:
        await take_one(node, watcher, "default/k")
        node.failing = True  # the feed reads nothing while the log advances
        for _ in range(40):
            await node.set("default/k")
        while await node.cache.sweep():
            pass
        node.failing = False
        assert await take(watcher, 1) == [ChangeEvent(41, EventKind.RESET, "default/k")]
        await take_one(node, watcher, "default/k")


async def take_one(node: Node, watcher: Subscription, key: str) -> None:
    version = await node.set(key)
    assert await take(watcher, 1) == [stored(version, key)]


async def test_a_version_from_the_future_is_a_reset(node: Node) -> None:
    """The database was replaced by an older copy of itself."""
    await node.set("default/k")
    async with node.feed.subscribe("default/k", 1000, never) as watcher:
        assert await take(watcher, 1) == [ChangeEvent(1, EventKind.RESET, "default/k")]
        await take_one(node, watcher, "default/k")


async def test_a_reset_outlives_another_one(database: Database) -> None:
    node = await database.node(change_log_size=10)
    async with node.feed.subscribe("", None, never) as watcher:
        await take_one(node, watcher, "default/k")
        node.failing = True
        for _ in range(40):
            await node.set("default/k")
        while await node.cache.sweep():
            pass
        async with node.feed.subscribe("default/k", 1000, never) as late:
            node.failing = False
            assert (await take(watcher, 1))[0].kind == "reset"
            assert await take(late, 1) == [ChangeEvent(41, EventKind.RESET, "default/k")]


async def test_deleting_a_large_prefix_is_a_reset(node: Node) -> None:
    for start in range(0, 20_000, 5000):
        await node.set(*(f"default/big/{number}" for number in range(start, start + 5000)))
    async with AsyncExitStack() as stack:
        watchers = {
            prefix: await stack.enter_async_context(node.feed.subscribe(prefix, None, never))
            for prefix in ("", "default/b", "default/big/", "default/big/7", "default/other")
        }
        await node.cache.write(DeletePrefix("default/big/"))
        after = await node.set("default/other")
        for prefix in ("", "default/b", "default/big/", "default/big/7"):
            event, *_ = await take(watchers[prefix], 1)
            assert (event.kind, event.key) == ("reset", "default/big/"), prefix
        assert await take(watchers["default/other"], 1) == [stored(after, "default/other")]


async def test_heartbeats_carry_the_position_in_the_log(node: Node) -> None:
    node.feed = Feed(node, heartbeat=0.05)
    async with node.feed.subscribe("default/quiet", None, never) as watcher:
        version = await node.set("default/loud")
        async with asyncio.timeout(PATIENCE):
            while watcher.position < version:
                assert await anext(watcher) == []
        assert watcher.position == version
        await take_one(node, watcher, "default/quiet")


async def test_a_stalled_watcher_is_dropped(node: Node) -> None:
    node.feed = Feed(node, heartbeat=0.1)
    dropped = asyncio.Event()
    async with node.feed.subscribe("", None, dropped.set) as watcher:
        async with asyncio.timeout(PATIENCE):
            await dropped.wait()
            assert await anext(watcher, None) is None, "it has ended"


async def test_without_watchers_no_task_runs(node: Node) -> None:
    assert not feed_runs()
    async with (
        node.feed.subscribe("default/a", None, never),
        node.feed.subscribe("default/b", None, never),
    ):
        assert node.feed.watchers == 2
    assert node.feed.watchers == 0
    await poll_async(lambda: not feed_runs(), "the feed has ended")
    await node.set("default/missed")
    async with node.feed.subscribe("", None, never) as watcher:
        await take_one(node, watcher, "default/k")


async def test_many_idle_watchers_have_one_task(node: Node) -> None:
    async with AsyncExitStack() as stack:
        before = len(asyncio.all_tasks())
        watchers = [
            await stack.enter_async_context(
                node.feed.subscribe(f"default/user/{number}/", None, never)
            )
            for number in range(1000)
        ]
        assert len(asyncio.all_tasks()) == before + 1
        version = await node.set("default/user/777/name")
        assert await take(watchers[777], 1) == [stored(version, "default/user/777/name")]


async def test_many_watchers_of_an_event_do_not_send_at_once(node: Node) -> None:
    """Between them, other requests have their turns."""
    turn = 0
    taken: list[int] = []

    async def watch() -> None:
        async with node.feed.subscribe("", None, never) as watcher:
            await anext(watcher)
            taken.append(turn)

    watching = [asyncio.create_task(watch()) for _ in range(200)]
    await poll_async(lambda: node.feed.watchers == len(watching), "all watch")
    await node.set("default/k")
    async with asyncio.timeout(PATIENCE):
        while len(taken) < len(watching):
            await asyncio.sleep(0)
            turn += 1
    await asyncio.gather(*watching)
    assert max(Counter(taken).values()) < 20, Counter(taken)


class Gate:
    """A pace that lets nothing pass until it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self._open = asyncio.Semaphore(0)

    async def pace(self, prefix: str) -> None:
        assert prefix == ""
        self.asked += 1
        await self._open.acquire()

    def let_pass(self, times: int = 1) -> None:
        for _ in range(times):
            self._open.release()


async def test_a_few_watchers_at_a_time_get_events_at_the_pace_given(node: Node) -> None:
    gate = Gate()
    node.feed.pace = gate.pace
    taken: list[int] = []

    async def watch(number: int) -> None:
        async with node.feed.subscribe("", None, never) as watcher:
            await anext(watcher)
            taken.append(number)

    watching = [asyncio.create_task(watch(number)) for number in range(20)]
    await poll_async(lambda: gate.asked == 20, "each wants to know what it has missed")
    gate.let_pass(20)
    await node.set("default/k")
    for groups in (0, 1, 2):
        await poll_async(lambda: gate.asked == 21 + groups, "the next group waits")  # noqa: B023
        await poll_async(lambda: len(taken) == 8 * groups, "the group before has it")  # noqa: B023
        gate.let_pass()
    await asyncio.gather(*watching)
    assert len(taken) == 20


async def test_a_watcher_reads_the_change_log_at_the_pace_given(node: Node) -> None:
    gate = Gate()
    node.feed.pace = gate.pace
    await node.set("default/k")
    async with node.feed.subscribe("", 0, never) as watcher:
        task = asyncio.ensure_future(anext(watcher))
        await poll_async(lambda: gate.asked == 1, "it waits")
        assert not task.done()
        gate.let_pass()
        assert [event.key for event in await task] == ["default/k"]


async def test_the_feed_survives_a_failing_database(
    node: Node, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_READ_ANYWAY_SECONDS", 0.1)
    async with node.feed.subscribe("", None, never) as watcher:
        await take_one(node, watcher, "default/k")
        node.failing = True
        version = await node.set("default/missed at first")
        with caplog.at_level(logging.WARNING, "tenantbase.feed"):
            await poll_async(lambda: "disk" in caplog.text, "it has failed")
        async with node.feed.subscribe("", 0, never) as behind:
            with pytest.raises(StoreError):
                await anext(behind)
        node.failing = False
        assert await take(watcher, 1) == [stored(version, "default/missed at first")]
    assert caplog.text.count("disk") == 1, "said once, not at each try"


async def test_an_uncounted_commit_is_seen(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writer was killed between the commit and the count."""
    monkeypatch.setattr(feed, "_READ_ANYWAY_SECONDS", 0.1)
    node.counting = False
    async with node.feed.subscribe("", None, never) as watcher:
        await take_one(node, watcher, "default/k")


async def test_closing_ends_watchers_after_queued_events(node: Node) -> None:
    async with node.feed.subscribe("", None, never) as watcher:
        await take_ready(node, watcher)
        await node.set("default/last")
        await poll_async(lambda: node.feed.position == 2, "it has caught up")
        await node.feed.close()
        assert not feed_runs()
        async with asyncio.timeout(PATIENCE):
            assert [event.key for event in await anext(watcher)] == ["default/last"]
            assert await anext(watcher, None) is None
    async with node.feed.subscribe("", None, never) as late:
        assert await anext(late, None) is None
    await poll_async(lambda: not feed_runs(), "the feed has ended")
