"""The routes for many values: ``get-values``, ``set-values``, ``delete-values`` by POST."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from tenantbase.offload.runner import Apart, is_large
from tenantbase.coherence.policy import Cache
from tenantbase.offload.child import Job
from tenantbase.documents import PIECE_BYTES, applied_json, entry_json, entry_pieces
from tenantbase.entry import check_keys, check_text
from tenantbase.errors import InvalidRequest
from tenantbase.json_requests import Read, SetValue, check_count, place, read_many
from tenantbase.interfaces.store import Command, Condition, Delete, DeletePrefix, Set
from tenantbase.web.answer import Answer, Stream
from tenantbase.web.responses import collection
from tenantbase.json_text import Decoder, parse
from tenantbase.web.semantics.bodies import keys_bytes, read_body
from tenantbase.web.semantics.writes import set_command
from tenantbase.web.semantics.conditions import write_condition
from tenantbase.web.settings import WebSettings
from tenantbase.web.semantics.targets import NOTHING, query

Shape = TypeVar("Shape")


class GetValues(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``get-values``."""

    keys: list[str]


class SetValues(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``set-values``."""

    values: list[SetValue]


class DeleteValues(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``delete-values``: exactly one of the two."""

    keys: list[str] | None = None
    prefix: str | None = None


_GET: Final = Decoder(GetValues)
_DELETE: Final = Decoder(DeleteValues)
_READ_ENTRIES: Final = 256
_READ_BYTES: Final = 128 << 20  # what the values read at a time can come to


class Bulk:
    """Handlers of these routes."""

    def __init__(self, cache: Cache, settings: WebSettings, apart: Apart) -> None:
        self._cache = cache
        self._apart = apart
        self._settings = settings
        self._chunk = max(1, min(_READ_ENTRIES, _READ_BYTES // settings.max_value_bytes))

    async def get(self, request: web.Request) -> Answer:
        """``POST /get-values``"""
        given = await self._parse(_GET, request)
        return collection(Stream(self._found(self._keys(given.keys))))

    async def _found(self, keys: Sequence[str]) -> AsyncGenerator[bytes, None]:
        missing: list[str] = []
        separator = b'{"values":['
        held = bytearray()
        for start in range(0, len(keys), self._chunk):
            chunk = keys[start : start + self._chunk]
            for key, found in zip(chunk, await self._cache.get_many(chunk), strict=True):
                entry = found.entry
                if entry is None:
                    missing.append(key)
                    continue
                held += separator
                separator = b","
                if len(entry.value) <= PIECE_BYTES:
                    held += entry_json(entry)
                    if len(held) < PIECE_BYTES:
                        continue
                else:
                    for piece in entry_pieces(entry):
                        held += piece
                        if len(held) >= PIECE_BYTES:
                            yield bytes(held)
                            held.clear()
                if held:
                    yield bytes(held)
                    held.clear()
        if held:
            yield bytes(held)
        ended = b'],"missing":' + msgspec.json.encode(missing) + b"}"
        yield ended if separator == b"," else separator + ended

    async def set(self, request: web.Request) -> Answer:
        """``POST /set-values``"""
        query(request, NOTHING)
        condition = write_condition(request)
        # The body is held by nothing while the write waits.
        entries = await self._read(await self._body(request, self._settings.max_request_bytes))
        changes = self._changes(entries, condition)
        del entries
        applied = await self._cache.write(*changes) if changes else ()
        return collection(b'{"values":[%b]}' % b",".join(map(applied_json, applied)))

    async def _read(self, body: bytes) -> Iterator[Read]:
        max_entries = self._settings.max_batch_entries
        if not is_large(body):
            return read_many(body, max_entries)
        reading = self._apart.read(Job.ENTRIES, body, max_entries)
        del body
        return await reading

    def _changes(self, entries: Iterator[Read], condition: Condition | None) -> Sequence[Set]:
        now = self._cache.now()
        changes: dict[str, Set] = {}
        for index, (given, value) in enumerate(entries):
            try:
                change = set_command(given, condition, now, self._settings.max_value_bytes, value)
            except InvalidRequest as error:
                place(error, index)
                raise
            if change.key in changes:
                raise InvalidRequest(f"key {change.key!r} is given twice", f"values[{index}].key")
            changes[change.key] = change
        return tuple(changes.values())

    async def delete(self, request: web.Request) -> Answer:
        """``POST /delete-values``"""
        given = await self._parse(_DELETE, request)
        condition = write_condition(request)
        changes: list[Command]
        if given.prefix is not None:
            if given.keys is not None:
                raise InvalidRequest("give keys or a prefix, not both", "prefix")
            if condition is not None:
                raise InvalidRequest("a prefix is deleted without conditions", "prefix")
            changes = [DeletePrefix(check_text(given.prefix, "prefix"))]
        elif given.keys is not None:
            changes = [Delete(key, condition) for key in self._keys(given.keys)]
        else:
            raise InvalidRequest("keys or a prefix are required", "keys")
        applied = await self._cache.write(*changes) if changes else ()
        return collection(b'{"deleted":%d}' % sum(each.removed for each in applied))

    async def _parse(self, decoder: Decoder[Shape], request: web.Request) -> Shape:
        query(request, NOTHING)
        return parse(decoder, await self._body(request, keys_bytes(self._settings)))

    async def _body(self, request: web.Request, limit: int) -> bytes:
        return await read_body(request, limit, self._settings.body_timeout)

    def _keys(self, keys: list[str]) -> list[str]:
        """The keys, each once, all legal."""
        check_count(len(keys), self._settings.max_batch_entries, "keys")
        return list(dict.fromkeys(check_keys(keys, "keys")))
