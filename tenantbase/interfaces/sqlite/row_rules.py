"""What the columns of an entry have to be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tenantbase.entry import MAX_TIME, check_key, is_json
from tenantbase.errors import InvalidRequest
from tenantbase.json_text import NotJson, check_json
from tenantbase.media_types import is_media_type
from tenantbase.scope import Scope, plain_key, tenant_of

_TYPES: Final = re.compile(b"text integer (null|real) text text blob")
_UUID: Final = re.compile(b"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHOWN_CHARACTERS: Final = 200


def shown(key: object) -> str:
    """A scoped key, or anything else that is stored in its place, as messages show it."""
    if not isinstance(key, bytes):
        return repr(key)
    text = key.decode(errors="backslashreplace")
    if "/" not in text:
        return repr(text[:_SHOWN_CHARACTERS])
    return f"key {plain_key(text)[:_SHOWN_CHARACTERS]!r} of tenant {tenant_of(text)[:64]!r}"


def mistakes(row: Sequence[Any], last: int | None) -> Iterator[str]:
    """What is wrong with a row by itself.

    Args:
        row: the columns of the table, text as bytes, and SQLite's types of all but the first.
        last: the last version that was given out; None: not known.
    """
    created, key, version, expires_at, identifier, content_type, value, types = row
    if not _TYPES.fullmatch(types):
        yield "its columns have the wrong types"
        return
    try:
        text = key.decode()
        Scope(tenant_of(text))
        check_key(plain_key(text))
    except (UnicodeDecodeError, InvalidRequest) as error:
        yield f"it is not a legal key: {error}"
    if not 0 < created <= version:
        yield f"its version, {version}, is below that of its creation, {created}"
    if last is not None and version > last:
        yield f"its version, {version}, is above the last one, {last}"
    if expires_at is not None and not 0 <= expires_at <= MAX_TIME:
        yield f"it cannot expire at {expires_at}"
    if not _UUID.fullmatch(identifier):
        yield "its id is not a UUID"
    try:
        kind = content_type.decode()
        if not is_media_type(kind):
            yield "its content type is not a media type"
        if is_json(kind):
            check_json(value, "value")
    except UnicodeDecodeError:
        yield "its content type is not text"
    except NotJson as error:
        yield f"its value is not JSON: {error}"
    except InvalidRequest as error:
        yield f"its value does not decode: {error}"
