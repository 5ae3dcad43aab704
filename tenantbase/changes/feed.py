"""One feed of changes a process, for any number of watchers.

The change log lies in the database, so whoever writes, in whatever process, is seen. While there
are watchers, the feed looks at a counter in shared memory and reads the log when it has moved; it
hands each event to the watchers of its key. A watcher who asks for the past, or who reads too
slowly for its queue, reads the log by itself until it has caught up. Without watchers nothing runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final

from tenantbase.background import keep_running
from tenantbase.errors import StoreError
from tenantbase.interfaces.store import ChangeEvent
from tenantbase.changes.subscription import BATCH, RESET, ChangeLog, Subscription

log = logging.getLogger("tenantbase.feed")

_INTERVAL: Final = 0.025
# A writer that is killed between its commit and the count of it leaves a change uncounted.
_LOOK_ANYWAY: Final = 1.0


class Feed:
    """Hands the events of a change log to subscriptions.

    Args:
        log: the change log.
        heartbeat: seconds between two signs of life for a watcher that has nothing to read; one
            that has not taken the last of them by then is dropped.
    """

    def __init__(self, log: ChangeLog, *, heartbeat: float) -> None:
        self._log = log
        self._heartbeat = heartbeat
        self.position = 0  # events up to here have been handed out
        self._commits = 0
        self._by_prefix: dict[str, set[Subscription]] = {}
        self._lengths: Counter[int] = Counter()  # of the prefixes in _by_prefix
        # With the time of the next heartbeat, soonest first: one timer for all of them.
        self._due: OrderedDict[Subscription, float] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def watchers(self) -> int:
        """How many subscriptions there are."""
        return len(self._due)

    @asynccontextmanager
    async def subscribe(
        self, prefix: str, after: int | None, on_drop: Callable[[], object]
    ) -> AsyncIterator[Subscription]:
        """Watch the keys that begin with ``prefix`` for as long as the block lasts.

        Args:
            after: the version after which events are wanted; None: from now on.
            on_drop: called when the watcher takes nothing in for too long; it is to break off
                whatever the watcher waits for.

        Raises:
            StoreError: the database cannot serve.
        """
        commits = self._log.commits  # before the version: what comes between is seen as a change
        newest = await self._log.last_version()
        # From here no await: the subscription begins exactly where the feed stands.
        if self._task is None:
            self.position, self._commits = newest, commits
            self._task = keep_running(self._run, "change feed")
        subscription = Subscription(self._log, lambda: self.position, prefix, newest, on_drop)
        if after is not None:
            subscription.resume(after)
        self._add(subscription)
        try:
            yield subscription
        finally:
            self._remove(subscription)

    async def close(self) -> None:
        """End every subscription, after what it has queued, and take no more."""
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
        if self._closed:
            subscription.end()

    def _remove(self, subscription: Subscription) -> None:
        del self._due[subscription]
        watchers = self._by_prefix[subscription.prefix]
        watchers.discard(subscription)
        if not watchers:
            del self._by_prefix[subscription.prefix]
            self._lengths -= Counter([len(subscription.prefix)])

    async def _run(self) -> None:
        await self._follow()
        self._task = None  # no await since the last look: the next watcher starts another

    async def _follow(self) -> None:
        """Hand out events for as long as there are watchers. May be called again if it fails."""
        loop = asyncio.get_running_loop()
        looked = loop.time()
        more = failing = False
        while self._due and not self._closed:
            self._beat(loop.time())
            commits = self._log.commits
            if more or commits != self._commits or loop.time() - looked > _LOOK_ANYWAY:
                looked = loop.time()
                self._commits = commits
                try:
                    more = await self._read()
                    failing = False
                except StoreError as error:
                    if not failing:
                        log.warning("cannot read the change log: %s", error)
                    more, failing = False, True
            if not more:
                await asyncio.sleep(_INTERVAL)

    async def _read(self) -> bool:
        """Hand out a batch of events; True when there may be more."""
        events, complete = await self._log.changes(self.position, BATCH)
        if not complete:
            self.position = await self._log.last_version()
            for subscription in self._due:
                subscription.fall_behind()
            return False
        if events:
            self.position = events[-1].version
        for event in events:
            for subscription in self._watchers(event):
                subscription.deliver(event)
        return len(events) == BATCH

    def _watchers(self, event: ChangeEvent) -> Iterator[Subscription]:
        if event.kind == RESET:
            for subscription in self._due:
                if subscription.concerns(event):
                    yield subscription
            return
        # As many look-ups as there are lengths of prefixes, however many watchers there are.
        for length in self._lengths:
            if length <= len(event.key):
                yield from self._by_prefix.get(event.key[:length], ())

    def _beat(self, now: float) -> None:
        while self._due:
            subscription, due = next(iter(self._due.items()))
            if due > now:
                return
            self._due[subscription] = now + self._heartbeat
            self._due.move_to_end(subscription)
            subscription.beat()
