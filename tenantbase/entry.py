"""What is stored: keys and entries, and the rules they must follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from tenantbase.errors import InvalidRequest
from tenantbase.scope import ScopedKey

MAX_KEY_BYTES: Final = 1024
JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
TEXT: Final = "text/plain; charset=utf-8"

# The end of year 9999 in Unix seconds: most clients cannot represent later dates.
MAX_TIME: Final = 253_402_300_799.0


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One stored value.

    Attributes:
        key: scoped. Code that shows an entry is given the plain key separately.
        value: its bytes; for a JSON content type, the JSON text as it was written.
        content_type: the media type with its parameters, as given.
        id: a UUID in its 36-character form, made when the key is created and kept while it lives.
        version: grows with every change in the database; never reused.
        expires_at: Unix seconds, or None. The entry is absent from then on.
    """

    key: ScopedKey
    value: bytes
    content_type: str
    id: str
    version: int
    expires_at: float | None

    def is_json(self) -> bool:
        """Whether the value is JSON text, which answers embed as it is."""
        return is_json(self.content_type)

    def alive(self, now: float) -> bool:
        """Whether the entry has not expired at ``now`` (Unix seconds)."""
        return self.expires_at is None or self.expires_at > now


def is_json(content_type: str) -> bool:
    """Whether a media type is JSON: ``application/json`` or any ``+json`` suffix (RFC 6839)."""
    if content_type == JSON:
        return True
    essence = content_type.partition(";")[0].strip().lower()
    return essence == JSON or essence.endswith("+json")


def check_key(key: str, field: str = "key") -> str:
    """Return ``key`` if it is a legal key.

    Raises:
        InvalidRequest: it is empty, too long, holds U+0000 or a lone surrogate.
    """
    if key.isascii() and 0 < len(key) <= MAX_KEY_BYTES and "\0" not in key:
        return key  # the fast way for nearly all keys
    if not key:
        raise InvalidRequest("a key has at least one character", field)
    check_text(key, field)
    if len(key) > MAX_KEY_BYTES or len(key.encode()) > MAX_KEY_BYTES:
        raise InvalidRequest(f"a key has at most {MAX_KEY_BYTES:,} bytes of UTF-8", field)
    return key


def check_keys(keys: Sequence[str], field: str) -> Sequence[str]:
    """Return ``keys`` if all are legal. Raises as ``check_key`` does, with ``field[index]``."""
    joined = "".join(keys)
    if joined.isascii() and "\0" not in joined and all(keys):
        if max(map(len, keys), default=0) <= MAX_KEY_BYTES:
            return keys  # a single check of all of them nearly always passes
    for index, key in enumerate(keys):
        check_key(key, f"{field}[{index}]")
    return keys


def check_text(text: str, field: str) -> str:
    """Return ``text`` (a key, a prefix, a cursor) if it can be stored as UTF-8 without U+0000.

    Raises:
        InvalidRequest: it cannot.
    """
    if "\0" in text:
        raise InvalidRequest("U+0000 is not allowed", field)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest("not valid Unicode: a lone surrogate", field) from error
    return text


def expiry(
    now: float, ttl: float | None, expires_at: float | None, keep_ttl: bool | None = False
) -> float | None:
    """When an entry expires, in Unix seconds, from what a request says.

    Args:
        now: the current time in Unix seconds.
        ttl: seconds from now, above 0; fractions are allowed.
        expires_at: Unix seconds, after now.
        keep_ttl: the entry keeps its expiry, so neither may be given.

    Raises:
        InvalidRequest: more than one was given, or one is out of range.
    """
    if keep_ttl and not (ttl is None and expires_at is None):
        raise InvalidRequest("give ttl, expires_at or keep_ttl, not two of them", "keep_ttl")
    if ttl is not None:
        if expires_at is not None:
            raise InvalidRequest("give ttl or expires_at, not both", "expires_at")
        if not (math.isfinite(ttl) and ttl > 0 and now + ttl <= MAX_TIME):
            raise InvalidRequest(
                "ttl is a number of seconds above 0 that ends before year 10000", "ttl"
            )
        return now + ttl
    if expires_at is not None and not (now < expires_at <= MAX_TIME):
        raise InvalidRequest(
            "expires_at is a time in Unix seconds, in the future and before year 10000",
            "expires_at",
        )
    return expires_at
