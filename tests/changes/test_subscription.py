"""A single watcher: its queue, its heartbeats, its end."""

from __future__ import annotations

import asyncio

from tenantbase.changes.subscription import _QUEUE, BATCH, Subscription
from tenantbase.events import ChangeEvent, EventKind, EventList


class Log:
    """A log with events for other watchers; reading it triggers a heartbeat."""

    commits = 0

    def __init__(self, length: int) -> None:
        self.length = length
        self.watcher: Subscription | None = None

    async def poll(self) -> None:
        pass

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        if self.watcher is not None:
            self.watcher.beat()
        versions = range(after + 1, min(after + limit, self.length) + 1)
        return [ChangeEvent(version, EventKind.SET, "other") for version in versions], True

    async def last_version(self) -> int:
        return self.length


def never() -> None:
    raise AssertionError("dropped, though it takes what comes")


async def at_once() -> None:
    """No pace."""


async def waiting(subscription: Subscription) -> asyncio.Task[list[ChangeEvent]]:
    """Start to wait for its next events."""
    task = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    return task


def event(version: int) -> ChangeEvent:
    return ChangeEvent(version, EventKind.SET, "k")


async def test_a_full_queue_is_dropped() -> None:
    subscription = Subscription(Log(0), lambda: 0, "", 0, never, at_once)
    task = await waiting(subscription)
    subscription.deliver(EventList([event(1)]))
    subscription.wake()
    assert await task == [event(1)]
    for version in range(2, _QUEUE + 3):
        subscription.deliver(EventList([event(version)]))
    assert not subscription._queue, "from here on it reads the log"


async def test_events_that_were_taken_leave_room() -> None:
    subscription = Subscription(Log(0), lambda: 0, "", 0, never, at_once)
    task = await waiting(subscription)
    for version in range(1, _QUEUE + 3):
        subscription.deliver(EventList([event(version)]))
        assert subscription._queue, "it does not have to read the log"
        subscription.wake()
        assert await task == [event(version)]
        task = await waiting(subscription)
    task.cancel()


async def test_closing_wakes_the_waiting_reader() -> None:
    subscription = Subscription(Log(0), lambda: 0, "", 0, never, at_once)
    task = asyncio.ensure_future(anext(subscription, None))
    await asyncio.sleep(0)
    assert not task.done()
    subscription.end()
    async with asyncio.timeout(10):
        assert await task is None


async def test_taking_events_counts_as_taking_a_heartbeat() -> None:
    subscription = Subscription(Log(0), lambda: 0, "", 0, never, at_once)
    task = await waiting(subscription)
    subscription.deliver(EventList([event(1)]))
    subscription.wake()
    assert await task == [event(1)]
    for version in (2, 3, 4):
        subscription.deliver(EventList([event(version)]))
        subscription.beat()
        assert await anext(subscription) == [event(version)]


async def test_a_watcher_reading_past_other_keys_is_not_stuck() -> None:
    log = Log(4 * BATCH)
    subscription = Subscription(log, lambda: log.length, "mine", log.length, never, at_once)
    subscription.resume(0)
    log.watcher = subscription
    task = await waiting(subscription)
    log.watcher = None
    assert subscription.position == log.length
    subscription.deliver(EventList([ChangeEvent(log.length + 1, EventKind.SET, "mine")]))
    subscription.wake()
    async with asyncio.timeout(10):
        assert [each.key for each in await task] == ["mine"]


async def test_what_was_read_in_the_log_is_not_delivered_again() -> None:
    log = Log(0)
    subscription = Subscription(log, lambda: log.length, "", 0, never, at_once)
    task = await waiting(subscription)
    events = EventList(map(event, range(1, 6)))
    subscription.deliver(EventList(events[:2]))
    subscription.wake()
    assert await task == events[:2]
    subscription.deliver(EventList(events[:2]))
    subscription.deliver(events)
    assert await anext(subscription) == events[2:]
    subscription.end()
    assert await anext(subscription, None) is None
