"""What a JSON body may ask to be stored, and the change it comes to."""

from __future__ import annotations

from typing import Final, Literal, TypeVar

import msgspec

from tenantbase.entry import JSON, OCTETS, check_key, expiry, is_json
from tenantbase.errors import InvalidRequest, TooLarge
from tenantbase.interfaces.store import Condition, Set
from tenantbase.json_text import Decoder, check_depth, check_json, check_names
from tenantbase.web.conditions import combined
from tenantbase.web.media_types import check_media_type


class SetValue(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The body of ``set-value``, and one entry of ``set-values``."""

    key: str
    value: msgspec.Raw
    encoding: Literal["base64"] | None = None
    content_type: str | None = None
    ttl: float | None = None
    expires_at: float | None = None
    if_version: int | None = None
    if_absent: bool | None = False


Given = TypeVar("Given", bound=SetValue)

# An object with a key and a value takes 19 bytes besides what these two take, and a third field
# at least 9 more if it is one of the two again.
_WITHOUT_REPEATS_BYTES: Final = 27


class SetValueDecoder(Decoder[Given]):
    """Decodes entries to be stored; most have no room for a field given twice."""

    def check_once(self, given: Given, text: bytes) -> None:
        if len(text) - len(given.value) - len(given.key) > _WITHOUT_REPEATS_BYTES:
            check_names(text, bytes(given.value))


SET_VALUE: Final = SetValueDecoder(SetValue)


def set_change(
    given: SetValue, condition: Condition | None, now: float, max_value_bytes: int
) -> Set:
    """The change that stores a value.

    Args:
        condition: what the request's headers demand besides.
        now: the present, in Unix seconds.

    Raises:
        InvalidRequest, TooLarge: it cannot be stored; names the field.
    """
    value, content_type = _content(given)
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


def _content(given: SetValue) -> tuple[bytes, str]:
    content_type = given.content_type
    if given.encoding is None:
        value = bytes(given.value)
        check_depth(value, "value")
        if content_type is None:
            return value, JSON
        check_media_type(content_type, "content_type")
        if not is_json(content_type):
            raise InvalidRequest(
                "a value of another type than JSON comes in base64, with an encoding that says so",
                "encoding",
            )
        return value, content_type
    content_type = OCTETS if content_type is None else content_type
    check_media_type(content_type, "content_type")
    try:
        value = msgspec.json.decode(given.value, type=bytes)
    except msgspec.ValidationError as error:
        raise InvalidRequest("a string of base64 is wanted", "value") from error
    if is_json(content_type):
        check_json(value, "value")
    return value, content_type
