"""One change feed per process, for any number of watchers.

The change log is in the database, so the writes of every process are seen. While there are
watchers, the feed polls the authority's count of commits, reads the change log when it has
moved, and hands each event to the watchers of its key. Those of the same prefix share one list. A
watcher that asks for past events, or lets its queue fill up, reads the change log by itself until it
has caught up. Without watchers, no task runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final

from tenantbase.background import keep_running
from tenantbase.changes.subscription import BATCH, ChangeLog, Subscription, concerns
from tenantbase.errors import StoreError
from tenantbase.events import ChangeEvent, EventKind, EventList
from tenantbase.figures import WATCHERS, private_cells
from tenantbase.outage import Outage

log = logging.getLogger("tenantbase.feed")

_POLL_SECONDS: Final = 0.025
# Read the change log at least this often: a writer that is killed between its commit and counting
# it leaves a change that the counter does not show.
_READ_ANYWAY_SECONDS: Final = 1.0
# How many watchers get events, or a heartbeat, between two waits for ``Feed.pace``. A thousand at once
# would block the event loop for 40 ms.
_WOKEN_AT_ONCE: Final = 8


async def _next_turn(_: str) -> None:
    await asyncio.sleep(0)


class Feed:
    """Hands the events of a change log to subscriptions.

    Args:
        change_log: where the events come from.
        heartbeat: seconds between heartbeats for a watcher without events. A watcher that has not
            taken one heartbeat when the next is due is dropped.
        figures: the worker's cells, for the number of watchers; None: private ones.

    Attributes:
        pace: awaited before some watchers get events, before a heartbeat for some, and before a
            watcher reads the change log, so that others are served in between. Its argument is the
            prefix of one of these watchers.
    """

    def __init__(
        self, change_log: ChangeLog, *, heartbeat: float, figures: memoryview | None = None
    ) -> None:
        self._change_log = change_log
        self._outage = Outage(log, "the change log can be read again")
        self._figures = private_cells() if figures is None else figures
        self._heartbeat = heartbeat
        self.pace: Callable[[str], Awaitable[object]] = _next_turn
        self.position = 0  # events up to here have been handed out
        self._commits = 0
        self._by_prefix: dict[str, set[Subscription]] = {}
        self._lengths: Counter[int] = Counter()  # the lengths of the prefixes in _by_prefix
        # With the time of the next heartbeat, soonest first.
        self._due: OrderedDict[Subscription, float] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def watchers(self) -> int:
        """The number of subscriptions."""
        return len(self._due)

    @asynccontextmanager
    async def subscribe(
        self, prefix: str, after: int | None, on_drop: Callable[[], object]
    ) -> AsyncIterator[Subscription]:
        """Watch the keys that begin with ``prefix`` for as long as the block lasts.

        Args:
            after: only events after this version; None: from now on.
            on_drop: called when the watcher has taken nothing for too long. It must interrupt
                what the watcher is waiting for.

        Raises:
            StoreError: the database cannot serve.
        """
        # Read before the version, so that a commit in between is noticed.
        commits = self._change_log.commits
        newest = await self._change_log.last_version()
        # No await from here on: the subscription begins exactly where the feed is.
        if self._task is None:
            self.position, self._commits = newest, commits
            self._task = keep_running(self._run, "change feed")
        subscription = Subscription(
            self._change_log,
            lambda: self.position,
            prefix,
            newest,
            on_drop,
            lambda: self.pace(prefix),
        )
        if after is not None:
            subscription.resume(after)
        self._add(subscription)
        try:
            yield subscription
        finally:
            self._remove(subscription)

    async def close(self) -> None:
        """End every subscription, after its queued events, and accept no more."""
        self._closed = True
        for subscription in self._due:
            subscription.end()
        if self._task is not None:
            self._task.cancel()  # it may be waiting to be restarted
            await asyncio.wait([self._task])

    def _add(self, subscription: Subscription) -> None:
        self._due[subscription] = asyncio.get_running_loop().time() + self._heartbeat
        watchers = self._by_prefix.setdefault(subscription.prefix, set())
        if not watchers:
            self._lengths[len(subscription.prefix)] += 1
        watchers.add(subscription)
        self._figures[WATCHERS] = len(self._due)
        if self._closed:
            subscription.end()

    def _remove(self, subscription: Subscription) -> None:
        del self._due[subscription]
        self._figures[WATCHERS] = len(self._due)
        watchers = self._by_prefix[subscription.prefix]
        watchers.discard(subscription)
        if not watchers:
            del self._by_prefix[subscription.prefix]
            self._lengths -= Counter([len(subscription.prefix)])

    async def _run(self) -> None:
        await self._follow()
        self._task = None  # no await since the last check: the next watcher starts a new task

    async def _follow(self) -> None:
        """Hand out events while there are watchers. May be called again if it fails."""
        loop = asyncio.get_running_loop()
        looked = loop.time()
        more = False
        while self._due and not self._closed:
            await self._beat(loop.time())
            try:
                await self._change_log.poll()
                commits = self._change_log.commits
                if more or commits != self._commits or loop.time() - looked > _READ_ANYWAY_SECONDS:
                    looked = loop.time()
                    self._commits = commits
                    more = await self._read()
                    self._outage.over()
            except StoreError as error:
                self._outage.met("cannot read the change log: %s", error)
                more = False
            if not more:
                await asyncio.sleep(_POLL_SECONDS)

    async def _read(self) -> bool:
        """Hand out a batch of events; True when there may be more."""
        events, complete = await self._change_log.changes(self.position, BATCH)
        if not complete:
            self.position = await self._change_log.last_version()
            for subscription in self._due:
                subscription.fall_behind()
            return False
        if events:
            self.position = events[-1].version
        reached: list[Subscription] = []
        for prefix, matching in self._by_prefixes(events).items():
            for subscription in self._by_prefix[prefix]:
                subscription.deliver(matching)
                reached.append(subscription)
        for count, subscription in enumerate(reached):
            if not count % _WOKEN_AT_ONCE:
                await self.pace(subscription.prefix)
            subscription.wake()
        return len(events) == BATCH

    def _by_prefixes(self, events: list[ChangeEvent]) -> dict[str, EventList]:
        """The events that concern each watched prefix."""
        found: dict[str, EventList] = {}
        for event in events:
            for prefix in self._prefixes(event):
                found.setdefault(prefix, EventList()).append(event)
        return found

    def _prefixes(self, event: ChangeEvent) -> Iterator[str]:
        """The watched prefixes that an event concerns."""
        if event.kind is EventKind.RESET:
            yield from (prefix for prefix in self._by_prefix if concerns(event, prefix))
            return
        # One look-up for each length of prefix, however many watchers there are.
        for length in self._lengths:
            if length <= len(event.key) and (prefix := event.key[:length]) in self._by_prefix:
                yield prefix

    async def _beat(self, now: float) -> None:
        beaten = 0
        while self._due:
            subscription, due = next(iter(self._due.items()))
            if due > now:
                return
            self._due[subscription] = now + self._heartbeat
            self._due.move_to_end(subscription)
            subscription.beat()
            beaten += 1
            if not beaten % _WOKEN_AT_ONCE:
                await self.pace(subscription.prefix)
