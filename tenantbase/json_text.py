"""JSON from outside: which of it is accepted, and how the rest is refused.

The same rules hold for request bodies, lines of an import and the command line:

- It is UTF-8, and one JSON text.
- A string holds no lone surrogate (half of a pair, such as ``\\ud83d`` by itself). It has no form
  in UTF-8, and parsers disagree about it (RFC 8259, section 8.2).
- A value is nested at most ``MAX_DEPTH`` levels deep.
- One of our own objects has each field at most once. What is inside a value is the client's own
  affair, and comes back as it was written.
- A condition or an option may also be null, which means the same as leaving it out. Amounts are
  numbers.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from itertools import accumulate
from typing import Final, Generic, TypeVar

import msgspec

from tenantbase.errors import InvalidRequest

Shape = TypeVar("Shape")

MAX_DEPTH: Final = 512
"""Levels of arrays and objects in a value. The parser's own limit is what is left of Python's
stack: always more than this, but different in every caller."""

_RAW: Final = msgspec.json.Decoder(msgspec.Raw)
_SCAN_BYTES: Final = 65_536  # looked at in one go, so that scanning takes constant memory

# Possessive quantifiers: a match that fails is not tried in other ways, so time is linear.
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
# A name with its colon and, if it is a scalar, its value.
_MEMBER: Final = re.compile(
    rb"[\s,{]*+(%b)\s*+:\s*+(?:%b|[^\"\[\]{},\s]++)?+" % (_STRING, _STRING), re.DOTALL
)
# Everything up to the next bracket outside strings.
_FLAT: Final = re.compile(rb'(?:[^"\[\]{}]++|%b)*+' % _STRING, re.DOTALL)
# Between two items of a list, and from the last item to the end of the object around the list.
_GAP: Final = re.compile(rb"[\s,]*+")
_END: Final = re.compile(rb"\s*+\]\s*+\}\s*+")
_PAIR: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")

# What changes the depth, as signed bytes; everything else is deleted.
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_STEPS: Final = bytes(set(range(256)) - set(b"[]{}"))

# How msgspec says where an error is, and which field is missing or unknown. The name of an unknown
# field is the client's, of any length and with any characters.
_AT: Final = " - at `$"
_NAMED: Final = re.compile(r"Object (?:missing required|contains unknown) field `(.*)`", re.DOTALL)
_EXCERPT: Final = 100  # characters of a name that are repeated in an error


class NotJson(InvalidRequest):
    """The text breaks JSON's grammar, and not only one of the further rules."""


class Decoder(Generic[Shape]):
    """Decodes objects of one shape.

    Args:
        shape: a structure of msgspec.
    """

    def __init__(self, shape: type[Shape]) -> None:
        self._decode = msgspec.json.Decoder(shape).decode

    def decode(self, text: bytes) -> Shape:
        """The structure that a JSON text describes.

        Raises:
            NotJson, InvalidRequest: no JSON, or not of this shape; names the field.
        """
        if not text:
            raise NotJson("a JSON body is required")
        check_utf8(text, None)
        try:
            given = self._decode(text)
        except msgspec.ValidationError as error:
            raise _invalid(str(error)) from error
        except msgspec.DecodeError as error:
            raise _not_json(f"the body is not valid JSON: {error}", text, None) from error
        except RecursionError as error:
            raise _too_deep(None) from error
        self.check_once(given, text)
        return given

    def check_once(self, given: Shape, text: bytes) -> None:
        """Return if no field is given twice: msgspec takes the last. Raises InvalidRequest."""
        if text.count(b":") > 1:
            check_names(text)


def parse(decoder: Decoder[Shape], body: bytes) -> Shape:
    """What ``decoder`` makes of a body. Raises InvalidRequest."""
    return decoder.decode(body)


def check_json(text: bytes, field: str | None) -> None:
    """Return if ``text`` is JSON that may be stored as a value.

    Raises:
        NotJson: it is not JSON.
        InvalidRequest: it is not to be stored.
    """
    check_utf8(text, field)
    try:
        _RAW.decode(text)
    except msgspec.DecodeError as error:
        raise _not_json(f"not valid JSON: {error}", text, field) from error
    except RecursionError as error:
        raise _too_deep(field) from error
    check_depth(text, field)


def check_utf8(text: bytes, field: str | None) -> None:
    """Return if ``text`` is UTF-8: msgspec does not check what it returns as raw JSON."""
    if text.isascii():
        return
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise NotJson(f"not valid UTF-8 at byte {error.start}", field) from error


def check_depth(text: bytes, field: str | None) -> None:
    """Return if valid JSON is not nested too deeply. Raises InvalidRequest."""
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise _too_deep(field)


def _depth(text: bytes) -> int:
    """How deep a valid JSON text is nested."""
    if b"\\" in text:  # afterwards every quotation mark begins or ends a string
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    in_string = depth = deepest = 0
    for start in range(0, len(text), _SCAN_BYTES):
        parts = text[start : start + _SCAN_BYTES].split(b'"')
        steps = array("b", b"".join(parts[in_string::2]).translate(_STEPS, _NO_STEPS))
        in_string ^= (len(parts) - 1) & 1
        if steps:
            deepest = max(deepest, depth + max(accumulate(steps)))
            depth += sum(steps)
    return deepest


def check_names(text: bytes, value: bytes | None = None) -> None:
    """Return if an object has each name once. Nested objects are not looked into.

    Args:
        text: a valid JSON object.
        value: the text of the last value of the only member that may be an array or an object,
            where that is known. It may be large, and is not scanned.

    Raises:
        InvalidRequest: names the name.
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
        elif text.startswith(value, position):
            position += len(value)
        else:  # another one comes, which was taken
            raise given_twice(name)


def check_lone_list(text: bytes, items: Iterable[bytes]) -> None:
    """Return if an object has a single member, which is this list. Raises InvalidRequest.

    Args:
        text: a valid JSON object whose members all have the same name, and are lists.
        items: the texts of what is in the last of them. They may be large, and are not scanned.
    """
    member = _MEMBER.match(text)
    assert member is not None
    position = member.end() + 1
    for item in items:
        position = _behind(_GAP, text, position)
        if not text.startswith(item, position):
            break
        position += len(item)
    else:
        if _END.fullmatch(text, position):
            return
    raise given_twice(msgspec.json.decode(member[1], type=str))


def _behind(pattern: re.Pattern[bytes], text: bytes, position: int) -> int:
    match = pattern.match(text, position)
    assert match is not None  # these match the empty string
    return match.end()


def given_twice(name: str) -> InvalidRequest:
    """The error for an object with two members of one name."""
    return InvalidRequest(f"field {name!r} is given more than once", name)


def _after_value(text: bytes, position: int) -> int:
    """The end of the array or object at ``position``; if none begins there, ``position``."""
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
        position = _behind(_FLAT, text, position)
    return position


def _not_json(detail: str, text: bytes, field: str | None) -> InvalidRequest:
    # msgspec finds lone surrogates, but calls them truncated or malformed.
    if b"\\u" in text:
        escapes = _PAIR.sub(b"", text.replace(b"\\\\", b""))
        if lone := _SURROGATE.search(escapes):
            return InvalidRequest(
                f"the JSON holds a lone surrogate, {lone[0].decode()}, which is not a character"
                " and cannot be stored",
                field,
            )
    return NotJson(detail, field)


def _too_deep(field: str | None) -> InvalidRequest:
    return InvalidRequest(
        f"the JSON is nested too deeply: a value has at most {MAX_DEPTH} levels", field
    )


def _invalid(message: str) -> InvalidRequest:
    """An error of msgspec, whose text names a place like ``$.values[3].ttl``."""
    detail, at, place = message.rpartition(_AT)
    if at:
        place = place.removesuffix("`").removeprefix(".")
    else:
        detail, place = message, ""
    if named := _NAMED.fullmatch(detail):
        name = named[1]
        if len(name) > _EXCERPT:
            name = name[:_EXCERPT] + "..."
            detail = f"{detail[:named.start(1)]}{name}`"
        place = f"{place}.{name}" if place else name
    return InvalidRequest(detail[:1].lower() + detail[1:], place or None)
