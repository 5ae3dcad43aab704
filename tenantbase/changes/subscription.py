"""One watcher: the events it has yet to take, and its position in the change log."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from tenantbase.events import ChangeEvent, EventKind, EventList

BATCH: Final = 256  # events read from the change log at a time
_QUEUE: Final = 16 * BATCH  # events; watchers share them, so a queue holds only references


class ChangeLog(Protocol):
    """The changes that all processes made."""

    @property
    def commits(self) -> int:
        """Changes with every commit, at the latest by the next ``poll``."""

    async def poll(self) -> None:
        """Bring ``commits`` up to date. Raises StoreError."""

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        """Events after a version, oldest first, and whether the log reaches back that far."""

    async def last_version(self) -> int:
        """The newest version assigned."""


class Subscription:
    """An async iterator of lists of events, oldest first. An empty list is a heartbeat.

    Watchers of the same prefix get the same lists, unless one of them reads the change log itself.

    It ends when the feed is closed or drops it. The key of a ``reset`` event is a prefix: any key
    under it may have changed, up to the event's version.

    Args:
        feed_position: returns the version up to which the feed has handed out events.
        position: the newest version; the subscription begins there.
        on_drop: called when the watcher has not taken its events for too long.
        pace: awaited before the watcher reads the change log.

    Attributes:
        prefix: literal text; an empty one means all keys.
        position: every event up to this version has been returned. To resume, ask for the events
            after it.
    """

    __slots__ = (
        "prefix",
        "position",
        "_change_log",
        "_feed_position",
        "_on_drop",
        "_pace",
        "_queue",
        "_queued",
        "_behind",
        "_ended",
        "_beat",
        "_wake",
    )

    def __init__(
        self,
        change_log: ChangeLog,
        feed_position: Callable[[], int],
        prefix: str,
        position: int,
        on_drop: Callable[[], object],
        pace: Callable[[], Awaitable[object]],
    ) -> None:
        self.prefix = prefix
        self.position = position
        self._change_log = change_log
        self._feed_position = feed_position
        self._on_drop = on_drop
        self._pace = pace
        self._queue: deque[EventList] = deque()
        self._queued = 0  # events
        self._behind = True
        self._ended = False
        self._beat = False
        self._wake = asyncio.Event()

    def resume(self, after: int) -> None:
        """Begin after a version seen earlier, instead of at the newest one."""
        if after > self.position:  # not assigned here yet, so it is from another database
            self._add(EventList([ChangeEvent(self.position, EventKind.RESET, self.prefix)]))
        else:
            self.position = after

    def deliver(self, events: EventList) -> None:
        """Queue events for this watcher, unless it is reading the change log itself.

        The watcher gets them once ``wake`` is called.
        """
        if self._behind or events[-1].version <= self.position:
            return
        if events[0].version <= self.position:  # the rest was read in the change log
            events = EventList(event for event in events if event.version > self.position)
        if self._queued + len(events) > _QUEUE:
            self.fall_behind()
            return
        self._add(events)

    def _add(self, events: EventList) -> None:
        self._queue.append(events)
        self._queued += len(events)

    def _clear(self) -> None:
        self._queue.clear()
        self._queued = 0

    def wake(self) -> None:
        """Have the watcher take what is queued."""
        self._wake.set()

    def fall_behind(self) -> None:
        """Read the change log directly, until it has caught up with the feed."""
        if not self._behind:
            self._clear()
            self._behind = True
            self._wake.set()

    def beat(self) -> None:
        """Return a heartbeat next, or drop the watcher if it has not taken the last one."""
        if self._beat:
            self._on_drop()
            self.end()
        self._beat = True
        self._wake.set()

    def end(self) -> None:
        """End the subscription after its queued events."""
        self._ended = True
        self._wake.set()

    def end_at_once(self) -> None:
        """End it without the events that are queued."""
        self._clear()
        self.end()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> EventList:
        """Raises StoreError: the change log was needed and cannot be read."""
        self._beat = False  # asking for more means that the last one was taken
        while True:
            if self._queue:
                events = self._queue.popleft()
                self._queued -= len(events)
                self.position = events[-1].version
                return events
            if self._ended:
                raise StopAsyncIteration
            if self._behind:
                if events := await self._catch_up():
                    return events
                self._beat = False  # no event for it there, but the watcher is not stuck
                continue
            if self._beat:
                self._beat = False
                self.position = max(self.position, self._feed_position())
                return EventList()
            self._wake.clear()
            await self._wake.wait()

    async def _catch_up(self) -> EventList:
        """Read on in the change log, or stop reading it once level with the feed."""
        await self._pace()
        reached = self._feed_position()
        if self.position >= reached:
            # No await since the comparison: the feed's next event is the next one here too.
            self._behind = False
            return EventList()
        events, complete = await self._change_log.changes(self.position, BATCH)
        if not complete:
            self.position = await self._change_log.last_version()
            return EventList([ChangeEvent(self.position, EventKind.RESET, self.prefix)])
        self.position = events[-1].version if events else reached
        return EventList(event for event in events if concerns(event, self.prefix))


def concerns(event: ChangeEvent, prefix: str) -> bool:
    """Whether an event is about keys with the prefix."""
    if event.kind is EventKind.RESET:
        return event.key.startswith(prefix) or prefix.startswith(event.key)
    return event.key.startswith(prefix)
