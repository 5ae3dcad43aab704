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
from tenantbase.entry import Entry, check_keys, check_text
from tenantbase.errors import InvalidRequest
from tenantbase.lookup import Lookup
from tenantbase.json_requests import Read, SetValue, check_count, place, read_many
from tenantbase.interfaces.store import Command, Condition, Delete, DeletePrefix, Set
from tenantbase.web.responses import collection
from tenantbase.json_text import Decoder, parse
from tenantbase.web.semantics.bodies import keys_bytes, read_body
from tenantbase.web.semantics.writes import set_command
from tenantbase.web.semantics.conditions import write_condition
from tenantbase.web.settings import WebSettings
from tenantbase.web.streams import send
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
# ... and what is kept of them while the client takes the answer; it may take its time.
_KEPT_BYTES: Final = 4 << 20
_GROWTH: Final = 8


class Bulk:
    """Handlers of these routes."""

    def __init__(self, cache: Cache, settings: WebSettings, apart: Apart) -> None:
        self._cache = cache
        self._apart = apart
        self._settings = settings
        self._chunk = max(1, min(_READ_ENTRIES, _READ_BYTES // settings.max_value_bytes))
        self._first_chunk = max(1, min(self._chunk, _KEPT_BYTES // settings.max_value_bytes))

    async def get(self, request: web.Request) -> web.StreamResponse:
        """``POST /get-values``"""
        given = await self._parse(_GET, request)
        return await send(request, self._found(self._keys(given.keys)))

    async def _found(self, keys: Sequence[str]) -> AsyncGenerator[bytes, None]:
        missing: list[str] = []
        separator = b'{"values":['
        held = bytearray()
        start, count = 0, self._first_chunk
        while start < len(keys):
            chunk = keys[start : start + count]
            entries = _kept(await self._cache.get_many(chunk))
            start += len(entries)
            # The values turned out to be large: no more than was kept is read next.
            count = (
                min(count * _GROWTH, self._chunk) if len(entries) == len(chunk) else len(entries)
            )
            entries.reverse()
            for key in chunk[: len(entries)]:
                entry = entries.pop()  # it is let go as soon as it is sent
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

    async def set(self, request: web.Request) -> web.Response:
        """``POST /set-values``"""
        query(request, NOTHING)
        condition = write_condition(request)
        # The body is held by nothing while the write waits.
        entries = await self._read(await self._body(request, self._settings.max_request_bytes))
        changes = self._changes(entries, condition)
        del entries
        applied = await self._cache.write(*changes) if changes else ()
        return collection(request, b'{"values":[%b]}' % b",".join(map(applied_json, applied)))

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

    async def delete(self, request: web.Request) -> web.Response:
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
        return collection(request, b'{"deleted":%d}' % sum(each.removed for each in applied))

    async def _parse(self, decoder: Decoder[Shape], request: web.Request) -> Shape:
        query(request, NOTHING)
        return parse(decoder, await self._body(request, keys_bytes(self._settings)))

    async def _body(self, request: web.Request, limit: int) -> bytes:
        return await read_body(request, limit, self._settings.body_timeout)

    def _keys(self, keys: list[str]) -> list[str]:
        """The keys, each once, all legal."""
        check_count(len(keys), self._settings.max_batch_entries, "keys")
        return list(dict.fromkeys(check_keys(keys, "keys")))


def _kept(found: Sequence[Lookup]) -> list[Entry | None]:
    """The first entries, as many as may be held while they are sent; at least one."""
    entries: list[Entry | None] = []
    held = 0
    for each in found:
        held += len(each.entry.value) if each.entry is not None else 0
        if entries and held > _KEPT_BYTES:
            break
        entries.append(each.entry)
    return entries
