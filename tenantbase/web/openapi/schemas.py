"""The shapes of answers, for their description. They are written as text; see ``documents.py``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Entry(msgspec.Struct):
    """One entry. A value that is no JSON comes in base64."""

    key: str
    value: msgspec.Raw
    id: str
    version: int
    expires_at: float | None
    encoding: Literal["base64"] | msgspec.UnsetType = msgspec.UNSET
    content_type: str | msgspec.UnsetType = msgspec.UNSET


class Key(msgspec.Struct):
    """An entry of which only the key was asked for."""

    key: str


class Written(msgspec.Struct):
    """What a write stored."""

    key: str
    id: str
    version: int
    created: bool
    expires_at: float | None


class Counted(msgspec.Struct):
    """A counter after an increment."""

    key: str
    value: Annotated[int, Meta(description="The sum.")]
    id: str
    version: int
    created: bool
    expires_at: float | None


class Page(msgspec.Struct):
    """Entries, and the cursor to what follows them."""

    values: Annotated[list[Entry], Meta(description="In byte order of keys.")]
    cursor: str | None


class KeyPage(msgspec.Struct):
    """Keys, and the cursor to what follows them."""

    values: Annotated[list[Key], Meta(description="In byte order of keys.")]
    cursor: str | None


class Found(msgspec.Struct):
    """The entries that exist, and the keys of those that do not."""

    values: Annotated[list[Entry], Meta(description="In the order of the request.")]
    missing: list[str]


class WrittenMany(msgspec.Struct):
    """What a write stored, entry by entry, in the order of the request."""

    values: Annotated[list[Written], Meta(description="One for each that was sent.")]


class Deleted(msgspec.Struct):
    """How many entries a deletion removed."""

    deleted: int


class HealthReport(msgspec.Struct):
    """How the server is. ``degraded``: it serves, but memcached is away or the disk has troubles."""

    status: Literal["ok", "degraded", "unavailable"]
    store: Literal["ok", "degraded", "unavailable"]
    troubles: Annotated[
        list[Literal["damaged rows", "disk errors", "disk full", "reads hang"]],
        Meta(description="What is wrong with the database at the moment."),
    ]
    cache: Literal["ok", "unavailable", "off"]
    draining: Annotated[
        bool, Meta(description="It is about to end; send new connections elsewhere.")
    ]
    version: Annotated[str, Meta(description="Of tenantbase.")]


class Alive(msgspec.Struct):
    """The process lives."""

    status: Literal["ok"]


class Problem(msgspec.Struct):
    """What is wrong with a request (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    field: str | msgspec.UnsetType = msgspec.UNSET
    key: str | msgspec.UnsetType = msgspec.UNSET
    version: int | msgspec.UnsetType = msgspec.UNSET
