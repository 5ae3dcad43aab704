"""What the client returns."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any, Final, Literal

import msgspec

from tenantbase.access import Token, TokenScope
from tenantbase.entry import is_json


class NotModified(Enum):
    """The type of ``NOT_MODIFIED``."""

    NOT_MODIFIED = "not modified"


# The entry still has the version given as if_none_match.
NOT_MODIFIED: Final = NotModified.NOT_MODIFIED


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry.

    Attributes:
        raw: the exact text of a JSON value, the bytes of any other.
        content_type: the media type; ``application/json`` unless stored with another.
        id: a UUID, assigned when the key was created.
        version: grows with every change in the database.
        expires_at: Unix seconds, or None; an int or a float, as it was given.
    """

    key: str
    raw: bytes
    content_type: str
    id: str
    version: int
    expires_at: int | float | None

    @property
    def value(self) -> Any:
        """The JSON value as Python objects, with exact integers; other values as bytes.

        Decoded on every access.
        """
        return json.loads(self.raw) if is_json(self.content_type) else self.raw


class EntryMeta(msgspec.Struct, frozen=True, gc=False):
    """An entry without its value; see ``Entry``. ``size`` is in bytes."""

    key: str
    id: str
    version: int
    expires_at: int | float | None
    content_type: str
    size: int


class Folder(msgspec.Struct, frozen=True, gc=False):
    """All keys that begin with ``prefix``, as one item of ``browse``."""

    prefix: str


class Total(msgspec.Struct, frozen=True, gc=False):
    """Entries counted, and the bytes of their keys and values."""

    entries: int
    bytes: int


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
        value: anything that JSON can express, or ``msgspec.Raw`` with its exact text.
        ttl: seconds until it expires.
        expires_at: when it expires, in Unix seconds.
        keep_ttl: an existing entry keeps its expiry.
        if_absent: only if the key does not exist.
        if_version: only if the entry has this version.
    """

    key: str
    value: Any
    ttl: float | None = None
    expires_at: float | None = None
    keep_ttl: bool = False
    if_absent: bool = False
    if_version: int | None = None


class Changed(msgspec.Struct, frozen=True, gc=False):
    """A key was set or deleted, or it expired.

    Attributes:
        size, content_type, expires_at: of the entry, if it was set: the bytes of its value, its media
            type, and Unix seconds or None.
    """

    kind: Literal["set", "delete", "expire"]
    key: str
    version: int
    size: int | None = None
    content_type: str | None = None
    expires_at: int | float | None = None


class Reset(msgspec.Struct, frozen=True, gc=False):
    """The single changes up to ``version`` are not available: read all keys with the prefix again.

    Sent when a watcher was away for longer than the change log reaches back, when many keys were
    deleted at once, and when the database was replaced by an older copy.
    """

    prefix: str
    version: int
    kind: Literal["reset"] = "reset"


Event = Changed | Reset


class Health(msgspec.Struct, frozen=True):
    """A server's health.

    Attributes:
        status: ``ok``, ``degraded`` (without memcached, or with ``troubles``) or ``unavailable``.
        store: ``ok``, ``degraded`` or ``unavailable``.
        cache: ``ok``, ``degraded`` (some of several memcacheds are away), ``unavailable`` or ``off``.
        draining: the server is shutting down.
        version: the version of the server's software.
        troubles: what is wrong with the database, such as ``damaged rows``; empty if nothing is.
        cache_away: the memcacheds that are away, by their places in ``--memcached``, from 1.
    """

    status: str
    store: str
    cache: str
    draining: bool
    version: str
    troubles: tuple[str, ...] = ()
    cache_away: tuple[int, ...] = ()


class Tenant(msgspec.Struct, frozen=True):
    """A tenant, its usage and its limits; a limit of None is no limit.

    Attributes:
        entries: how many it has. Expired ones count until they are removed, shortly after.
        bytes: of its keys and values together.
        max_requests_per_second: over all workers of a server.
    """

    name: str
    entries: int
    bytes: int
    max_entries: int | None
    max_bytes: int | None
    max_requests_per_second: int | None


class NewToken(Token, frozen=True, kw_only=True):
    """A token that was just made.

    Attributes:
        token: the secret, to be given to its user. The server does not keep it. It is not in the
            ``repr``.
    """

    token: str

    def __repr__(self) -> str:
        return (
            f"NewToken(id={self.id!r}, name={self.name!r}, scope={str(self.scope)!r}, token='***')"
        )


class OwnToken(msgspec.Struct, frozen=True):
    """The token that a client sends; see ``Token``."""

    id: str
    name: str
    expires_at: float | None


class Caller(msgspec.Struct, frozen=True):
    """What a server takes a client for.

    Attributes:
        scope: what it may do. While the server is open, everyone is ``ADMIN``.
        tenant: the tenant that its token belongs to; None: to none.
        prefix: what its keys must begin with; None: any key.
        max_value_bytes: the largest value that the server takes.
        token: None while the server is open.
    """

    scope: TokenScope
    tenant: str | None
    prefix: str | None
    max_value_bytes: int
    token: OwnToken | None
