"""The routes for many values: ``get-values``, ``set-values``, ``delete-values`` by POST."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from contextlib import aclosing
from itertools import starmap
from typing import Final

import msgspec
from aiohttp import hdrs, web

from tenantbase.commands import Applied, Condition
from tenantbase.database import Database
from tenantbase.database.bulk_read import CHUNK_KEYS
from tenantbase.documents import (
    PIECE_BYTES,
    VALUES_BEGIN,
    applied_json,
    entry_json,
    entry_pieces,
    found_and_missing,
    values_end,
)
from tenantbase.entry import Entry
from tenantbase.errors import InvalidRequest
from tenantbase.fair_lock import FairLock
from tenantbase.json_requests import GET_VALUES, Read, SetValue, read_many, split_many
from tenantbase.json_text import Decoder
from tenantbase.lookup import Lookup
from tenantbase.offload.child import Job
from tenantbase.offload.runner import ParserProcess, is_large
from tenantbase.web.answer import Answer, Stream
from tenantbase.web.caller import CALLER, Callers, scope_of
from tenantbase.web.responses import collection
from tenantbase.web.semantics.bodies import HOLDING, read_body, read_json
from tenantbase.web.semantics.conditions import write_condition
from tenantbase.web.semantics.negotiation import max_stale, wants_fresh
from tenantbase.web.semantics.targets import NOTHING, query
from tenantbase.web.sending import share_of
from tenantbase.web.settings import WebSettings
from tenantbase.web.transport.budget import SMALL_BYTES
from tenantbase.web.transport.turns import PIECE_SHARE, Turns
from tenantbase.web.transport.unread import Share, Unread


class SetValues(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``set-values``."""

    values: list[SetValue]


class DeleteEntry(msgspec.Struct, forbid_unknown_fields=True):
    """One entry of ``delete-values``."""

    key: str
    if_version: int | None = None


class DeleteValues(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``delete-values``: exactly one of keys, entries and prefix."""

    keys: list[str] | None = None
    entries: list[DeleteEntry] | None = None
    prefix: str | None = None
    return_values: bool | None = False


# Memory of a parsed request for each key or entry, besides its text: the key and the scoped key,
# references to them, and commands.
_KEY_BYTES: Final = 256
_ENTRY_BYTES: Final = 512

# How many entries are prepared, and how many results rendered, in one turn of the event loop. Either
# takes about half a millisecond.
_ADDED_AT_ONCE: Final = 256
_SHOWN_AT_ONCE: Final = 512

_DELETE: Final = Decoder(DeleteValues)


class Bulk:
    """The routes for many values."""

    def __init__(
        self,
        database: Database,
        settings: WebSettings,
        parser: ParserProcess,
        unread: Unread,
        callers: Callers,
        turns: Turns,
    ) -> None:
        self._turns = turns
        self._preparing = FairLock()
        self._unread = unread
        self._callers = callers
        self._database = database
        self._parser = parser
        self._settings = settings

    async def get(self, request: web.Request) -> Answer:
        """``POST /get-values``"""
        given = await read_json(request, GET_VALUES, self._settings)
        _unfold(request, _KEY_BYTES * len(given.keys))
        return collection(Stream(self._found(request, given.keys)))

    async def _found(self, request: web.Request, keys: list[str]) -> AsyncGenerator[bytes, None]:
        with (
            share_of(request, self._unread) as share,
            self._turns.streaming(scope_of(request).tenant),
        ):
            if len(keys) > CHUNK_KEYS:  # checking them takes long, and the first chunk is not small
                await self._turns.take(scope_of(request).tenant)
            wanted = request.headers.get(hdrs.CACHE_CONTROL, "")
            found = self._database.get_many(
                scope_of(request),
                keys,
                _PacedRoom(share, self._turns, scope_of(request).tenant),
                refresh=wants_fresh(wanted),
                max_stale=max_stale(wanted),
            )
            async with aclosing(_document(found, share)) as document:
                with self._callers.holding(request[CALLER], share.transport.abort):
                    async for piece in document:
                        yield piece
                        if len(piece) >= PIECE_BYTES:
                            await self._turns.take(
                                scope_of(request).tenant, PIECE_SHARE
                            )  # before the next one

    async def set(self, request: web.Request) -> Answer:
        """``POST /set-values``"""
        query(request, NOTHING)
        condition = write_condition(request)
        settings = self._settings
        # Keep no reference to the body while the write waits.
        writing = await self._begin(
            request,
            condition,
            await read_body(request, settings.max_request_bytes, settings.body_timeout),
        )
        applied = await writing
        tenant = scope_of(request).tenant
        documents = []
        with self._turns.streaming(scope_of(request).tenant):
            for at in range(0, len(applied), _SHOWN_AT_ONCE):
                if at:
                    await self._turns.take(tenant)
                some = applied[at : at + _SHOWN_AT_ONCE]
                documents.append(b",".join(starmap(applied_json, some)))
        return collection(b'{"values":[%b]}' % b",".join(documents))

    async def _begin(
        self, request: web.Request, condition: Condition | None, body: bytes
    ) -> Awaitable[list[tuple[str, Applied]]]:
        """Prepare the write and begin it. Await what this returns.

        Large bodies are prepared one by one: prepared entries take many times more memory, so the other
        bodies wait unparsed.
        """
        if len(body) <= SMALL_BYTES:
            return await self._prepared(request, condition, body)
        tenant = scope_of(request).tenant
        async with self._preparing.held(tenant):
            await self._turns.take(tenant)
            preparing = self._prepared(request, condition, body)
            del body
            return await preparing

    async def _prepared(
        self, request: web.Request, condition: Condition | None, body: bytes
    ) -> Awaitable[list[tuple[str, Applied]]]:
        reading = self._read(request, body)
        del body
        entries = await reading
        batch = self._database.set_batch(scope_of(request), condition)
        with self._turns.streaming(scope_of(request).tenant):
            for count, entry in enumerate(entries, 1):
                batch.add(entry)
                if not count % _ADDED_AT_ONCE:
                    await self._turns.take(scope_of(request).tenant)
        return batch.write()

    async def _read(self, request: web.Request, body: bytes) -> Iterator[Read]:
        max_entries = self._database.limits.max_batch_entries
        if not is_large(body):
            texts = split_many(body, max_entries)
            self._database.check_room(scope_of(request), len(texts))
            _unfold(request, _ENTRY_BYTES * len(texts))
            return read_many(texts)
        reading = self._parser.read(Job.ENTRIES, body, max_entries)
        del body
        return await reading

    async def delete(self, request: web.Request) -> Answer:
        """``POST /delete-values``"""
        given = await read_json(request, _DELETE, self._settings)
        condition = write_condition(request)
        database, scope = self._database, scope_of(request)
        versions: list[int | None] | None = None
        match given:
            case DeleteValues(keys=list(keys), entries=None, prefix=None):
                pass
            case DeleteValues(keys=None, entries=list(entries), prefix=None):
                keys = [each.key for each in entries]
                versions = [each.if_version for each in entries]
            case DeleteValues(keys=None, entries=None, prefix=str(prefix)):
                if given.return_values:
                    raise InvalidRequest("return_values does not work with prefix", "return_values")
                return _deleted(await database.delete_prefix(scope, prefix, condition))
            case DeleteValues(keys=None, entries=None, prefix=None):
                raise InvalidRequest("keys, entries or a prefix are required", "keys")
            case _:
                field = "entries" if given.prefix is None else "prefix"
                raise InvalidRequest("give only one of keys, entries and prefix", field)
        _unfold(request, _ENTRY_BYTES * len(keys))
        if not given.return_values:
            return _deleted(
                await database.delete_many(scope, keys, condition, if_versions=versions)
            )
        removed = await database.pop_many(scope, keys, condition, if_versions=versions)
        return collection(Stream(self._returned(request, removed)))

    async def _returned(
        self, request: web.Request, removed: list[tuple[str, Entry]]
    ) -> AsyncGenerator[bytes, None]:
        with share_of(request, self._unread) as share, self._turns.streaming():
            share.charge(sum(len(entry.value) for _, entry in removed))
            held = bytearray(b'{"deleted":%d,"values":[' % len(removed))
            separator = b""
            for key, entry in removed:
                held += separator
                separator = b","
                for piece in entry_pieces(key, entry):
                    held += piece
                    if len(held) >= PIECE_BYTES:
                        yield bytes(held)
                        held.clear()
                        await self._turns.take(scope_of(request).tenant)  # before the next one
            yield bytes(held) + b"]}"


def _deleted(count: int) -> Answer:
    return collection(b'{"deleted":%d}' % count)


class _PacedRoom:
    """Room for the values of one answer. Each chunk of values after the first is read in a turn."""

    def __init__(self, share: Share, turns: Turns, tenant: str) -> None:
        self._share = share
        self._turns = turns
        self._tenant = tenant
        self._first = True

    async def reserve(self, size: int, seconds: float | None) -> None:
        """See ``Room.reserve``."""
        if not self._first:
            await self._turns.take(self._tenant)
        self._first = False
        await self._share.reserve(size, seconds)

    def keep(self, size: int) -> bool:
        """See ``Room.keep``."""
        return self._share.keep(size)


def _unfold(request: web.Request, count: int) -> None:
    """Charge the memory of a parsed request. Raises OverLimit."""
    holding = request.get(HOLDING)
    if holding is not None and count > SMALL_BYTES:
        holding.unfold(count)


async def _document(
    pieces: AsyncIterator[list[tuple[str, Lookup]]], share: Share
) -> AsyncGenerator[bytes, None]:
    missing: list[str] = []
    separator = VALUES_BEGIN
    held = bytearray()
    async for piece in pieces:
        rest = share.size  # of the values
        if rest <= PIECE_BYTES:  # nearly always: nothing is worth releasing early
            documents, absent = found_and_missing(piece)
            if documents:
                held += separator + b",".join(documents)
                separator = b","
            missing.extend(absent)
            piece.clear()
            if len(held) >= PIECE_BYTES:
                yield bytes(held)
                held.clear()
            continue
        piece.reverse()
        while piece:
            key, found = piece.pop()  # released as soon as it is sent
            entry = found.entry
            if entry is None:
                missing.append(key)
                continue
            rest -= len(entry.value)
            held += separator
            separator = b","
            if len(entry.value) <= PIECE_BYTES:
                held += entry_json(key, entry)
                if len(held) < PIECE_BYTES:
                    continue
            else:
                for part in entry_pieces(key, entry):
                    held += part
                    if len(held) >= PIECE_BYTES:
                        yield bytes(held)
                        held.clear()
            if held:
                yield bytes(held)
                held.clear()
            del entry, found
            share.charge(rest)
    if separator != b",":
        held += separator
    held += values_end(missing)
    yield bytes(held)
