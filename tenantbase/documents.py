"""Entries, and what became of writes, as JSON documents: for answers, files and terminals.

A JSON value is put into a document as the text it was written as. Decoding and encoding it again
would change numbers that Python has no exact type for.
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import Final

import msgspec

from tenantbase.entry import JSON, Entry
from tenantbase.interfaces.store import Applied

_NULL: Final = b"null"

# Line ends occur in JSON between tokens only, never within strings.
_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")

_json = msgspec.json.encode


def entry_json(entry: Entry) -> bytes:
    """An entry as a JSON object: ``key``, ``value``, ``id``, ``version``, ``expires_at``.

    What is no JSON comes in base64, with ``encoding`` and ``content_type``; JSON of another
    type than plain ``application/json`` has its ``content_type``.
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
        _json(entry.key),
        value,
        entry.id.encode(),
        entry.version,
        _moment(entry.expires_at),
        more,
    )


def as_line(document: bytes) -> bytes:
    """A JSON text as one line."""
    return document.translate(_ONE_LINE) + b"\n"


def applied_json(applied: Applied, with_value: bool = False) -> bytes:
    """What a write made: ``key``, ``id``, ``version``, ``created``, ``expires_at``."""
    entry = applied.entry
    assert entry is not None
    return b'{"key":%b%b,"id":"%b","version":%d,"created":%b,"expires_at":%b}' % (
        _json(entry.key),
        b',"value":' + entry.value if with_value else b"",
        entry.id.encode(),
        entry.version,
        b"true" if applied.created else b"false",
        _moment(entry.expires_at),
    )


def _moment(expires_at: float | None) -> bytes:
    if expires_at is None:
        return _NULL
    return _json(int(expires_at) if expires_at.is_integer() else expires_at)
