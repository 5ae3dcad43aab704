"""The JSON body of a write, as structures. Imports no web framework, so ``offload`` can use it."""

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
    """The body of ``set-values``. Each entry is still text, to be decoded like ``set-value``'s."""

    values: list[msgspec.Raw]


Given = TypeVar("Given", bound=SetValue)

# An object takes 19 bytes besides its key and value; repeating a field takes at least 9 more.
_WITHOUT_REPEATS_BYTES: Final = 27


class SetValueDecoder(Decoder[Given]):
    """Decodes entries to store. Most are too short to repeat a field and are not scanned for it."""

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
    """An entry of a request.

    Attributes:
        value: the bytes to store, or the error in them; None if they are not decoded yet.
    """

    given: SetValue
    value: bytes | InvalidRequest | None = None


def read_many(text: bytes, max_entries: int) -> Iterator[Read]:
    """The entries of a ``set-values`` body.

    Raises:
        InvalidRequest, TooLarge: before any entry, or at the first invalid one.
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
    """Put the entry's place in ``set-values`` before the field that an error names."""
    entry = f"values[{index}]"
    error.field = f"{entry}.{error.field}" if error.field else entry


def check_count(count: int, max_entries: int, field: str) -> None:
    """Check the number of entries in a request. Raises TooLarge."""
    if count > max_entries:
        raise TooLarge(f"a request may have at most {max_entries:,} entries", field)


def content(given: SetValue) -> bytes:
    """The bytes to store. Raises InvalidRequest."""
    content_type = given.content_type
    if given.encoding is None:
        value = bytes(given.value)
        check_depth(value, "value")
        if content_type is not None and not is_json(content_type):
            raise InvalidRequest(
                'a value that is not JSON must be in base64, with "encoding": "base64"',
                "encoding",
            )
        return value
    try:
        value = msgspec.json.decode(given.value, type=bytes)
    except msgspec.ValidationError as error:
        raise InvalidRequest("expected a base64 string", "value") from error
    if is_json(OCTETS if content_type is None else content_type):
        check_json(value, "value")
    return value
