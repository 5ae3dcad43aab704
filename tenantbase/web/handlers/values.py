"""The routes for one value: ``set-value``, ``get-value``, ``delete-value``."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

import msgspec
from aiohttp import hdrs, web

from tenantbase.database import Database
from tenantbase.documents import LARGE_BYTES
from tenantbase.errors import InvalidRequest
from tenantbase.json_requests import SET_VALUE, Read
from tenantbase.json_text import Decoder, parse
from tenantbase.lookup import Lookup
from tenantbase.offload.child import Job
from tenantbase.offload.runner import ParserProcess, is_large
from tenantbase.web.answer import Answer
from tenantbase.web.caller import scope_of
from tenantbase.web.responses import deleted, entry_answer, unchanged, written
from tenantbase.web.semantics.bodies import keys_bytes, read_body
from tenantbase.web.semantics.conditions import not_modified, write_condition
from tenantbase.web.semantics.negotiation import max_stale, wants_fresh
from tenantbase.web.semantics.targets import NOTHING, integer, query
from tenantbase.web.settings import WebSettings

Given = TypeVar("Given", str, int)


class GetValue(msgspec.Struct, forbid_unknown_fields=True):
    """The body that ``get-value`` may have instead of a query."""

    key: str | None = None


class DeleteValue(msgspec.Struct, forbid_unknown_fields=True):
    """The body that ``delete-value`` may have instead of a query."""

    key: str | None = None
    if_version: int | None = None


_GET: Final = Decoder(GetValue)
_DELETE: Final = Decoder(DeleteValue)
_GET_QUERY: Final = frozenset({"key"})
_DELETE_QUERY: Final = frozenset({"key", "if_version"})


class Values:
    """The routes for one value."""

    def __init__(self, database: Database, settings: WebSettings, parser: ParserProcess) -> None:
        self._database = database
        self._parser = parser
        self._settings = settings

    async def set(self, request: web.Request) -> Answer:
        """``POST /set-value``"""
        query(request, NOTHING)
        condition = write_condition(request)
        # Keep no reference to the body while the write waits.
        given, value = await self._read(await self._body(request, self._settings.max_request_bytes))
        writing = self._database.set(scope_of(request), given, condition, value)
        key = given.key
        del given, value
        return written(key, await writing)

    async def _read(self, body: bytes) -> Read:
        if not is_large(body):
            return Read(parse(SET_VALUE, body))
        reading = self._parser.read(Job.ENTRY, body)
        del body
        (read,) = await reading
        return read

    async def get(self, request: web.Request) -> Answer:
        """``GET /get-value``"""
        key = query(request, _GET_QUERY).get("key")
        if request.body_exists:
            body = await self._body(request, keys_bytes(self._settings))
            key = _same(key, parse(_GET, body).key if body else None, "key")
        key = _required(key)
        found = await find(self._database, request, key)
        entry = found.entry
        if entry is not None and not_modified(request, key, entry.version):
            return unchanged(entry, found.cache_status)
        if entry is not None and len(entry.value) > LARGE_BYTES:
            return await asyncio.to_thread(entry_answer, key, found)  # it scans the whole value
        return entry_answer(key, found)

    async def delete(self, request: web.Request) -> Answer:
        """``DELETE /delete-value``

        The answer is 204 even if the key was absent, so that a retry does not fail. With
        ``if_version`` or ``If-Match`` it is 412, because it is unknown which version was deleted.
        """
        parameters = query(request, _DELETE_QUERY)
        key, if_version = parameters.get("key"), integer(parameters, "if_version")
        if request.body_exists:
            body = await self._body(request, keys_bytes(self._settings))
            given = parse(_DELETE, body) if body else DeleteValue()
            key = _same(key, given.key, "key")
            if_version = _same(if_version, given.if_version, "if_version")
        condition = write_condition(request)
        await self._database.delete(
            scope_of(request), _required(key), condition, if_version=if_version
        )
        return deleted()

    async def _body(self, request: web.Request, limit: int) -> bytes:
        return await read_body(request, limit, self._settings.body_timeout)


async def find(database: Database, request: web.Request, key: str) -> Lookup:
    """Read one entry, as fresh as ``Cache-Control`` asks for."""
    wanted = request.headers.get(hdrs.CACHE_CONTROL, "")
    if wants_fresh(wanted):
        return await database.refresh(scope_of(request), key)
    return await database.get(scope_of(request), key, max_stale=max_stale(wanted))


def _required(key: str | None) -> str:
    if key is None:
        raise InvalidRequest("a key is required, in the query or in a JSON body", "key")
    return key


def _same(in_query: Given | None, in_body: Given | None, field: str) -> Given | None:
    if in_query is None:
        return in_body
    if in_body is not None and in_body != in_query:
        raise InvalidRequest(f"{field} differs between the query and the body", field)
    return in_query
