"""Rules for JSON from outside, and the errors for JSON that breaks them.

The same rules hold for request bodies, the lines of an import and the command line:

- The input is a single JSON text in UTF-8.
- Strings hold no lone surrogates (half of a pair, such as ``\\ud83d`` alone). UTF-8 cannot encode
  them, and parsers disagree about them (RFC 8259, section 8.2).
- Values are nested at most ``MAX_DEPTH`` levels deep.
- Our own objects do not repeat a field. Inside a value, names may repeat, and are kept as written.
- Conditions and options may be null, which means the same as leaving them out. Amounts must be
  numbers.
"""

from __future__ import annotations

import re
from array import array
from codecs import utf_8_decode
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final, Generic, TypeVar

import msgspec

from tenantbase.errors import InvalidRequest

Shape = TypeVar("Shape")

Text = bytes | memoryview
"""A large text can be part of another one, without being copied."""

MAX_DEPTH: Final = 512
"""Levels of arrays and objects in a value. The parser's own limit is what is left of Python's
stack: always more than this, but different for every caller."""

_RAW: Final = msgspec.json.Decoder(msgspec.Raw)
_SCAN_BYTES: Final = 65_536  # how much is scanned at a time, for constant memory

# Possessive quantifiers do not backtrack, so matching takes linear time. Groups have no possessive
# quantifiers: on Python 3.11.2, the match of such a group includes what its last, failed repetition
# consumed.
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*"'
SCALAR: Final = rb"(?:%b|[^\"\[\]{},\s]++)" % _STRING
"""The pattern of a string, number, ``true``, ``false`` or ``null`` in valid JSON."""

# A name with its colon and, if it is a scalar, its value.
_MEMBER: Final = re.compile(
    rb"[\s,{]*+(%b)\s*+:\s*+(?:%b|[^\"\[\]{},\s]++)?" % (_STRING, _STRING), re.DOTALL
)
# Everything up to the next bracket that is not in a string.
_FLAT: Final = re.compile(rb'(?:[^"\[\]{}]++|%b)*' % _STRING, re.DOTALL)
# Between two items of a list; and from its last item to the end of the object around the list.
_GAP: Final = re.compile(rb"[\s,]*+")
_END: Final = re.compile(rb"\s*+\]\s*+\}\s*+")
_PAIR: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")

# Brackets as signed bytes, by how they change the depth; all other bytes are deleted.
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_STEPS: Final = bytes(set(range(256)) - set(b"[]{}"))

# How msgspec reports the place of an error, and a missing or unknown field. The name of an unknown
# field comes from the client: it can have any length and any characters.
_AT: Final = " - at `$"
_NAMED: Final = re.compile(r"Object (?:missing required|contains unknown) field `(.*)`", re.DOTALL)
_EXCERPT_CHARACTERS: Final = 100  # how much of a field's name an error quotes


class NotJson(InvalidRequest):
    """The text is not JSON at all (JSON that breaks one of the rules above is another error)."""


class Decoder(Generic[Shape]):
    """Decodes objects of one shape.

    Args:
        shape: a msgspec structure.
    """

    def __init__(self, shape: type[Shape]) -> None:
        self._decode = msgspec.json.Decoder(shape).decode

    def decode(self, text: Text) -> Shape:
        """Decode a JSON text.

        Raises:
            NotJson: it is not JSON.
            InvalidRequest: it does not have this shape. Names the field.
        """
        if not text:
            raise NotJson("a JSON body is required")
        check_utf8(text, None)
        try:
            given = self._decode(text)
        except msgspec.ValidationError as error:
            raise _invalid(str(error)) from error
        except msgspec.DecodeError as error:
            raise _not_json(f"the body is not valid JSON: {error}", bytes(text), None) from error
        except RecursionError as error:
            raise _too_deep(None) from error
        self.check_once(given, text)
        return given

    def decode_all(self, texts: Sequence[bytes]) -> list[Shape]:
        """As ``decode`` for each of many texts, in a few passes.

        Raises:
            InvalidRequest: one of them is invalid. The error does not say which, nor why.
        """
        check_utf8(b"\n".join(texts), None)  # where each ends, its last character must have ended
        try:
            given = list(map(self._decode, texts))
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidRequest("one of the texts is not valid") from error
        for each, text in zip(given, texts, strict=True):
            self.check_once(each, text)
        return given

    def check_once(self, given: Shape, text: Text) -> None:
        """Check that no field is repeated; msgspec would take the last. Raises InvalidRequest."""
        if count(text, b":") > 1:
            check_names(text)


def parse(decoder: Decoder[Shape], body: Text) -> Shape:
    """Decode a body. Raises InvalidRequest."""
    return decoder.decode(body)


def check_json(text: bytes, field: str | None) -> None:
    """Check that ``text`` is JSON that may be stored as a value.

    Raises:
        NotJson: it is not JSON.
        InvalidRequest: it breaks one of the other rules.
    """
    check_utf8(text, field)
    try:
        _RAW.decode(text)
    except msgspec.DecodeError as error:
        raise _not_json(f"not valid JSON: {error}", text, field) from error
    except RecursionError as error:
        raise _too_deep(field) from error
    check_depth(text, field)


def check_utf8(text: Text, field: str | None) -> None:
    """Check that ``text`` is UTF-8, which msgspec does not do for raw JSON. Raises NotJson."""
    if isinstance(text, bytes) and text.isascii():
        return
    start = 0
    while start < len(text):
        end = start + _SCAN_BYTES
        try:
            _, used = utf_8_decode(text[start:end], "strict", end >= len(text))
        except UnicodeDecodeError as error:
            raise NotJson(f"not valid UTF-8 at byte {start + error.start}", field) from error
        start += used


def check_depth(text: Text, field: str | None) -> None:
    """Check how deeply valid JSON is nested. Raises InvalidRequest."""
    if len(text) <= MAX_DEPTH:
        return
    if count(text, b"[") + count(text, b"{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise _too_deep(field)


def check_depths(texts: Iterable[bytes]) -> None:
    """As ``check_depth`` for each of many values. Raises InvalidRequest."""
    for text in texts:
        if len(text) > MAX_DEPTH:  # most are shorter, and cost no call
            check_depth(text, "value")


def count(text: Text, byte: bytes) -> int:
    """How often a byte is in a text."""
    if isinstance(text, bytes):
        return text.count(byte)
    return sum(piece.count(byte) for piece in _pieces(text))


def _pieces(text: Text) -> Iterator[bytes]:
    for start in range(0, len(text), _SCAN_BYTES):
        yield bytes(text[start : start + _SCAN_BYTES])


def _depth(text: Text) -> int:
    """The depth of a valid JSON text."""
    in_string = depth = deepest = start = 0
    while start < len(text):
        piece = bytes(text[start : start + _SCAN_BYTES])
        start += len(piece)
        if start < len(text) and (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # half an escape
            piece = piece[:-1]
            start -= 1
        if b"\\" in piece:  # after this, every quotation mark begins or ends a string
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = piece.split(b'"')
        steps = array("b", b"".join(parts[in_string::2]).translate(_STEPS, _NO_STEPS))
        in_string ^= (len(parts) - 1) & 1
        if steps:
            deepest = max(deepest, depth + max(accumulate(steps)))
            depth += sum(steps)
    return deepest


def check_names(text: Text, value: Text | None = None) -> None:
    """Check that an object does not repeat a name. Nested objects are not checked.

    Args:
        text: a valid JSON object.
        value: if only one name may have an array or an object as its value, the text of the last
            such value. Since it may be large, it is skipped, not scanned.

    Raises:
        InvalidRequest: with the name that is repeated.
    """
    seen = set()
    position = 0
    while member := _MEMBER.match(text, position):
        name = member[1][1:-1].decode()
        if "\\" in name:
            name = msgspec.json.decode(member[1], type=str)
        if name in seen:
            raise given_twice(name)
        seen.add(name)
        position = member.end()
        if value is None or text[position : position + 1] not in (b"[", b"{"):
            position = _after_value(text, position)
        elif is_at(value, text, position):
            position += len(value)
        else:  # the parser took a later value, so the name is repeated
            raise given_twice(name)


def check_lone_list(text: bytes, items: Iterable[Text]) -> None:
    """Check that an object has a single member, which is this list. Raises InvalidRequest.

    Args:
        text: a valid JSON object whose members all have the same name, and are lists.
        items: the texts of the last list's items. Since they may be large, they are skipped, not
            scanned.
    """
    member = _MEMBER.match(text)
    assert member is not None
    position = member.end() + 1
    for item in items:
        position = _after(_GAP, text, position)
        if not is_at(item, text, position):
            break
        position += len(item)
    else:
        if _END.fullmatch(text, position):
            return
    raise given_twice(msgspec.json.decode(member[1], type=str))


def is_at(part: Text, text: Text, position: int) -> bool:
    """Whether a text has this part at a position."""
    if isinstance(part, bytes) and isinstance(text, bytes):
        return text.startswith(part, position)
    there = memoryview(text)[position : position + len(part)]
    # Python compares views byte by byte.
    return len(there) == len(part) and all(
        one == other for one, other in zip(_pieces(there), _pieces(part), strict=True)
    )


def _after(pattern: re.Pattern[bytes], text: Text, position: int) -> int:
    match = pattern.match(text, position)
    assert match is not None  # these patterns match the empty string
    return match.end()


def given_twice(name: str) -> InvalidRequest:
    """The error for an object that repeats a name."""
    return InvalidRequest(f"field {name!r} is given more than once", name)


def _after_value(text: Text, position: int) -> int:
    """The end of the array or object at ``position``, or ``position`` if none begins there."""
    depth = 0
    while position < len(text):
        byte = text[position]
        if byte in b"[{":
            depth += 1
        elif byte in b"]}" and depth:
            depth -= 1
        elif not depth:  # the comma or the bracket after a scalar
            return position
        position += 1
        if not depth:
            return position
        position = _after(_FLAT, text, position)
    return position


def _not_json(detail: str, text: bytes, field: str | None) -> InvalidRequest:
    # msgspec reports lone surrogates as truncated or malformed.
    if b"\\u" in text:
        escapes = _PAIR.sub(b"", text.replace(b"\\\\", b""))
        if lone := _SURROGATE.search(escapes):
            return InvalidRequest(
                f"the JSON holds a lone surrogate, {lone[0].decode()}: it is not a character and"
                " cannot be stored",
                field,
            )
    return NotJson(detail, field)


def _too_deep(field: str | None) -> InvalidRequest:
    return InvalidRequest(
        f"the JSON is nested too deeply: a value may have at most {MAX_DEPTH} levels", field
    )


def _invalid(message: str) -> InvalidRequest:
    """Translate an error of msgspec, whose text ends with a place such as ``$.values[3].ttl``."""
    detail, at, place = message.rpartition(_AT)
    if at:
        place = place.removesuffix("`").removeprefix(".")
    else:
        detail, place = message, ""
    if named := _NAMED.fullmatch(detail):
        name = named[1]
        if len(name) > _EXCERPT_CHARACTERS:
            name = name[:_EXCERPT_CHARACTERS] + "..."
            detail = f"{detail[:named.start(1)]}{name}`"
        place = f"{place}.{name}" if place else name
    return InvalidRequest(detail[:1].lower() + detail[1:], place or None)
