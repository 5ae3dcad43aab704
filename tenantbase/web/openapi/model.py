"""The model of a route's description, and the parts that many routes share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from tenantbase.database import MAX_PAGE_ENTRIES
from tenantbase.entry import MAX_KEY_BYTES
from tenantbase.scope import DEFAULT

Schema = Mapping[str, Any]
Shape = type[msgspec.Struct]


@dataclass(frozen=True)
class Parameter:
    """A parameter: in ``query``, ``path`` or ``header``."""

    name: str
    place: str
    schema: Schema
    text: str
    required: bool = False


@dataclass(frozen=True)
class Reply:
    """A successful answer.

    Attributes:
        content: shapes, or a schema, by media type.
        headers: present in every such answer.
        sometimes: headers that may be absent.
    """

    status: int
    text: str
    content: Mapping[str, tuple[Shape, ...] | Schema] = field(default_factory=dict)
    headers: tuple[str, ...] = ("Cache-Control",)
    sometimes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """One method of one path.

    Attributes:
        problems: the types of problem it can answer with, besides those of every request.
        example: a shell command that can be run as it is.
    """

    method: str
    path: str
    name: str
    tag: str
    summary: str
    text: str
    replies: tuple[Reply, ...]
    example: str
    parameters: tuple[Parameter, ...] = ()
    body: Mapping[str, Shape | Schema] = field(default_factory=dict)
    body_required: bool = True
    problems: tuple[str, ...] = ()


KEY: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_KEY_BYTES,
    "pattern": r"^[^\u0000]+$",
}
_TEXT: Final = {"type": "string", "pattern": r"^[^\u0000]*$"}
VERSION: Final = {"type": "integer", "minimum": 0, "maximum": 10**19 - 1}
# Any text: an unknown id is answered with a reset.
EVENT_ID: Final = {"type": "string", "examples": ["7"]}
BYTES: Final[Schema] = {}
_TAG_EXAMPLE: Final = {"type": "string", "examples": ['"7"', '"7", "8"', "*"]}

IN_QUERY: Final = Parameter("key", "query", KEY, "The key, unless it is in the body.")
IN_PATH: Final = Parameter(
    "key", "path", KEY, "The key, percent-encoded. Slashes need not be encoded.", True
)
_TENANT: Final = {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"}
TENANT_NAME: Final = Parameter("name", "path", _TENANT, "The tenant's name.", True)
TENANT: Final = Parameter(
    "X-Tenant",
    "header",
    {**_TENANT, "default": DEFAULT.tenant, "examples": [DEFAULT.tenant]},
    "The tenant that an administrator's request is for. With a tenant's own token, that tenant, or"
    " nothing.",
)
PREFIX: Final = Parameter("prefix", "query", _TEXT, "Literal text that the keys begin with.")
CURSOR: Final = Parameter(
    "cursor", "query", {"type": "string"}, "The `cursor` of the previous page."
)
LIST: Final = (
    PREFIX,
    Parameter(
        "limit",
        "query",
        {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_ENTRIES},
        "The most entries and prefixes in the answer. Without it, all are listed.",
    ),
    CURSOR,
    Parameter(
        "fields",
        "query",
        {"enum": ["key", "meta"]},
        "`key`: keys only. `meta`: everything but the value, and its size.",
    ),
    Parameter("start", "query", _TEXT, "The first possible key."),
    Parameter("end", "query", _TEXT, "List keys before this one."),
    Parameter("order", "query", {"enum": ["asc", "desc"]}, "The order of keys; default `asc`."),
    Parameter(
        "delimiter",
        "query",
        _TEXT,
        "Fold all keys that have the same text between the prefix and this delimiter into one of"
        " `prefixes`. A page costs the same however many keys are folded.",
    ),
)
KEEP_TTL: Final = Parameter(
    "keep_ttl", "query", {"type": "boolean"}, "Keep the expiry that the entry has."
)
FRESH: Final = Parameter(
    "Cache-Control",
    "header",
    {"type": "string", "examples": ["no-cache", "max-stale=5"]},
    "`no-cache`: read from the database, and refresh the copy in memcached. `max-stale=N`: on a"
    " database that several machines share, a copy will do that was valid at most N seconds ago;"
    " it is used without asking the database.",
)
_IF_MATCH: Final = Parameter(
    "If-Match",
    "header",
    _TAG_EXAMPLE,
    "Only if the entry has one of these versions; `*`: only if it exists.",
)
_IF_NONE_MATCH: Final = Parameter(
    "If-None-Match",
    "header",
    _TAG_EXAMPLE,
    "Only if the entry has none of these versions; `*`: only if the key is absent.",
)
CONDITIONS: Final = (_IF_MATCH, _IF_NONE_MATCH)
EXPIRY: Final = (
    Parameter(
        "ttl",
        "query",
        {"type": "number", "exclusiveMinimum": 0},
        "Seconds until the entry expires.",
    ),
    Parameter(
        "expires_at",
        "query",
        {"type": "number", "exclusiveMinimum": 0},
        "When the entry expires, in Unix seconds.",
    ),
)
RANGE: Final = (
    Parameter("Range", "header", {"type": "string"}, "One range of bytes, such as `bytes=0-99`."),
    Parameter(
        "If-Range", "header", {"type": "string"}, "Apply `Range` only if this is still the `ETag`."
    ),
)

ENTRY_HEADERS: Final = ("ETag", "X-Cache", "Cache-Control")
RAW_HEADERS: Final = (*ENTRY_HEADERS, "Accept-Ranges", "X-Content-Type-Options")
NOT_MODIFIED: Final = Reply(
    304, "The entry still has one of these versions.", headers=ENTRY_HEADERS
)
WRITTEN_HEADERS: Final = ("ETag", "Cache-Control")
MANY_HEADERS: Final = ("Cache-Control", "Vary")
UNCHANGED: Final = Reply(304, "You have it already.", headers=(*MANY_HEADERS, "ETag"))
DELETED: Final = Reply(204, "Removed, or absent already.")

WRITE: Final = (
    "cross-origin-write",
    "condition-failed",
    "overloaded",
    "store-unavailable",
    "outcome-unknown",
    "disk-full",
    "quota-exceeded",
)
ADMINISTERING: Final = (
    "cross-origin-write",
    "overloaded",
    "store-unavailable",
    "outcome-unknown",
    "disk-full",
)
BODY: Final = ("request-timeout", "too-large")
