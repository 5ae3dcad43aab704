"""The change that a JSON body comes to."""

from __future__ import annotations

from tenantbase.entry import JSON, OCTETS, check_key, expiry
from tenantbase.errors import InvalidRequest, TooLarge
from tenantbase.json_requests import SetValue, content
from tenantbase.interfaces.store import Condition, Set
from tenantbase.web.semantics.conditions import combined
from tenantbase.web.semantics.media_types import check_media_type


def set_command(
    given: SetValue,
    condition: Condition | None,
    now: float,
    max_value_bytes: int,
    value: bytes | InvalidRequest | None = None,
) -> Set:
    """The change that stores a value.

    Args:
        condition: what the request's headers demand besides.
        now: the present, in Unix seconds.
        value: what is to be stored, or what is wrong with it, where that is known.

    Raises:
        InvalidRequest, TooLarge: it cannot be stored; names the field.
    """
    content_type = given.content_type
    if content_type is None:
        content_type = JSON if given.encoding is None else OCTETS
    else:
        check_media_type(content_type, "content_type")
    if value is None:
        value = content(given)
    elif isinstance(value, InvalidRequest):
        raise value
    check_size(value, max_value_bytes)
    return Set(
        check_key(given.key),
        value,
        content_type,
        expiry(now, given.ttl, given.expires_at),
        combined(condition, given.if_version, bool(given.if_absent)),
    )


def check_size(value: bytes, max_value_bytes: int) -> None:
    """Return if a value of this size may be stored. Raises TooLarge."""
    if len(value) > max_value_bytes:
        raise TooLarge(f"a value has at most {max_value_bytes:,} bytes", "value")
