"""Entries and results of writes as JSON documents, for answers, files and terminals.

Keys are given beside entries, as their clients write them; the key in an entry is scoped.

A JSON value is copied into a document as the text that was stored. Decoding and re-encoding it
would change numbers that Python has no exact type for.
"""

from __future__ import annotations

from binascii import b2a_base64
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum, auto
from functools import partial
from typing import Final, cast

import msgspec

from tenantbase.commands import Applied
from tenantbase.entry import JSON, Entry
from tenantbase.listing import EntryMeta
from tenantbase.lookup import DOCUMENT_BYTES, Lookup
from tenantbase.media_types import is_text
from tenantbase.plain_entries import Columns

_NULL: Final = b"null"
_UTF_8: Final = "utf-8"
_BASE64: Final = "base64"

# JSON allows line breaks only between tokens, never inside strings.
_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")

PIECE_BYTES: Final = 3 << 15
"""Large answers are made and sent in pieces of about this size, with other requests in between."""

LARGE_BYTES: Final = 1 << 20
"""A larger value is encoded in pieces: base64 blocks the event loop for 2 ms per MiB."""

_json = msgspec.json.Encoder().encode
_Raw = msgspec.Raw


class _Document(msgspec.Struct, frozen=True, gc=False):
    """The JSON object of an entry. ``value`` is a JSON text, which is copied as it is."""

    key: str
    value: msgspec.Raw
    id: str
    version: int
    expires_at: float | None
    encoding: str | msgspec.UnsetType = msgspec.UNSET
    content_type: str | msgspec.UnsetType = msgspec.UNSET


def entry_json(key: str, entry: Entry) -> bytes:
    """An entry as a JSON object: ``key``, ``value``, ``id``, ``version``, ``expires_at``.

    A value that is not JSON is a string: its text if its type is ``text/*`` and it is valid UTF-8, and
    base64 otherwise. ``encoding`` says which, and ``content_type`` follows. ``content_type`` is also
    included if the type is JSON other than plain ``application/json``.
    """
    if entry.content_type == JSON and entry.expires_at is None:  # nearly always
        return _json(_Document(key, _Raw(entry.value), entry.id, entry.version, None))
    return _json(_document(key, entry))


def lookup_json(key: str, lookup: Lookup) -> bytes:
    """Like ``entry_json``, for the entry of a lookup, which remembers the result unless it is large.

    Args:
        key: the plain key of that entry.
    """
    document = lookup.document
    if document is None:
        assert lookup.entry is not None
        document = entry_json(key, lookup.entry)
        if len(lookup.entry.value) <= DOCUMENT_BYTES:
            lookup.document = document
    return document


VALUES_BEGIN: Final = b'{"values":['
"""The beginning of the document of ``get-values``: then come entries, and ``values_end``."""


def values_end(missing: Sequence[str]) -> bytes:
    """The end of the document of ``get-values``, with the keys that do not exist."""
    return b'],"missing":%b}' % _json(missing)


def values_json(keys: Sequence[str], lookups: Sequence[Lookup], most: int) -> bytes | None:
    """The whole document of ``get-values``: the result for each plain key.

    Args:
        most: the greatest length.

    Returns: None if it would be longer. Then nothing large has been rendered.
    """
    documents: Sequence[bytes]
    missing: Sequence[str] = ()
    remembered = [each.document for each in lookups]
    if all(remembered):  # nearly always
        documents = cast("Sequence[bytes]", remembered)
    elif sum(each.bytes for each in lookups) > most:
        return None
    else:
        documents, missing = found_and_missing(list(zip(keys, lookups, strict=True)))
    end = values_end(missing)
    commas = max(0, len(documents) - 1)
    if len(VALUES_BEGIN) + sum(map(len, documents)) + commas + len(end) > most:
        return None
    return b"".join((VALUES_BEGIN, b",".join(documents), end))


def found_and_missing(
    results: Sequence[tuple[str, Lookup]],
) -> tuple[list[bytes], Sequence[str]]:
    """The documents of the entries among the results for plain keys, and the keys without one."""
    documents = [
        each.document or lookup_json(key, each) for key, each in results if each.entry is not None
    ]
    if len(documents) == len(results):  # nearly always
        return documents, ()
    return documents, [key for key, each in results if each.entry is None]


def entries_json(keys: Iterable[str], entries: Iterable[Entry]) -> bytes:
    """What ``entry_json`` returns for each of the entries, separated by commas, at a lower cost."""
    return _json(
        [
            (
                _Document(key, _Raw(entry.value), entry.id, entry.version, None)
                if entry.content_type == JSON and entry.expires_at is None
                else _document(key, entry)
            )
            for key, entry in zip(keys, entries, strict=True)
        ]
    )[1:-1]


def plain_json(entries: Columns, plain: slice, before: bytes = b"") -> bytes:
    """What ``entries_json`` returns for these entries, at the lowest cost.

    Args:
        plain: the part of their keys to show.
        before: what to begin with. To put it there later would copy everything.
    """
    keys, values, ids, versions = entries
    count = len(keys)
    parts = [b'","value":'] * (8 * count)
    parts[0::8] = [b',"expires_at":null},{"key":"'] * count
    parts[0] = before + b'{"key":"'
    parts[1::8] = _shown_keys(keys, plain)
    parts[3::8] = values
    parts[4::8] = [b',"id":"'] * count
    parts[5::8] = ids
    parts[6::8] = [b'","version":'] * count
    parts[7::8] = versions
    parts.append(b',"expires_at":null}')
    return b"".join(parts)


def _shown_keys(keys: list[str], plain: slice) -> list[bytes]:
    """These keys, without the tenant's name that all of them begin with, as JSON strings without quotes."""
    # All of them are encoded at once. A quote in a key has a backslash before it, and no tenant's name begins
    # with a comma, so only what lies between two keys can look like this.
    hidden = _json(keys[0][: plain.start])[1:-1]
    return _json(keys)[2 + len(hidden) : -2].split(b'","' + hidden)


def _document(key: str, entry: Entry) -> _Document:
    expires_at = None if entry.expires_at is None else _moment(entry.expires_at)
    content_type = entry.content_type
    document = partial(_Document, key, id=entry.id, version=entry.version, expires_at=expires_at)
    if content_type == JSON:
        return document(value=_Raw(entry.value))
    document = partial(document, content_type=content_type)
    if entry.is_json():
        return document(value=_Raw(entry.value))
    if (text := _text(entry)) is not None:
        return document(value=_Raw(_json(text)), encoding=_UTF_8)
    encoded = b'"' + b2a_base64(entry.value, newline=False) + b'"'
    return document(value=_Raw(encoded), encoding=_BASE64)


def meta_json(key: str, meta: EntryMeta) -> bytes:
    """An entry without its value, as a JSON object: ``key``, ``id``, ``version``, ``expires_at``,
    ``content_type``, ``size``."""
    return b'{"key":%b,"id":"%b","version":%d,"expires_at":%b,"content_type":%b,"size":%d}' % (
        _json(key),
        meta.id.encode(),
        meta.version,
        _NULL if meta.expires_at is None else _json(_moment(meta.expires_at)),
        _json(meta.content_type),
        meta.size,
    )


def entry_pieces(key: str, entry: Entry) -> Iterator[bytes]:
    """What ``entry_json`` returns, in pieces of bounded size, for large values."""
    kind = _kind(entry)
    before, after = _around(key, entry, kind)
    yield before
    yield from _value_pieces(entry.value, kind)
    yield after


def entry_size(key: str, entry: Entry) -> int:
    """The length of what ``entry_json`` returns, in bytes.

    For a text, this means escaping it, which takes a tenth of a second at 64 MiB.
    """
    kind, size = _kind(entry), len(entry.value)
    if kind is _Kind.BASE64:
        size = (size + 2) // 3 * 4
    elif kind is _Kind.TEXT:
        size = sum(map(len, _value_pieces(entry.value, kind)))
    return sum(map(len, _around(key, entry, kind))) + size


class _Kind(Enum):
    """How a value is written into a document."""

    JSON = auto()
    TEXT = auto()
    BASE64 = auto()


def _kind(entry: Entry) -> _Kind:
    if entry.is_json():
        return _Kind.JSON
    if is_text(entry.content_type) and _is_utf8(entry.value):
        return _Kind.TEXT
    return _Kind.BASE64


def _text(entry: Entry) -> str | None:
    if not is_text(entry.content_type):
        return None
    try:
        return entry.value.decode()
    except UnicodeDecodeError:
        return None


def _is_utf8(value: bytes) -> bool:
    if value.isascii():
        return True
    try:
        for _ in _decoded(value):
            pass  # without keeping the text, which may take four times the memory
    except UnicodeDecodeError:
        return False
    return True


def _decoded(value: bytes) -> Iterator[str]:
    decoder = getincrementaldecoder("utf-8")()
    for piece in pieces(value):
        yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)


def _value_pieces(value: bytes, kind: _Kind) -> Iterator[bytes]:
    if kind is _Kind.JSON:
        yield from pieces(value)
    elif kind is _Kind.TEXT:
        for text in _decoded(value):
            yield _json(text)[1:-1]  # without its quotes
    else:
        for piece in pieces(value):
            # The size of a piece is divisible by three, so base64 pads only the last one.
            yield b2a_base64(piece, newline=False)


def _around(key: str, entry: Entry, kind: _Kind) -> tuple[bytes, bytes]:
    """What ``entry_json`` writes before the value, and after it."""
    # Let entry_json write it, with the value 0 as a placeholder.
    document = entry_json(key, msgspec.structs.replace(entry, value=b"0", content_type=JSON))
    start = b'{"key":%b,"value":' % _json(key)
    rest = document[len(start) + 1 : -1]
    content_type = _json(entry.content_type)
    if kind is _Kind.JSON:
        more = b"" if entry.content_type == JSON else b',"content_type":' + content_type
        return start, rest + more + b"}"
    encoding = _json(_UTF_8 if kind is _Kind.TEXT else _BASE64)
    return start + b'"', b'"%b,"encoding":%b,"content_type":%b}' % (rest, encoding, content_type)


def pieces(value: bytes) -> Iterator[bytes]:
    """A value in pieces of ``PIECE_BYTES``."""
    for at in range(0, len(value), PIECE_BYTES):
        yield value[at : at + PIECE_BYTES]


def as_line(document: bytes) -> bytes:
    """A JSON text as one line."""
    return in_one_line(document) + b"\n"


def in_one_line(piece: bytes) -> bytes:
    """A piece of a JSON text with its line breaks replaced by spaces."""
    return piece.translate(_ONE_LINE)


def change_details(size: int, content_type: str | None, expires_at: float | None) -> bytes:
    """The members ``size``, ``content_type`` and ``expires_at`` of a change event, with a comma
    before each."""
    return b',"size":%d,"content_type":%b,"expires_at":%b' % (
        size,
        _json(content_type),
        _NULL if expires_at is None else _json(_moment(expires_at)),
    )


def applied_json(key: str, applied: Applied, with_value: bool = False) -> bytes:
    """The result of a write: ``key``, ``id``, ``version``, ``created``, ``expires_at``."""
    entry = applied.entry
    assert entry is not None
    return b'{"key":%b%b,"id":"%b","version":%d,"created":%b,"expires_at":%b}' % (
        _json(key),
        b',"value":' + entry.value if with_value else b"",
        entry.id.encode(),
        entry.version,
        b"true" if applied.created else b"false",
        _NULL if entry.expires_at is None else _json(_moment(entry.expires_at)),
    )


def _moment(expires_at: float) -> float:
    return int(expires_at) if expires_at.is_integer() else expires_at
