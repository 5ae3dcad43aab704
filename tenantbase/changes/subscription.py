"""One watcher: the events it has yet to take, and its place in the change log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from tenantbase.events import ChangeEvent, EventKind

BATCH: Final = 256  # events read from the log at a time
_QUEUE: Final = 16 * BATCH  # the events are shared by all watchers: a queue holds references


class ChangeLog(Protocol):
    """Where the changes of all processes are."""

    @property
    def commits(self) -> int:
        """Changes with every commit. Cheap: it is read all the time."""

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        """Events after a version, oldest first; False: the log no longer reaches back to it."""

    async def last_version(self) -> int:
        """The newest version given out."""


class Subscription:
    """An async iterator of lists of events, oldest first. An empty list is a heartbeat.

    It ends when the feed is closed or drops it. A ``reset`` event says that what changed up to its
    version is not known: everything under its key, a prefix, may have.

    Args:
        stands: the version up to which the feed has handed out events.
        position: the newest version at present: it begins there.
        on_drop: called when nobody takes its events for too long.

    Attributes:
        prefix: literal; empty: all keys.
        position: every event up to this version has been returned. Ask for events after it to
            go on from there.
    """

    __slots__ = (
        "prefix",
        "position",
        "_log",
        "_stands",
        "_on_drop",
        "_queue",
        "_behind",
        "_ended",
        "_beat",
        "_wake",
    )

    def __init__(
        self,
        log: ChangeLog,
        stands: Callable[[], int],
        prefix: str,
        position: int,
        on_drop: Callable[[], object],
    ) -> None:
        self.prefix = prefix
        self.position = position
        self._log = log
        self._stands = stands
        self._on_drop = on_drop
        self._queue: list[ChangeEvent] = []
        self._behind = True
        self._ended = False
        self._beat = False
        self._wake = asyncio.Event()

    def resume(self, after: int) -> None:
        """Begin after a version that was seen earlier, not at the newest one."""
        if after > self.position:  # not given out yet: it was another database then
            self._queue.append(ChangeEvent(self.position, EventKind.RESET, self.prefix))
        else:
            self.position = after

    def concerns(self, event: ChangeEvent) -> bool:
        """Whether the event is about keys with the prefix."""
        if event.kind is EventKind.RESET:
            return event.key.startswith(self.prefix) or self.prefix.startswith(event.key)
        return event.key.startswith(self.prefix)

    def deliver(self, event: ChangeEvent) -> None:
        """Queue an event that concerns it, unless it reads the log by itself."""
        if self._behind or event.version <= self.position:
            return
        if len(self._queue) == _QUEUE:
            self.fall_behind()
            return
        self._queue.append(event)
        self._wake.set()

    def fall_behind(self) -> None:
        """Read the log from now on, until the feed has been caught up with."""
        if not self._behind:
            self._queue.clear()
            self._behind = True
            self._wake.set()

    def beat(self) -> None:
        """Have a heartbeat returned; drop it if the last one has not been taken."""
        if self._beat:
            self._on_drop()
            self.end()
        self._beat = True
        self._wake.set()

    def end(self) -> None:
        """Let it end after what is queued."""
        self._ended = True
        self._wake.set()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> list[ChangeEvent]:
        """Raises StoreError: the log was needed and cannot be read."""
        self._beat = False  # whoever asks for more has just taken something
        while True:
            if self._queue:
                events, self._queue = self._queue[:BATCH], self._queue[BATCH:]
                self.position = events[-1].version
                return events
            if self._ended:
                raise StopAsyncIteration
            if self._behind:
                if events := await self._catch_up():
                    return events
                self._beat = False  # nothing of interest there, but nobody is stuck
                continue
            if self._beat:
                self._beat = False
                self.position = max(self.position, self._stands())
                return []
            self._wake.clear()
            await self._wake.wait()

    async def _catch_up(self) -> list[ChangeEvent]:
        """Read on in the log, or, having come to where the feed stands, stop reading it."""
        stands = self._stands()
        if self.position >= stands:
            # No await since the comparison: the feed's next event is the next one here, too.
            self._behind = False
            return []
        events, complete = await self._log.changes(self.position, BATCH)
        if not complete:
            self.position = await self._log.last_version()
            return [ChangeEvent(self.position, EventKind.RESET, self.prefix)]
        self.position = events[-1].version if events else stands
        return [event for event in events if self.concerns(event)]
