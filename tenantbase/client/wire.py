"""The JSON that goes over the wire, and how it is made and read."""

from __future__ import annotations

import json
from typing import Literal, TypeVar

import msgspec

from tenantbase.client.errors import UnexpectedAnswer
from tenantbase.client.results import Entry, Put, Written
from tenantbase.entry import JSON

Shape = TypeVar("Shape")


class FoundEntry(msgspec.Struct):
    """An entry in an answer."""

    key: str
    value: msgspec.Raw
    id: str
    version: int
    expires_at: int | float | None
    content_type: str = JSON
    encoding: Literal["base64"] | None = None

    def entry(self) -> Entry:
        """The entry with its value as it is stored."""
        raw = bytes(self.value)
        if self.encoding is not None:
            raw = msgspec.json.decode(raw, type=bytes)
        return Entry(self.key, raw, self.content_type, self.id, self.version, self.expires_at)


class EntryPage(msgspec.Struct):
    """A page of a list; without a cursor, the answer to ``get-values`` by POST."""

    values: list[FoundEntry]
    cursor: str | None = None


class KeyOnly(msgspec.Struct):
    """An entry of a list of keys."""

    key: str


class KeyPage(msgspec.Struct):
    """A page of a list of keys."""

    values: list[KeyOnly]
    cursor: str | None = None


class WrittenMany(msgspec.Struct):
    """The answer to ``set-values``."""

    values: list[Written]


class Deleted(msgspec.Struct):
    """The answer to ``delete-values``."""

    deleted: int


class Increment(msgspec.Struct, omit_defaults=True):
    """The body of ``increment-value``."""

    key: str
    by: int = 1
    initial: int = 0
    ttl: float | None = None
    expires_at: float | None = None
    if_version: int | None = None


def json_body(body: object) -> bytes:
    """A body as JSON; integers may be of any size.

    Raises:
        TypeError, ValueError: it holds something that is no JSON.
    """
    return msgspec.json.encode(body)


def put_body(put: Put) -> Put:
    """The same with its value as JSON text, to be encoded as it is.

    Raises:
        TypeError, ValueError: the value is no JSON; NaN and infinity are none.
    """
    if isinstance(put.value, msgspec.Raw):
        return put
    # The standard library's encoder: msgspec's turns NaN into null and bytes into base64.
    text = json.dumps(put.value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return msgspec.structs.replace(put, value=msgspec.Raw(text.encode()))


def parse(body: bytes, shape: type[Shape]) -> Shape:
    """The structure in an answer. Raises UnexpectedAnswer."""
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.MsgspecError as error:
        raise UnexpectedAnswer(f"the answer is none of a tenantbase server: {error}") from error
