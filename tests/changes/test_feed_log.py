"""The feed over a fake log: when and how often it reads, and which events it hands out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from tenantbase.changes import feed as feed_module
from tenantbase.changes.feed import Feed
from tenantbase.changes.subscription import BATCH, Subscription
from tenantbase.errors import StoreUnavailable
from tenantbase.events import ChangeEvent, EventKind
from tests.servers import poll_async

PATIENCE = 10.0


class Log:
    """A change log in memory.

    Attributes:
        looks: how often its counter was read.
        polls, reads: how often the log was polled, and read.
        failing: the methods that raise StoreUnavailable, by name.
        when_asked: called while a request for the newest version is in flight.
    """

    def __init__(self) -> None:
        self.events: list[ChangeEvent] = []
        self.looks = self.polls = self.reads = 0
        self.failing = ""
        self.when_asked: Callable[[], object] = lambda: None
        self._commits = self._polled = 0

    @property
    def commits(self) -> int:
        self.looks += 1
        return self._polled

    def commit(self, *keys: str) -> None:
        """Add one transaction that sets these keys."""
        first = len(self.events) + 1
        self.events += [ChangeEvent(first + at, EventKind.SET, key) for at, key in enumerate(keys)]
        self._commits += 1

    def commit_reset(self, prefix: str) -> None:
        """Add one change that removes everything under a prefix."""
        self.events.append(ChangeEvent(len(self.events) + 1, EventKind.RESET, prefix))
        self._commits += 1

    async def poll(self) -> None:
        self.polls += 1
        if self.failing == "poll":
            raise StoreUnavailable("the disk reports an error")
        self.count()

    def count(self) -> None:
        """Let the counter show every commit. A file's counter does so at once, without a poll."""
        self._polled = self._commits

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        self.reads += 1
        if self.failing == "changes":
            raise StoreUnavailable("the disk reports an error")
        return self.events[after : after + limit], True

    async def last_version(self) -> int:
        version = len(self.events)
        self.when_asked()
        await asyncio.sleep(0)
        return version


def never() -> None:
    raise AssertionError("dropped, though it was not slow")


async def take(watcher: Subscription, count: int) -> list[str]:
    """The keys of the next ``count`` events."""
    keys: list[str] = []
    async with asyncio.timeout(PATIENCE):
        while len(keys) < count:
            keys += [event.key for event in await anext(watcher)]
    return keys


@pytest.fixture
def by_count_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is read because its counter moved, not because the interval has passed."""
    monkeypatch.setattr(feed_module, "_READ_ANYWAY_SECONDS", 3600.0)


@pytest.mark.usefixtures("by_count_alone")
async def test_a_commit_while_a_subscription_begins_is_seen_at_once() -> None:
    log = Log()

    def commit() -> None:
        log.commit("meanwhile")
        log.count()

    log.when_asked = commit
    async with Feed(log, heartbeat=3600).subscribe("", None, never) as watcher:
        assert await take(watcher, 1) == ["meanwhile"]


@pytest.mark.usefixtures("by_count_alone")
async def test_while_nothing_is_committed_the_log_is_not_read() -> None:
    log = Log()
    async with Feed(log, heartbeat=3600).subscribe("", None, never):
        await poll_async(lambda: log.looks > 5, "it has looked")
        assert log.reads == 0


@pytest.mark.usefixtures("by_count_alone")
async def test_one_commit_of_many_events_is_read_to_its_end() -> None:
    log = Log()
    async with Feed(log, heartbeat=3600).subscribe("", None, never) as watcher:
        taking = asyncio.create_task(take(watcher, 3 * BATCH + 1))
        await poll_async(lambda: log.looks > 2, "it has looked")
        keys = [str(number) for number in range(3 * BATCH + 1)]
        log.commit(*keys)
        assert await taking == keys


@pytest.mark.parametrize("failing", ["poll", "changes"])
async def test_trouble_with_the_log_is_logged_once_per_occurrence(
    failing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feed_module, "_READ_ANYWAY_SECONDS", 0.0)
    log = Log()
    with caplog.at_level(logging.WARNING, "tenantbase.feed"):
        async with Feed(log, heartbeat=3600).subscribe("", None, never):
            for times in (1, 2):
                log.failing = failing
                polls = log.polls
                await poll_async(lambda polls=polls: log.polls > polls + 5, "it has tried")  # type: ignore[misc]
                assert caplog.text.count("the disk reports an error") == times
                log.failing = ""
                polls = log.polls
                await poll_async(lambda polls=polls: log.polls > polls + 2, "it has tried")  # type: ignore[misc]


async def test_reading_the_log_skips_unwatched_keys() -> None:
    log = Log()
    log.commit(*(f"other/{number}" for number in range(2 * BATCH)))
    log.commit("mine/1")
    log.commit(*(f"other/{number}" for number in range(BATCH)))
    log.commit("mine/2")
    async with Feed(log, heartbeat=3600).subscribe("mine/", 0, never) as watcher:
        assert await take(watcher, 2) == ["mine/1", "mine/2"]
        assert watcher.position == len(log.events)


async def test_an_unwatched_feed_continues_from_the_newest_version() -> None:
    log = Log()
    feed = Feed(log, heartbeat=3600)
    async with feed.subscribe("", None, never) as watcher:
        taking = asyncio.create_task(take(watcher, 1))
        await poll_async(lambda: log.looks > 2, "it has looked")
        log.commit("first")
        assert await taking == ["first"]
    await poll_async(
        lambda: not any(task.get_name() == "change feed" for task in asyncio.all_tasks()),
        "the feed has ended",
    )
    log.commit("unseen")
    async with feed.subscribe("", None, never) as watcher:
        assert watcher.position == feed.position == 2


async def test_a_reset_goes_to_the_watchers_of_its_prefix() -> None:
    log = Log()
    feed = Feed(log, heartbeat=3600)
    async with (
        feed.subscribe("", None, never) as every,
        feed.subscribe("a/b/c", None, never) as below,
        feed.subscribe("b/", None, never) as beside,
    ):
        taking = [asyncio.create_task(take(each, 1)) for each in (every, below, beside)]
        await poll_async(lambda: log.looks > 2, "it has looked")
        log.commit_reset("a/b/")
        assert [await each for each in taking[:2]] == [["a/b/"], ["a/b/"]]
        log.commit("b/1")
        assert await taking[2] == ["b/1"]


async def test_every_watcher_gets_heartbeats() -> None:
    feed = Feed(Log(), heartbeat=0.1)
    all_have_them = asyncio.Barrier(3)

    async def two() -> None:
        async with feed.subscribe("", None, never) as watcher, asyncio.timeout(PATIENCE):
            assert [await anext(watcher), await anext(watcher)] == [[], []]
            # A watcher keeps reading until all others have their events.
            staying = asyncio.ensure_future(all_have_them.wait())
            while not staying.done():
                more = asyncio.ensure_future(anext(watcher))
                await asyncio.wait([staying, more], return_when=asyncio.FIRST_COMPLETED)
                more.cancel()

    await asyncio.gather(two(), two(), two())


async def test_a_few_watchers_at_a_time_get_heartbeats() -> None:
    feed = Feed(Log(), heartbeat=3600)
    paced = asyncio.Semaphore(0)
    taken: list[int] = []

    async def watch(number: int) -> None:
        async with feed.subscribe("", None, never) as watcher:
            assert await anext(watcher) == []
            taken.append(number)

    watching = [asyncio.create_task(watch(number)) for number in range(20)]
    await poll_async(lambda: feed.watchers == len(watching), "all watch")
    feed.pace = lambda prefix: paced.acquire()
    beating = asyncio.create_task(feed._beat(asyncio.get_running_loop().time() + 3600.1))
    for count in (8, 16):
        await poll_async(lambda: len(taken) == count, "some have theirs")  # noqa: B023
        assert not beating.done()
        paced.release()
    await asyncio.gather(beating, *watching)


async def test_a_watcher_that_stops_leaves_nothing_behind() -> None:
    feed = Feed(Log(), heartbeat=3600)
    async with feed.subscribe("a", None, never):
        async with feed.subscribe("a", None, never), feed.subscribe("bc", None, never):
            assert feed.watchers == 3
            assert feed._lengths == {1: 1, 2: 1}
        assert feed.watchers == 1 and feed._lengths == {1: 1} and set(feed._by_prefix) == {"a"}
    assert feed.watchers == 0 and not feed._lengths and not feed._by_prefix
