"""Entries and results of writes as JSON documents, for answers, files and terminals.

Keys are given beside entries, as their clients write them; the key in an entry is scoped.

A JSON value is copied into a document as the text that was stored. Decoding and re-encoding it
would change numbers that Python has no exact type for.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Iterator
from typing import Final

import msgspec

from tenantbase.commands import Applied
from tenantbase.entry import JSON, Entry

_NULL: Final = b"null"

# JSON allows line breaks only between tokens, never inside strings.
_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")

PIECE_BYTES: Final = 3 << 15
"""Large answers are made and sent in pieces of about this size, with other requests in between. Larger
pieces would also take more time in all: they leave the processor's caches between their copies."""

LARGE_BYTES: Final = 1 << 20
"""A larger value is encoded in pieces: base64 blocks the event loop for 2 ms per MiB."""

_json = msgspec.json.encode


def entry_json(key: str, entry: Entry) -> bytes:
    """An entry as a JSON object: ``key``, ``value``, ``id``, ``version``, ``expires_at``.

    A value that is not JSON is base64, with ``encoding`` and ``content_type``. ``content_type`` is
    also included if the type is JSON other than plain ``application/json``.
    """
    content_type = entry.content_type
    if content_type == JSON:
        value, more = entry.value, b""
    elif entry.is_json():
        value, more = entry.value, b',"content_type":' + _json(content_type)
    else:
        value = b'"' + b2a_base64(entry.value, newline=False) + b'"'
        more = b',"encoding":"base64","content_type":' + _json(content_type)
    return b'{"key":%b,"value":%b,"id":"%b","version":%d,"expires_at":%b%b}' % (
        _json(key),
        value,
        entry.id.encode(),
        entry.version,
        _NULL if entry.expires_at is None else _moment(entry.expires_at),
        more,
    )


def entry_pieces(key: str, entry: Entry) -> Iterator[bytes]:
    """What ``entry_json`` returns, in pieces of bounded size, for large values."""
    as_json = entry.is_json()
    before, after = _around(key, entry, as_json)
    yield before
    for piece in pieces(entry.value):
        # The size of a piece is divisible by three, so base64 pads only the last one.
        yield piece if as_json else b2a_base64(piece, newline=False)
    yield after


def entry_size(key: str, entry: Entry) -> int:
    """The length of what ``entry_json`` returns, in bytes."""
    as_json, size = entry.is_json(), len(entry.value)
    return sum(map(len, _around(key, entry, as_json))) + (size if as_json else (size + 2) // 3 * 4)


def _around(key: str, entry: Entry, as_json: bool) -> tuple[bytes, bytes]:
    """What ``entry_json`` writes before the value, and after it."""
    # Let entry_json write it, with the value 0 as a placeholder.
    document = entry_json(key, msgspec.structs.replace(entry, value=b"0", content_type=JSON))
    start = b'{"key":%b,"value":' % _json(key)
    rest = document[len(start) + 1 : -1]
    if as_json:
        more = (
            b"" if entry.content_type == JSON else b',"content_type":' + _json(entry.content_type)
        )
        return start, rest + more + b"}"
    more = b',"encoding":"base64","content_type":' + _json(entry.content_type)
    return start + b'"', b'"' + rest + more + b"}"


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
        _NULL if entry.expires_at is None else _moment(entry.expires_at),
    )


def _moment(expires_at: float) -> bytes:
    return _json(int(expires_at) if expires_at.is_integer() else expires_at)
