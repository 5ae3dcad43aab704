"""A watcher's view of the change feed: the events of its scope, with plain keys."""

from __future__ import annotations

from functools import lru_cache

from tenantbase.changes.subscription import Subscription
from tenantbase.events import ChangeEvent, EventKind, EventList
from tenantbase.scope import Scope


class Changes:
    """An async iterator of lists of events, oldest first. An empty list is a heartbeat.

    It ends when the service ends it, or drops it because it does not take its events. The key of a
    ``reset`` event is a prefix, which begins with the watched one: any key under it may have
    changed, up to the event's version.
    """

    __slots__ = ("_subscription", "_start")

    def __init__(self, subscription: Subscription, scope: Scope) -> None:
        self._subscription = subscription
        self._start = len(scope.start)

    @property
    def position(self) -> int:
        """Every event up to this version has been returned."""
        return self._subscription.position

    def end(self) -> None:
        """End at once, without the events that are queued."""
        self._subscription.end_at_once()

    def __aiter__(self) -> Changes:
        return self

    async def __anext__(self) -> EventList:
        """Watchers of the same prefix get the same lists.

        Raises StoreError: the change log was needed and cannot be read.
        """
        events = await self._subscription.__anext__()
        return _plain(events, self._start, self._subscription.prefix) if events else events


@lru_cache(maxsize=16)
def _plain(events: EventList, start: int, prefix: str) -> EventList:
    """The same events with plain keys. ``start``: where these begin in the scoped keys."""
    return EventList(_plain_event(event, start, prefix) for event in events)


def _plain_event(event: ChangeEvent, start: int, prefix: str) -> ChangeEvent:
    key = event.key
    if event.kind is EventKind.RESET:
        # One of the two is a prefix of the other, and the longer one is within the scope.
        key = max(key, prefix, key=len)
    return ChangeEvent(
        event.version, event.kind, key[start:], event.size, event.content_type, event.expires_at
    )
