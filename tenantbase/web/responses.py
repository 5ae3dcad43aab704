"""Answers that many routes give, and their headers; their bodies are in ``documents.py``."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

from tenantbase.documents import applied_json
from tenantbase.entry import JSON, Entry
from tenantbase.lookup import CacheStatus
from tenantbase.interfaces.store import Applied
from tenantbase.media_types import is_active
from tenantbase.web.semantics.negotiation import weights
from tenantbase.web.problems import NO_SUCH_KEY, problem

NO_CACHE: Final = "no-cache"
X_CACHE: Final = "X-Cache"
ETAG: Final = "ETag"  # as the RFC spells it; aiohttp's constant does not
_COMPRESSED_FROM: Final = 4096  # bytes; below, the head outweighs what is saved


def entry_headers(entry: Entry, cache_status: CacheStatus, content_type: str) -> dict[str, str]:
    """The headers of an answer to a read of one entry."""
    return {
        hdrs.CONTENT_TYPE: content_type,
        ETAG: f'"{entry.version}"',
        X_CACHE: cache_status,
        hdrs.CACHE_CONTROL: NO_CACHE,
    }


def raw_headers(entry: Entry, cache_status: CacheStatus) -> dict[str, str]:
    """The headers of an answer that is the value itself."""
    headers = entry_headers(entry, cache_status, entry.content_type)
    headers["X-Content-Type-Options"] = "nosniff"
    headers[hdrs.ACCEPT_RANGES] = "bytes"
    if is_active(entry.content_type):
        headers[hdrs.CONTENT_DISPOSITION] = "attachment"
    return headers


def absent(cache_status: CacheStatus) -> web.Response:
    """404: there is no such key."""
    headers = {X_CACHE: cache_status, hdrs.CACHE_CONTROL: NO_CACHE}
    return problem(NO_SUCH_KEY, "there is no such key, or it has expired", headers)


def unchanged(entry: Entry, cache_status: CacheStatus) -> web.Response:
    """304: the client's copy is the newest."""
    headers = entry_headers(entry, cache_status, entry.content_type)
    del headers[hdrs.CONTENT_TYPE]
    return web.Response(status=304, headers=headers)


def written(applied: Applied, *, status: int = 200, with_value: bool = False) -> web.Response:
    """The answer to a write of one entry."""
    body = applied_json(applied, with_value)
    return web.Response(status=status, body=body, headers=written_headers(applied))


def written_headers(applied: Applied) -> dict[str, str]:
    """The headers of the answer to a write of one entry."""
    assert applied.entry is not None
    return {
        hdrs.CONTENT_TYPE: JSON,
        ETAG: f'"{applied.entry.version}"',
        hdrs.CACHE_CONTROL: NO_CACHE,
    }


def deleted() -> web.Response:
    """204: the key is absent now, whether or not it was before."""
    return web.Response(status=204, headers={hdrs.CACHE_CONTROL: NO_CACHE})


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
