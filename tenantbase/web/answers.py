"""Answers: entries as JSON, and the headers that go with them.

A JSON value is put into an answer as the text it was written as. Decoding and encoding it again
would change numbers that Python has no exact type for.
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import Final

import msgspec
from aiohttp import hdrs, web

from tenantbase.entry import JSON, Entry
from tenantbase.found import Source
from tenantbase.interfaces.store import Applied
from tenantbase.web.media_types import is_active
from tenantbase.web.negotiation import weights
from tenantbase.web.problems import NO_SUCH_KEY, problem

NO_CACHE: Final = "no-cache"
X_CACHE: Final = "X-Cache"
ETAG: Final = "ETag"  # as the RFC spells it; aiohttp's constant does not
_NULL: Final = b"null"
_COMPRESSED_FROM: Final = 4096  # bytes; below, the head outweighs what is saved

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


def entry_headers(entry: Entry, source: Source, content_type: str) -> dict[str, str]:
    """The headers of an answer to a read of one entry."""
    return {
        hdrs.CONTENT_TYPE: content_type,
        ETAG: f'"{entry.version}"',
        X_CACHE: source.value,
        hdrs.CACHE_CONTROL: NO_CACHE,
    }


def raw_headers(entry: Entry, source: Source) -> dict[str, str]:
    """The headers of an answer that is the value itself."""
    headers = entry_headers(entry, source, entry.content_type)
    headers["X-Content-Type-Options"] = "nosniff"
    headers[hdrs.ACCEPT_RANGES] = "bytes"
    if is_active(entry.content_type):
        headers[hdrs.CONTENT_DISPOSITION] = "attachment"
    return headers


def absent(source: Source) -> web.Response:
    """404: there is no such key."""
    headers = {X_CACHE: source.value, hdrs.CACHE_CONTROL: NO_CACHE}
    return problem(NO_SUCH_KEY, "there is no such key, or it has expired", headers)


def unchanged(entry: Entry, source: Source) -> web.Response:
    """304: the client's copy is the newest."""
    headers = entry_headers(entry, source, entry.content_type)
    del headers[hdrs.CONTENT_TYPE]
    return web.Response(status=304, headers=headers)


def written(applied: Applied, *, status: int = 200, with_value: bool = False) -> web.Response:
    """The answer to a write of one entry."""
    assert applied.entry is not None
    return web.Response(
        status=status,
        body=applied_json(applied, with_value),
        headers={
            hdrs.CONTENT_TYPE: JSON,
            ETAG: f'"{applied.entry.version}"',
            hdrs.CACHE_CONTROL: NO_CACHE,
        },
    )


def collection(request: web.BaseRequest, body: bytes, content_type: str = JSON) -> web.Response:
    """An answer with many entries; compressed if it is large and the client takes that."""
    response = web.Response(body=body, headers=collection_headers(content_type))
    coding = accepted_coding(request)
    if coding is not None and len(body) >= _COMPRESSED_FROM:
        response.enable_compression(coding)
    return response


def collection_headers(content_type: str) -> dict[str, str]:
    """The headers of an answer with many entries."""
    return {
        hdrs.CONTENT_TYPE: content_type,
        hdrs.CACHE_CONTROL: NO_CACHE,
        hdrs.VARY: hdrs.ACCEPT_ENCODING,
    }


def accepted_coding(request: web.BaseRequest) -> web.ContentCoding | None:
    """How an answer may be compressed (RFC 9110, section 12.5.3); None: not at all."""
    text = request.headers.get(hdrs.ACCEPT_ENCODING)
    if text is None:
        return None
    accepted = weights(text)
    for coding in (web.ContentCoding.gzip, web.ContentCoding.deflate):
        if accepted.get(coding.value, accepted.get("*", 0.0)) > 0:
            return coding
    return None
