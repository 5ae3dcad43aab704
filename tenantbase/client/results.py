"""What the client returns."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any, Final, Literal

import msgspec

from tenantbase.entry import is_json


class NotModified(Enum):
    """The type of ``NOT_MODIFIED``."""

    NOT_MODIFIED = "not modified"


# The entry still has the version that was given as if_none_match.
NOT_MODIFIED: Final = NotModified.NOT_MODIFIED


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry.

    Attributes:
        key: its key.
        raw: of a JSON value its exact text, of any other value its bytes.
        content_type: its media type; ``application/json`` unless it was stored with another.
        id: a UUID, made when the key was created.
        version: grows with every change in the database.
        expires_at: Unix seconds, or None; whole or not, as it was given.
    """

    key: str
    raw: bytes
    content_type: str
    id: str
    version: int
    expires_at: int | float | None

    @property
    def value(self) -> Any:
        """The JSON value as Python objects, integers exact; bytes if it is no JSON.

        Decoded anew at each use.
        """
        return json.loads(self.raw) if is_json(self.content_type) else self.raw


class Written(msgspec.Struct, frozen=True, gc=False):
    """What a write stored.

    Attributes:
        created: the key did not exist before.
    """

    key: str
    id: str
    version: int
    created: bool
    expires_at: int | float | None


class Count(msgspec.Struct, frozen=True, gc=False):
    """A counter after an increment; ``value`` is exact, however large."""

    key: str
    value: int
    id: str
    version: int
    created: bool
    expires_at: int | float | None


class Blob(msgspec.Struct, frozen=True, gc=False):
    """A raw value: its bytes and the ``Content-Type`` it was stored with."""

    content: bytes
    content_type: str
    version: int


class Put(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of ``set_many``.

    Attributes:
        value: anything that is JSON; ``msgspec.Raw`` for a text to be stored as it is.
        ttl: seconds until it expires.
        expires_at: when it expires, in Unix seconds.
        if_absent: only if there is no such key.
        if_version: only if the entry has this version.
    """

    key: str
    value: Any
    ttl: float | None = None
    expires_at: float | None = None
    if_absent: bool = False
    if_version: int | None = None


class Changed(msgspec.Struct, frozen=True, gc=False):
    """A key was set or deleted, or it expired."""

    kind: Literal["set", "delete", "expire"]
    key: str
    version: int


class Reset(msgspec.Struct, frozen=True, gc=False):
    """What happened up to ``version`` is not known in detail: read all keys with the prefix anew.

    It comes when a watcher was away for longer than the server's log of changes reaches back, when
    many keys were removed at once, and when the database was replaced by an older copy.
    """

    prefix: str
    version: int
    kind: Literal["reset"] = "reset"


Event = Changed | Reset


class Health(msgspec.Struct, frozen=True):
    """What a server says of itself.

    Attributes:
        status: ``ok``, ``degraded`` (memcached is away, or the disk has troubles) or ``unavailable``.
        store: ``ok``, ``degraded`` or ``unavailable``.
        cache: ``ok``, ``off`` or ``unavailable``.
        draining: it is about to stop.
        version: of the server's program.
        troubles: what is wrong with the disk, such as ``damaged rows``; empty: nothing.
    """

    status: str
    store: str
    cache: str
    draining: bool
    version: str
    troubles: tuple[str, ...] = ()
