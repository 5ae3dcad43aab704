"""Lists: ``GET /get-values`` and ``GET /v1/values``, as JSON or as NDJSON."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Final

import msgspec
from aiohttp import hdrs, web

from tenantbase.database import Database
from tenantbase.documents import PIECE_BYTES, as_line, entry_json, entry_pieces, in_one_line
from tenantbase.entry import JSON, Entry, check_key
from tenantbase.errors import InvalidRequest
from tenantbase.web.answer import Answer, Stream
from tenantbase.web.caller import CALLER, Callers, scope_of
from tenantbase.web.responses import collection
from tenantbase.web.semantics.negotiation import weights
from tenantbase.web.semantics.targets import integer, query
from tenantbase.web.sending import share_of
from tenantbase.web.transport.turns import Turns
from tenantbase.web.transport.unread import WAIT_SECONDS, Share, Unread

NDJSON: Final = "application/x-ndjson"

_PAGE_BYTES: Final = 2 << 20  # ``Cache.scan`` stops at half, but the last value may exceed that
_QUERY: Final = frozenset({"prefix", "limit", "cursor", "fields"})
_CURSOR_VERSION: Final = b"\x01"


class Lists:
    """The routes that list entries."""

    def __init__(self, database: Database, unread: Unread, callers: Callers, turns: Turns) -> None:
        self._turns = turns
        self._database = database
        self._callers = callers
        self._unread = unread

    async def get_values(self, request: web.Request) -> Answer:
        """``GET /get-values``"""
        listing = _Listing(self._database, request)
        return collection(Stream(self._charged(request, listing, listing.document())))

    async def v1_values(self, request: web.Request) -> Answer:
        """``GET /v1/values``: the same, or NDJSON if the client prefers it."""
        listing = _Listing(self._database, request)
        if prefers_ndjson(request.headers.get(hdrs.ACCEPT, "")):
            return collection(Stream(self._charged(request, listing, listing.lines())), NDJSON)
        return collection(Stream(self._charged(request, listing, listing.document())))

    async def _charged(
        self, request: web.Request, listing: _Listing, pieces: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        """The same pieces, charging what the list holds until the client has read it."""
        with share_of(request, self._unread) as listing.share, self._turns.streaming():
            async with aclosing(pieces):
                with self._callers.holding(request[CALLER], listing.share.transport.abort):
                    async for piece in pieces:
                        yield piece
                        await self._turns.take(scope_of(request).tenant)  # before the next one


class _Listing:
    """The list that one request asks for. Raises InvalidRequest."""

    def __init__(self, database: Database, request: web.Request) -> None:
        parameters = query(request, _QUERY)
        limit, cursor = integer(parameters, "limit"), parameters.get("cursor")
        fields = parameters.get("fields")
        if fields not in (None, "key"):
            raise InvalidRequest("fields is key, or is left out", "fields")
        values = fields is None
        self._encode: Callable[[str, Entry], bytes] = entry_json if values else _key_json
        after = after_cursor(cursor) if cursor else ""  # empty: from the start
        scope = scope_of(request)
        self._plain = scope.plain
        self._pieces = database.scan(
            scope, parameters.get("prefix", ""), after, limit=limit, values=values
        )
        self._cursor: str | None = None
        self.share: Share

    async def _groups(self) -> AsyncGenerator[list[Entry], None]:
        """The entries in groups; an entry with a large value is a group of its own."""
        last = None
        more = False
        seconds: float | None = WAIT_SECONDS  # only the first piece has a timeout
        while True:
            # Reserve room for a page of the usual size before reading it.
            await self.share.reserve(_PAGE_BYTES, seconds)
            seconds = None
            page = await anext(self._pieces, None)
            if page is None:
                break
            entries, more = page
            sizes = [len(entry.value) for entry in entries]
            self.share.charge(sum(sizes))
            if not entries:
                continue
            last = entries[-1].key[self._plain]
            for group in _divided(entries, sizes):
                yield group
        if more and last is not None:
            self._cursor = cursor_after(last)

    async def document(self) -> AsyncGenerator[bytes, None]:
        """``{"values": [...], "cursor": ...}``"""
        separator = b'{"values":['
        async for group in self._groups():
            if _is_large(group[0]):
                yield separator
                for piece in self._pieces_of(group[0]):
                    yield piece
            else:
                yield separator + b",".join(self._documents(group))
            separator = b","
        ended = b'],"cursor":%b}' % msgspec.json.encode(self._cursor)
        yield ended if separator == b"," else separator + ended

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """One entry per line, without a cursor."""
        async for group in self._groups():
            if _is_large(group[0]):
                for piece in self._pieces_of(group[0]):
                    yield in_one_line(piece)
                yield b"\n"
            else:
                yield b"".join(map(as_line, self._documents(group)))

    def _documents(self, entries: list[Entry]) -> list[bytes]:
        encode, plain = self._encode, self._plain
        return [encode(entry.key[plain], entry) for entry in entries]

    def _pieces_of(self, entry: Entry) -> Iterator[bytes]:
        return entry_pieces(entry.key[self._plain], entry)


def _divided(entries: list[Entry], sizes: list[int]) -> Iterator[list[Entry]]:
    """The entries in groups of at most ``PIECE_BYTES``; a larger entry is a group of its own."""
    if sum(sizes) <= PIECE_BYTES:  # nearly always
        yield entries
        return
    start = held = 0
    for at, size in enumerate(sizes):
        if at > start and held + size > PIECE_BYTES:
            yield entries[start:at]
            start, held = at, 0
        held += size
    yield entries[start:]


def _is_large(entry: Entry) -> bool:
    return len(entry.value) > PIECE_BYTES


def _key_json(key: str, entry: Entry) -> bytes:
    return b'{"key":%b}' % msgspec.json.encode(key)


def cursor_after(key: str) -> str:
    """The cursor for the entries after this key. It is opaque to clients."""
    return urlsafe_b64encode(_CURSOR_VERSION + key.encode()).rstrip(b"=").decode()


def after_cursor(cursor: str) -> str:
    """The key that a cursor follows. Raises InvalidRequest."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        key = check_key(urlsafe_b64decode(padded)[1:].decode())
        if cursor_after(key) == cursor:
            return key
    except (ValueError, InvalidRequest):
        pass  # binascii.Error and UnicodeError are ValueErrors
    raise InvalidRequest("this is not a cursor from a list", "cursor")


def prefers_ndjson(accept: str) -> bool:
    """Whether an ``Accept`` header names NDJSON and does not prefer JSON."""
    accepted = weights(accept)
    weight = accepted.get(NDJSON, 0.0)
    return weight > 0 and weight >= accepted.get(JSON, 0.0)
