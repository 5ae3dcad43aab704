"""A watcher's view of the change feed: the events of its scope, with plain keys."""

from __future__ import annotations

from tenantbase.changes.subscription import Subscription
from tenantbase.events import ChangeEvent, EventKind
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

    async def __anext__(self) -> list[ChangeEvent]:
        """Raises StoreError: the change log was needed and cannot be read."""
        return [self._plain(event) for event in await self._subscription.__anext__()]

    def _plain(self, event: ChangeEvent) -> ChangeEvent:
        key = event.key
        if event.kind is EventKind.RESET:
            # One of the two begins with the other. The longer one is within the scope.
            key = max(key, self._subscription.prefix, key=len)
        return ChangeEvent(
            event.version,
            event.kind,
            key[self._start :],
            event.size,
            event.content_type,
            event.expires_at,
        )
