"""All answers except errors, with their headers; ``documents.py`` renders the bodies.

A header is defined here once. aiohttp's path sends these answers as they are; the fast path makes
its byte templates from them when it starts.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from aiohttp import hdrs

from tenantbase.commands import Applied
from tenantbase.documents import (
    LARGE_BYTES,
    applied_json,
    entry_json,
    entry_pieces,
    entry_size,
    pieces,
)
from tenantbase.entry import JSON, Entry
from tenantbase.lookup import CacheStatus, Lookup
from tenantbase.media_types import is_active
from tenantbase.web.answer import Answer, Pieces, Stream
from tenantbase.web.problems import NO_SUCH_KEY, problem

SERVER: Final = "tenantbase"
EVENT_STREAM: Final = "text/event-stream"
X_CACHE: Final = "X-Cache"
ETAG: Final = "ETag"  # as the RFC spells it; aiohttp's constant does not
NO_SNIFF: Final = ("X-Content-Type-Options", "nosniff")
_NO_CACHE: Final = "no-cache"  # may be stored, but must be revalidated before each use
_PRIVATE: Final = "private, no-cache"
_NO_STORE: Final = "no-store"
_FOREVER: Final = "public, max-age=31536000, immutable"
# The console runs only its own files and talks only to this server. It shows values as text, and its
# images are blobs that it creates. Svelte's policy turns the markup of its own components into nodes.
CONSOLE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types svelte-trusted-html"
)
_METHODS: Final = "DELETE, GET, HEAD, OPTIONS, POST, PUT"


def common_headers(*, varies_by_origin: bool = False, closes: bool = False) -> dict[str, str]:
    """The headers of every answer, errors and refusals included.

    Args:
        varies_by_origin: some origins get CORS headers.
        closes: the connection ends after this answer.
    """
    headers: dict[str, str] = {hdrs.SERVER: SERVER}
    if closes:
        headers[hdrs.CONNECTION] = "close"
    if varies_by_origin:
        headers[hdrs.VARY] = hdrs.ORIGIN
    return headers


def make_private(headers: dict[str, str]) -> None:
    """Change the headers of an answer to a request with a token: no shared cache may store it."""
    if headers.get(hdrs.CACHE_CONTROL, _NO_CACHE) == _NO_CACHE:
        headers[hdrs.CACHE_CONTROL] = _PRIVATE


def entry_headers(entry: Entry, cache_status: CacheStatus, content_type: str) -> dict[str, str]:
    """The headers of an answer to a read of one entry."""
    return {
        hdrs.CONTENT_TYPE: content_type,
        ETAG: f'"{entry.version}"',
        X_CACHE: cache_status.value,
        hdrs.CACHE_CONTROL: _NO_CACHE,
    }


def written_headers(entry: Entry) -> dict[str, str]:
    """The headers of an answer to a write of one entry."""
    return {
        hdrs.CONTENT_TYPE: JSON,
        ETAG: f'"{entry.version}"',
        hdrs.CACHE_CONTROL: _NO_CACHE,
    }


def entry_answer(key: str, lookup: Lookup) -> Answer:
    """200 with the entry as JSON, or 404."""
    entry = lookup.entry
    if entry is None:
        return absent(lookup.cache_status)
    headers = entry_headers(entry, lookup.cache_status, JSON)
    if len(entry.value) > LARGE_BYTES:
        return Answer(200, headers, Pieces(entry_pieces(key, entry), entry_size(key, entry)))
    return Answer(200, headers, entry_json(key, entry))


def raw_answer(lookup: Lookup, part: slice | None = None) -> Answer:
    """200 with the value itself, or 404; with ``part``, 206 and that part of its bytes."""
    entry = lookup.entry
    if entry is None:
        return absent(lookup.cache_status)
    value = entry.value
    headers = entry_headers(entry, lookup.cache_status, entry.content_type)
    headers.update([NO_SNIFF])
    headers[hdrs.ACCEPT_RANGES] = "bytes"
    if is_active(entry.content_type):
        headers[hdrs.CONTENT_DISPOSITION] = "attachment"
    if part is not None:
        headers[hdrs.CONTENT_RANGE] = f"bytes {part.start}-{part.stop - 1}/{len(value)}"
        return Answer(206, headers, value[part])
    if len(value) > LARGE_BYTES:
        return Answer(200, headers, Pieces(pieces(value), len(value)))
    return Answer(200, headers, value)


def absent(cache_status: CacheStatus) -> Answer:
    """404: there is no such key."""
    headers: dict[str, str] = {X_CACHE: cache_status.value, hdrs.CACHE_CONTROL: _NO_CACHE}
    return problem(NO_SUCH_KEY, "there is no such key, or it has expired", headers)


def unchanged(entry: Entry, cache_status: CacheStatus) -> Answer:
    """304: the client's copy is current."""
    headers = entry_headers(entry, cache_status, entry.content_type)
    del headers[hdrs.CONTENT_TYPE]
    return Answer(304, headers)


def written(key: str, applied: Applied, *, with_value: bool = False) -> Answer:
    """200 after a write of one entry."""
    assert applied.entry is not None
    return Answer(200, written_headers(applied.entry), applied_json(key, applied, with_value))


def created(key: str, applied: Applied, location: str) -> Answer:
    """201 after a write that created the key at a URL of its own."""
    answer = written(key, applied)
    answer.status = 201
    answer.headers[hdrs.LOCATION] = location
    return answer


def deleted() -> Answer:
    """204: the key is absent now, whether or not it existed."""
    return Answer(204, {hdrs.CACHE_CONTROL: _NO_CACHE})


def collection(body: bytes | Stream, content_type: str = JSON) -> Answer:
    """200 with many entries, or with another document that may be long."""
    headers: dict[str, str] = {
        hdrs.CONTENT_TYPE: content_type,
        hdrs.CACHE_CONTROL: _NO_CACHE,
        hdrs.VARY: hdrs.ACCEPT_ENCODING,
    }
    return Answer(200, headers, body, compressible=True)


def figures(body: bytes, content_type: str = JSON) -> Answer:
    """200 with figures of this moment, which no cache may store."""
    headers: dict[str, str] = {hdrs.CONTENT_TYPE: content_type, hdrs.CACHE_CONTROL: _NO_STORE}
    return Answer(200, headers, body, compressible=True)


def secret(body: bytes) -> Answer:
    """201 with something that is shown only once, and that no cache may store."""
    return Answer(201, {hdrs.CONTENT_TYPE: JSON, hdrs.CACHE_CONTROL: _NO_STORE}, body)


def page(html: bytes, policy: str) -> Answer:
    """200 with a page for browsers and its content security policy."""
    answer = collection(html, "text/html; charset=utf-8")
    answer.headers["Content-Security-Policy"] = policy
    answer.headers.update([NO_SNIFF])
    return answer


def console_page(html: bytes | None, tag: str, coding: str) -> Answer:
    """200 with the console's index page; None: 304, because the client has it.

    Args:
        tag: its entity tag, in quotes.
        coding: its content coding.
    """
    headers: dict[str, str] = {
        ETAG: tag,
        hdrs.CACHE_CONTROL: _NO_CACHE,
        hdrs.VARY: f"{hdrs.ACCEPT}, {hdrs.ACCEPT_ENCODING}",
    }
    if html is None:
        return Answer(304, headers)
    headers[hdrs.CONTENT_TYPE] = "text/html; charset=utf-8"
    headers["Content-Security-Policy"] = CONSOLE_POLICY
    headers["Referrer-Policy"] = "no-referrer"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers.update([NO_SNIFF])
    return Answer(200, _encoded(headers, coding), html)


def asset(body: bytes, content_type: str, coding: str) -> Answer:
    """200 with a file of the console. Its name changes with its content, so it may be cached forever."""
    headers: dict[str, str] = {
        hdrs.CONTENT_TYPE: content_type,
        hdrs.CACHE_CONTROL: _FOREVER,
        hdrs.VARY: hdrs.ACCEPT_ENCODING,
    }
    headers.update([NO_SNIFF])
    return Answer(200, _encoded(headers, coding), body)


def _encoded(headers: dict[str, str], coding: str) -> dict[str, str]:
    if coding != "identity":
        headers[hdrs.CONTENT_ENCODING] = coding
    return headers


def hint(text: bytes) -> Answer:
    """200 with plain text for a program that opens a page for browsers."""
    headers: dict[str, str] = {
        hdrs.CONTENT_TYPE: "text/plain; charset=utf-8",
        hdrs.CACHE_CONTROL: _NO_CACHE,
        hdrs.VARY: f"{hdrs.ACCEPT}, {hdrs.ACCEPT_ENCODING}",
    }
    headers.update([NO_SNIFF])
    return Answer(200, headers, text)


def state(body: bytes, *, serves: bool = True) -> Answer:
    """The server's health as JSON: 200 if it serves, 503 if not."""
    answer = Answer(200, {hdrs.CONTENT_TYPE: JSON, hdrs.CACHE_CONTROL: _NO_STORE}, body)
    if not serves:
        answer.status = 503
        answer.headers[hdrs.RETRY_AFTER] = "1"
    return answer


def options(*, whole_server: bool) -> Answer:
    """204: the methods of the whole server, or of its root."""
    methods = _METHODS if whole_server else "GET, HEAD, OPTIONS"
    return Answer(204, {hdrs.ALLOW: methods, hdrs.CACHE_CONTROL: _NO_STORE})


def events(blocks: AsyncGenerator[bytes, None] | None) -> Answer:
    """200 with server-sent events without end; None: only the headers, for ``HEAD``."""
    headers: dict[str, str] = {
        hdrs.CONTENT_TYPE: EVENT_STREAM,
        hdrs.CACHE_CONTROL: _NO_STORE,
        "X-Accel-Buffering": "no",  # or nginx, and proxies that imitate it, buffer events
    }
    if blocks is None:
        return Answer(200, headers)
    return Answer(200, headers, Stream(blocks, live=True), closes=True)
