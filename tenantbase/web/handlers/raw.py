"""Raw values: ``/v1/values/{key}``, any bytes with their ``Content-Type``."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from aiohttp import hdrs, web

from tenantbase.database import Database
from tenantbase.entry import OCTETS, is_json
from tenantbase.errors import InvalidRequest
from tenantbase.offload.runner import ParserProcess, is_large
from tenantbase.web.answer import Answer
from tenantbase.web.caller import scope_of
from tenantbase.web.handlers.values import find
from tenantbase.web.responses import created, deleted, raw_answer, unchanged, written
from tenantbase.web.semantics.bodies import read_body
from tenantbase.web.semantics.conditions import not_modified, range_applies, write_condition
from tenantbase.web.semantics.ranges import requested
from tenantbase.web.semantics.targets import NOTHING, flag, number, path_key, query
from tenantbase.web.settings import WebSettings

_SAFE: Final = ":@!$&'()*+,;="  # in a segment of a path (RFC 3986, section 3.3)
_PUT_QUERY: Final = frozenset({"ttl", "expires_at", "keep_ttl"})


class Raw:
    """The route for one value as raw bytes."""

    def __init__(self, database: Database, settings: WebSettings, parser: ParserProcess) -> None:
        self._database = database
        self._parser = parser
        self._settings = settings

    async def get(self, request: web.Request) -> Answer:
        """``GET`` and ``HEAD``"""
        query(request, NOTHING)
        key = path_key(request)
        found = await find(self._database, request, key)
        entry = found.entry
        part = None
        if entry is not None:
            if not_modified(request, key, entry.version):
                return unchanged(entry, found.cache_status)
            # Range is defined for GET only (RFC 9110, section 14.2).
            if request.method == hdrs.METH_GET and range_applies(request, entry.version):
                part = requested(request.headers.get(hdrs.RANGE), len(entry.value))
        return raw_answer(found, part)

    async def put(self, request: web.Request) -> Answer:
        """``PUT``"""
        settings = self._settings
        parameters = query(request, _PUT_QUERY)
        key = path_key(request)
        if hdrs.CONTENT_RANGE in request.headers:
            # RFC 9110, section 14.4: a part stored as the whole would destroy the rest.
            raise InvalidRequest("a value is stored as a whole", "Content-Range")
        content_type = request.headers.get(hdrs.CONTENT_TYPE, OCTETS)
        # Check before reading the body: the client need not send one that cannot be stored anyway.
        draft = self._database.draft(
            scope_of(request),
            key,
            content_type,
            ttl=number(parameters, "ttl"),
            expires_at=number(parameters, "expires_at"),
            keep_ttl=flag(parameters, "keep_ttl"),
            condition=write_condition(request),
            content_type_field="Content-Type",
        )
        value = await read_body(request, settings.limits.max_value_bytes, settings.body_timeout)
        checked = is_json(content_type) and is_large(value)
        if checked:
            checking = self._parser.checked(value)
            del value
            value = await checking
        applied = await self._database.put(scope_of(request), draft, value, json_checked=checked)
        if applied.created:
            return created(key, applied, _location(key))
        return written(key, applied)

    async def delete(self, request: web.Request) -> Answer:
        """``DELETE``"""
        query(request, NOTHING)
        await self._database.delete(scope_of(request), path_key(request), write_condition(request))
        return deleted()


def _location(key: str) -> str:
    """The URL of the value, relative to the request target, because a proxy may serve it under a
    prefix.

    The last path segment does not work if the key has slashes, since a proxy may have unescaped
    them, or if it is a dot segment, which clients resolve even when escaped. An empty query refers
    to the path of the target as the client knows it.
    """
    if "/" in key or key in (".", ".."):
        return "?"
    return "./" + quote(key, safe=_SAFE)
