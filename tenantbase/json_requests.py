"""What a JSON body may ask to be stored. Imports no web framework: see ``checking.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple, TypeVar

import msgspec

from tenantbase.entry import OCTETS, is_json
from tenantbase.errors import InvalidRequest, TooLarge
from tenantbase.json_text import (
    Decoder,
    check_depth,
    check_json,
    check_lone_list,
    check_names,
    parse,
)


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


class _SetValues(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``set-values``, each entry still as text: so it is decoded as the one of
    ``set-value`` is."""

    values: list[msgspec.Raw]


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


class _SetValuesDecoder(Decoder[_SetValues]):
    """Decodes lists of entries."""

    def check_once(self, given: _SetValues, text: bytes) -> None:
        check_lone_list(text, map(bytes, given.values))


_SET_VALUES: Final = _SetValuesDecoder(_SetValues)


class Read(NamedTuple):
    """An entry as it was given.

    Attributes:
        value: the bytes to be stored, what is wrong with them, or None: not looked at so far.
    """

    given: SetValue
    value: bytes | InvalidRequest | None = None


def read_many(text: bytes, max_entries: int) -> Iterator[Read]:
    """The entries of a body of ``set-values``.

    Raises:
        InvalidRequest, TooLarge: at the first entry that is no such thing, or before any.
    """
    values = parse(_SET_VALUES, text).values
    check_count(len(values), max_entries, "values")
    for index, each in enumerate(values):
        try:
            given = parse(SET_VALUE, bytes(each))
        except InvalidRequest as error:
            place(error, index)
            raise
        yield Read(given)


def place(error: InvalidRequest, index: int) -> None:
    """Say that the field an error names is one of this entry of ``set-values``."""
    entry = f"values[{index}]"
    error.field = f"{entry}.{error.field}" if error.field else entry


def check_count(count: int, max_entries: int, field: str) -> None:
    """Return if one request may have so many entries. Raises TooLarge."""
    if count > max_entries:
        raise TooLarge(f"one request has at most {max_entries:,} entries", field)


def content(given: SetValue) -> bytes:
    """The bytes to be stored. Raises InvalidRequest."""
    content_type = given.content_type
    if given.encoding is None:
        value = bytes(given.value)
        check_depth(value, "value")
        if content_type is not None and not is_json(content_type):
            raise InvalidRequest(
                "a value of another type than JSON comes in base64, with an encoding that says so",
                "encoding",
            )
        return value
    try:
        value = msgspec.json.decode(given.value, type=bytes)
    except msgspec.ValidationError as error:
        raise InvalidRequest("a string of base64 is wanted", "value") from error
    if is_json(OCTETS if content_type is None else content_type):
        check_json(value, "value")
    return value
