"""The JSON bodies of requests with values or keys, as structures.

Imports no web framework, so ``offload`` can use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple, TypeVar

import msgspec

from tenantbase.entry import is_json
from tenantbase.errors import InvalidRequest, TooLarge
from tenantbase.json_text import (
    SCALAR,
    Decoder,
    Text,
    check_depth,
    check_json,
    check_lone_list,
    check_names,
    count,
    is_at,
    parse,
)


class SetValue(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The body of ``set-value``, and one entry of ``set-values``."""

    key: str
    value: msgspec.Raw
    encoding: Literal["base64", "utf-8"] | None = None
    content_type: str | None = None
    ttl: float | None = None
    expires_at: float | None = None
    if_version: int | None = None
    if_absent: bool | None = False
    keep_ttl: bool | None = False

    @property
    def plain(self) -> bool:
        """Whether it has nothing but a key and a value."""
        return (
            self.encoding is None
            and self.content_type is None
            and self.ttl is None
            and self.expires_at is None
            and self.if_version is None
            and not self.if_absent
            and not self.keep_ttl
        )


class _SetValues(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``set-values``. Each entry is still text, to be decoded like ``set-value``'s."""

    values: list[msgspec.Raw]


class GetValues(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``get-values``."""

    keys: list[str]


GET_VALUES: Final = Decoder(GetValues)

Given = TypeVar("Given", bound=SetValue)

# An object takes 19 bytes besides its key and value; repeating a field takes at least 9 more.
_WITHOUT_REPEATS_BYTES: Final = 27

# An entry as lists and exports write it: what comes before its value, and after it. Two matches show that
# no field is repeated, and take a fifth of the time of ``check_names``.
_BEFORE_VALUE: Final = re.compile(
    rb'\s*+\{\s*+"key"\s*+:\s*+%b\s*+,\s*+"value"\s*+:\s*+' % SCALAR, re.DOTALL
)
_AFTER_VALUE: Final = re.compile(
    rb"\s*+"
    + b"".join(
        rb'(?:,\s*+"%b"\s*+:\s*+%b\s*+)?' % (name, SCALAR)
        for name in (b"id", b"version", b"expires_at", b"encoding", b"content_type", b"ttl")
    )
    + rb"\}\s*+",
    re.DOTALL,
)

_LIST_NAME: Final = b'"values"'
_COPIED_BYTES: Final = 1 << 20  # up to here copying is faster than scanning in pieces
_DECODED_BYTES: Final = 1 << 20  # of base64, at a time; divisible by four


class SetValueDecoder(Decoder[Given]):
    """Decodes entries to store. Most are too short to repeat a field, or have them in the usual order."""

    def check_once(self, given: Given, text: Text) -> None:
        if len(text) - len(given.value) - len(given.key) > _WITHOUT_REPEATS_BYTES:
            value = _text(given.value)
            if not _in_usual_order(text, value):
                check_names(text, value)


def _in_usual_order(text: Text, value: Text) -> bool:
    before = _BEFORE_VALUE.match(text)
    if before is None or not is_at(value, text, before.end()):
        return False  # or the parser took another value, because the name is repeated
    return _AFTER_VALUE.fullmatch(text, before.end() + len(value)) is not None


SET_VALUE: Final = SetValueDecoder(SetValue)


class _SetValuesDecoder(Decoder[_SetValues]):
    """Decodes lists of entries."""

    def check_once(self, given: _SetValues, text: Text) -> None:
        whole = bytes(text)
        # The list is the only member, unless there is another of that name, which may be spelled with
        # escapes. Searching for these takes a hundredth of the time that walking through the entries
        # takes.
        if whole.count(_LIST_NAME) > 1 or b"\\" in whole:
            check_lone_list(whole, map(_text, given.values))


_SET_VALUES: Final = _SetValuesDecoder(_SetValues)


class Read(NamedTuple):
    """An entry of a request.

    Attributes:
        value: the bytes to store, or the error in them; None if they are not decoded yet.
    """

    given: SetValue
    value: bytes | InvalidRequest | None = None


def split_many(text: bytes, max_entries: int) -> Sequence[msgspec.Raw]:
    """The texts of the entries of a ``set-values`` body. Raises InvalidRequest, TooLarge."""
    values = parse(_SET_VALUES, text).values
    check_count(len(values), max_entries, "values")
    return values


def read_many(texts: Sequence[msgspec.Raw]) -> Iterator[Read]:
    """The entries of a ``set-values`` body, from their texts.

    Raises:
        InvalidRequest: at the first invalid one.
    """
    for index, each in enumerate(texts):
        try:
            given = parse(SET_VALUE, _text(each))
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
    if given.encoding is None:
        value = bytes(given.value)
        _check_plain(given, value)
        return value
    value = _text_bytes(given.value) if given.encoding == "utf-8" else _decoded(given.value)
    if _is_json(given):
        check_json(value, "value")
    return value


def content_pieces(given: SetValue) -> Iterator[Text]:
    """What ``content`` returns, in pieces: a large value is not copied as a whole.

    Raises:
        InvalidRequest: before any piece, or after some.
    """
    text = memoryview(given.value)
    if given.encoding is None:
        _check_plain(given, text)
        yield text
    elif (
        given.encoding == "utf-8"
        or _is_json(given)
        or bytes(text[:1]) != b'"'
        or count(text, b"\\")
    ):
        yield content(given)
    else:
        # All but the last piece are complete groups of four characters, which make three bytes.
        for at in range(1, len(text) - 1, _DECODED_BYTES):
            piece = text[at : min(at + _DECODED_BYTES, len(text) - 1)]
            value = _decoded(b'"%b"' % bytes(piece))
            if at + len(piece) < len(text) - 1 and len(value) * 4 != len(piece) * 3:
                raise _not_base64()
            yield value


def _check_plain(given: SetValue, value: Text) -> None:
    check_depth(value, "value")
    if given.content_type is not None and not is_json(given.content_type):
        raise InvalidRequest(
            'a value that is not JSON is a string, with "encoding": "base64" or "utf-8"', "encoding"
        )


def _is_json(given: SetValue) -> bool:
    return given.content_type is not None and is_json(given.content_type)


def _decoded(text: bytes | msgspec.Raw) -> bytes:
    try:
        return msgspec.json.decode(text, type=bytes)
    except msgspec.ValidationError as error:
        raise _not_base64() from error


def _text_bytes(text: bytes | msgspec.Raw) -> bytes:
    try:
        return msgspec.json.decode(text, type=str).encode()
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidRequest("expected a string", "value") from error


def _not_base64() -> InvalidRequest:
    return InvalidRequest("expected a base64 string", "value")


def _text(raw: msgspec.Raw) -> Text:
    """The text of a part; a large one is not copied."""
    return memoryview(raw) if len(raw) > _COPIED_BYTES else bytes(raw)
