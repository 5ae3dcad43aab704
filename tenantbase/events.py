"""Change events: what the change log, the feed and its watchers speak of."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class EventKind(StrEnum):
    """What happened to a key. The values are stored in the change log and sent to watchers."""

    SET = "set"
    DELETE = "delete"
    EXPIRE = "expire"
    RESET = "reset"
    """More keys than the change log holds may have changed; the event's key is their prefix."""


class ChangeEvent(msgspec.Struct, frozen=True, gc=False):
    """One line of the change log.

    Attributes:
        version: the version that the change was given.
        kind: what happened.
        key: the key that changed; for ``RESET`` the prefix of all that may have.
        size, content_type, expires_at: of the entry that was set: the bytes of its value, its media
            type, and Unix seconds or None. ``size`` is None for other kinds, and for changes made
            before the log had these.
    """

    version: int
    kind: EventKind
    key: str
    size: int | None = None
    content_type: str | None = None
    expires_at: float | None = None


class EventList(list[ChangeEvent]):
    """Events, oldest first, that all watchers of a prefix share. Never changed once it is made.

    Hashed by identity, so that what is rendered from it can be cached for the next watcher.
    """

    __slots__ = ()
    __hash__ = object.__hash__  # type: ignore[assignment]
