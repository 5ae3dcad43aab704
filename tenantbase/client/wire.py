"""The JSON of requests and answers: shapes, encoding, decoding and checks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Final, Literal, TypeVar

import msgspec

from tenantbase.access import Token
from tenantbase.client.errors import UnexpectedAnswer
from tenantbase.client.results import Entry, EntryMeta, Put, Tenant, Written
from tenantbase.entry import JSON

Shape = TypeVar("Shape")

JSON_HEADERS: Final = {"Content-Type": "application/json"}


class FoundEntry(msgspec.Struct):
    """An entry in an answer."""

    key: str
    value: msgspec.Raw
    id: str
    version: int
    expires_at: int | float | None
    content_type: str = JSON
    encoding: Literal["base64", "utf-8"] | None = None

    def entry(self) -> Entry:
        """The entry, with its value decoded from base64."""
        raw = bytes(self.value)
        if self.encoding == "base64":
            raw = msgspec.json.decode(raw, type=bytes)
        elif self.encoding is not None:
            raw = msgspec.json.decode(raw, type=str).encode()
        return Entry(self.key, raw, self.content_type, self.id, self.version, self.expires_at)


def exact(entry: Entry, body: bytes) -> bytes:
    """A value's exact bytes in an answer to ``get-value``, including white space around JSON."""
    # The server copies JSON text into its answer unchanged, but the decoder strips white space.
    # These markers cannot occur inside a string, where their quotation marks would be escaped.
    start, end = body.find(b'"value":') + len(b'"value":'), body.rfind(b',"id":"')
    text = body[start:end]
    return text if text.strip(b" \t\r\n") == entry.raw else entry.raw


class EntryPage(msgspec.Struct):
    """A page of a list; or, without a cursor, the answer to ``POST /get-values``."""

    values: list[FoundEntry]
    cursor: str | None = None


class KeyOnly(msgspec.Struct):
    """An item of a list of keys."""

    key: str


class KeyPage(msgspec.Struct):
    """A page of a list of keys."""

    values: list[KeyOnly]
    cursor: str | None = None


class MetaPage(msgspec.Struct):
    """A page of a list of entries without their values."""

    values: list[EntryMeta]
    cursor: str | None = None


class FoldedPage(MetaPage):
    """A ``MetaPage`` with the folders into which keys were folded."""

    prefixes: list[str] = []


class Counted(msgspec.Struct):
    """The answer to ``count``."""

    count: int
    bytes: int
    cursor: str | None = None


class WrittenMany(msgspec.Struct):
    """The answer to ``set-values``."""

    values: list[Written]


class Deleted(msgspec.Struct):
    """The answer to ``delete-values``."""

    deleted: int
    values: list[FoundEntry] = []


class PutRaw(msgspec.Struct, omit_defaults=True):
    """The body of ``set-value`` for bytes."""

    key: str
    value: bytes
    content_type: str
    ttl: float | None = None
    expires_at: float | None = None
    keep_ttl: bool = False
    if_absent: bool = False
    if_version: int | None = None
    encoding: Literal["base64", ""] = ""  # always pass "base64": a default is omitted


class Increment(msgspec.Struct, omit_defaults=True):
    """The body of ``increment-value``."""

    key: str
    by: int = 1
    initial: int = 0
    ttl: float | None = None
    expires_at: float | None = None
    if_version: int | None = None


class Rename(msgspec.Struct, omit_defaults=True):
    """The body of ``rename-value``."""

    key: str
    to: str
    copy: bool = False
    replace: bool = False
    if_version: int | None = None


class Tenants(msgspec.Struct):
    """The answer to ``GET /v1/tenants``."""

    tenants: list[Tenant]


class PutTenant(msgspec.Struct):
    """The body of ``PUT /v1/tenants/{name}``: a limit that is UNSET is left out."""

    max_entries: int | None | msgspec.UnsetType
    max_bytes: int | None | msgspec.UnsetType
    max_requests_per_second: int | None | msgspec.UnsetType


class Tokens(msgspec.Struct):
    """The answer to ``GET /v1/tokens``."""

    tokens: list[Token]


class CreateToken(msgspec.Struct, omit_defaults=True):
    """The body of ``POST /v1/tokens``."""

    name: str
    scope: str
    tenant: str | None = None
    prefix: str | None = None
    ttl: float | None = None


def json_body(body: object) -> bytes:
    """A body as JSON; integers may be of any size.

    Raises:
        TypeError, ValueError: JSON cannot express it.
    """
    return msgspec.json.encode(body)


def check_finite(**numbers: float | None) -> None:
    """Raise a ValueError that names the number if JSON cannot express it.

    It would be sent as null, and null means that an entry never expires.
    """
    for name, number in numbers.items():
        if number is not None and not math.isfinite(number):
            raise ValueError(f"{name} must be a finite number of seconds, not {number}")


def put_body(put: Put) -> Put:
    """The same ``Put`` with its value encoded as JSON text.

    Raises:
        TypeError, ValueError: JSON cannot express the value, or a time is not finite.
    """
    check_finite(ttl=put.ttl, expires_at=put.expires_at)
    if isinstance(put.value, msgspec.Raw):
        return put
    # The standard library's encoder, because msgspec's turns NaN into null and bytes into base64.
    text = json.dumps(put.value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return msgspec.structs.replace(put, value=msgspec.Raw(text.encode()))


def parse(body: bytes, shape: type[Shape]) -> Shape:
    """Decode an answer. Raises UnexpectedAnswer."""
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.MsgspecError as error:
        raise UnexpectedAnswer(f"the answer is not from a tenantbase server: {error}") from error


def check_keys(asked: Iterable[str], answered: Iterable[str]) -> None:
    """Raise UnexpectedAnswer if an answer is about a key that was not requested."""
    others = set(answered).difference(asked)
    if others:
        raise UnexpectedAnswer(
            f"the answer is about another key, {min(others)!r}: something between client and server"
            " changes requests or mixes up answers"
        )
