"""Lists: ``GET /get-values`` and ``GET /v1/values``, as JSON or as NDJSON."""

from __future__ import annotations

import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Iterator,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import Final, cast
from urllib.parse import quote, urlencode

import msgspec
from aiohttp import hdrs, web

from tenantbase.database import Database
from tenantbase.documents import (
    PIECE_BYTES,
    as_line,
    entries_json,
    entry_json,
    entry_pieces,
    in_one_line,
    meta_json,
    plain_json,
)
from tenantbase.entry import JSON, Entry, check_key
from tenantbase.errors import InvalidRequest
from tenantbase.listing import EntryMeta, Item, KeyRange, Place, place_of
from tenantbase.plain_entries import Columns, PlainEntries, Render
from tenantbase.web.answer import Answer, Stream
from tenantbase.web.caller import CALLER, Callers, scope_of
from tenantbase.web.responses import collection
from tenantbase.web.semantics.negotiation import weights
from tenantbase.web.semantics.targets import integer, query
from tenantbase.web.sending import share_of
from tenantbase.web.transport.turns import PIECE_SHARE, Turns
from tenantbase.web.transport.unread import WAIT_SECONDS, Share, Unread

NDJSON: Final = "application/x-ndjson"

# ``Cache.scan`` stops at 256 KiB, but the last value, usually at most a mebibyte, may exceed that.
_PAGE_BYTES: Final = (256 << 10) + (1 << 20)
_GROUP_ITEMS: Final = 256  # the event loop takes about half a millisecond to render so many
_ITEM_BYTES: Final = 256  # roughly the size of an item without a value, and its key
_PARAMETERS: Final = frozenset(
    {"prefix", "limit", "cursor", "fields", "delimiter", "start", "end", "order"}
)
_COUNT_PARAMETERS: Final = frozenset({"prefix", "cursor"})
_DESCENDING: Final = {None: False, "asc": False, "desc": True}
_FIELDS: Final = (None, "key", "meta")
# The first byte of a cursor says what its text is.
_AFTER_KEY: Final = b"\x01"
_AFTER_FOLDED: Final = b"\x02"


class Lists:
    """The routes that list entries, and the one that counts them."""

    def __init__(self, database: Database, unread: Unread, callers: Callers, turns: Turns) -> None:
        self._turns = turns
        self._database = database
        self._callers = callers
        self._unread = unread

    async def get_values(self, request: web.Request) -> Answer:
        """``GET /get-values``"""
        listing = _Listing(self._database, request, as_document=True)
        return collection(Stream(self._charged(request, listing, listing.document())))

    async def v1_values(self, request: web.Request) -> Answer:
        """``GET /v1/values``: the same, or NDJSON if the client prefers it."""
        if not prefers_ndjson(request.headers.get(hdrs.ACCEPT, "")):
            return await self.get_values(request)
        listing = _Listing(self._database, request, as_document=False)
        following = await listing.find_page()
        answer = collection(Stream(self._charged(request, listing, listing.lines())), NDJSON)
        if following is not None:
            answer.headers[hdrs.LINK] = f'<{following}>; rel="next"'
        return answer

    async def count(self, request: web.Request) -> Answer:
        """``GET /v1/count``"""
        parameters = query(request, _COUNT_PARAMETERS)
        cursor = parameters.get("cursor")
        counted = await self._database.count(
            scope_of(request), parameters.get("prefix", ""), place_of_cursor(cursor)
        )
        document: dict[str, object] = {"count": counted.entries, "bytes": counted.bytes}
        if counted.after is not None:
            document |= {"at_least": True, "cursor": cursor_of(counted.after)}
        return collection(msgspec.json.encode(document))

    async def _charged(
        self, request: web.Request, listing: _Listing, pieces: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        """The same pieces. What the list holds is charged until the client has read it."""
        with (
            share_of(request, self._unread) as listing.share,
            self._turns.streaming(scope_of(request).tenant),
        ):
            listing.turn = partial(self._turns.held, scope_of(request).tenant)
            async with aclosing(pieces):
                with self._callers.holding(request[CALLER], listing.share.transport.abort):
                    async for piece in pieces:
                        yield piece
                        await self._turns.take(
                            scope_of(request).tenant, PIECE_SHARE
                        )  # before the next one


class _Rendering:
    """Makes the JSON document of a list, page by page. A ``Render``.

    Args:
        plain: the part of the keys to show.

    Attributes:
        before: what comes before the next entry of the document.
    """

    __slots__ = ("_plain", "before")

    def __init__(self, plain: slice) -> None:
        self._plain = plain
        self.before = b'{"values":['

    def __call__(self, entries: Columns) -> bytes:
        return plain_json(entries, self._plain, before=self.before)

    @property
    def form(self) -> tuple[int, bytes]:
        return self._plain.start, self.before


class _Listing:
    """The list that one request asks for.

    Args:
        as_document: it will be sent as ``document``; otherwise as ``lines``.

    Raises:
        InvalidRequest: the request asks for an impossible list.
    """

    def __init__(self, database: Database, request: web.Request, *, as_document: bool) -> None:
        parameters = self._parameters = query(request, _PARAMETERS)
        self._limit = integer(parameters, "limit")
        fields, order = parameters.get("fields"), parameters.get("order")
        if fields not in _FIELDS:
            raise InvalidRequest("fields is key or meta, or is left out", "fields")
        if order not in _DESCENDING:
            raise InvalidRequest("order is asc or desc", "order")
        self._keys_only = fields == "key"
        self._values = fields is None
        self._range = KeyRange(
            parameters.get("prefix", ""),
            parameters.get("start", ""),
            parameters.get("end", ""),
            _DESCENDING[order],
            parameters.get("delimiter", ""),
        )
        self._after = place_of_cursor(parameters.get("cursor"))
        self._scope = scope_of(request)
        self._plain = self._scope.plain
        self._database = database
        self._rendering = _Rendering(self._plain)
        self._pieces = self._scan(self._limit, render=self._rendering if as_document else None)
        self._page: set[Place] | None = None
        self._last: Place | None = None
        self._more = False
        self._folded: list[bytes] = []
        self.share: Share
        self.turn: Callable[[], AbstractAsyncContextManager[None]]

    def _scan(
        self,
        limit: int | None,
        *,
        values: bool | None = None,
        render: Render | None = None,
    ) -> AsyncIterator[tuple[Sequence[Item], bool]]:
        values = self._values if values is None else values
        return self._database.scan(
            self._scope, self._range, self._after, limit=limit, values=values, render=render
        )

    async def find_page(self) -> str | None:
        """Find the keys of the page before it is sent, because the ``Link`` header precedes it.

        Only these items are sent afterwards, so an entry added in the meantime moves none of them to
        the next page.

        Returns: the target of the next page, or None if this is the last one. It is relative,
            because a proxy may serve the API under a prefix.
        """
        if self._limit is None:
            return None
        page: dict[Place, None] = {}
        more = False
        async for items, more in self._scan(self._limit, values=False):
            page.update((place_of(item), None) for item in items)
        if not page:
            return None
        self._page, last = set(page), next(reversed(page))
        self._pieces = self._up_to(last)
        if not more:
            return None
        cursor = cursor_of(Place(last.key[self._plain], last.folded))
        return "?" + urlencode({**self._parameters, "cursor": cursor}, quote_via=quote)

    async def _up_to(self, last: Place) -> AsyncGenerator[tuple[Sequence[Item], bool], None]:
        assert self._page is not None
        async for items, _ in self._scan(None):
            found = [item for item in items if place_of(item) in self._page]
            yield found, False
            if not items:
                continue
            reached = items[-1].key
            if reached <= last.key if self._range.descending else reached >= last.key:
                return

    async def _groups(self) -> AsyncGenerator[Sequence[Item], None]:
        """The items in groups; an entry with a large value is a group of its own, and so is a page that is
        rendered already."""
        seconds: float | None = WAIT_SECONDS  # only the first piece has a timeout
        left = math.inf if self._limit is None else self._limit
        while left > 0:
            # Reserve room for a page of the usual size before reading it.
            await self.share.reserve(_PAGE_BYTES, seconds)
            seconds = None
            # Threads that read compete with the event loop for the processor.
            async with self.turn():
                page = await anext(self._pieces, None)
            if page is None:
                break
            items, self._more = page
            left -= len(items)
            if items:
                self._last = place_of(items[-1])
            if isinstance(items, PlainEntries) and items.rendered:
                self.share.charge(len(items.rendered))
                yield items
                continue
            items = list(items)  # plain entries are made only once
            sizes = [len(item.value) if isinstance(item, Entry) else 0 for item in items]
            self.share.charge(sum(sizes) + _ITEM_BYTES * len(self._folded))
            if not items:
                continue
            for group in _divided(items, sizes):
                yield group
        # Nothing is left to read, but an iterator that has not reached its end would be closed by a task.
        await anext(self._pieces, None)

    async def document(self) -> AsyncGenerator[bytes, None]:
        """``{"values": [...], "cursor": ...}``, with ``prefixes`` if there is a delimiter."""
        async for group in self._groups():
            if isinstance(group, PlainEntries) and group.rendered:
                yield group.rendered
            elif _is_large(group[0]):
                yield self._rendering.before
                for piece in self._pieces_of(group[0]):
                    yield piece
            elif documents := self._joined(group):
                yield self._rendering.before + documents
            else:
                continue
            self._rendering.before = b","
        prefixes = b""
        if self._range.delimiter:
            prefixes = b',"prefixes":[%b]' % b",".join(self._folded)
        cursor = None
        if self._more and self._last is not None:
            cursor = cursor_of(Place(self._last.key[self._plain], self._last.folded))
        ended = b']%b,"cursor":%b}' % (prefixes, msgspec.json.encode(cursor))
        yield ended if self._rendering.before == b"," else self._rendering.before + ended

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """One item per line."""
        async for group in self._groups():
            if _is_large(group[0]):
                for piece in self._pieces_of(group[0]):
                    yield in_one_line(piece)
                yield b"\n"
            else:
                yield b"".join(map(as_line, self._documents(group, None)))

    def _joined(self, items: Sequence[Item]) -> bytes:
        """The items as JSON objects, separated by commas; folded ones go to ``self._folded``."""
        if self._values and not self._range.delimiter:  # nearly always: these are all entries
            entries = cast("Sequence[Entry]", items)
            plain = self._plain
            return entries_json([entry.key[plain] for entry in entries], entries)
        return b",".join(self._documents(items, self._folded))

    def _documents(self, items: Sequence[Item], folded: list[bytes] | None) -> list[bytes]:
        """Each item as a JSON object; folded ones go to ``folded`` instead, as strings, if given."""
        plain = self._plain
        documents = []
        for item in items:
            key = item.key[plain]
            if isinstance(item, Entry):
                documents.append(entry_json(key, item))
            elif isinstance(item, EntryMeta):
                documents.append(_key_json(key) if self._keys_only else meta_json(key, item))
            elif folded is None:
                documents.append(b'{"prefix":%b}' % msgspec.json.encode(key))
            else:
                folded.append(msgspec.json.encode(key))
        return documents

    def _pieces_of(self, item: Item) -> Iterator[bytes]:
        assert isinstance(item, Entry)
        return entry_pieces(item.key[self._plain], item)


def _divided(items: Sequence[Item], sizes: list[int]) -> Iterator[Sequence[Item]]:
    """The items in groups of at most ``PIECE_BYTES`` and ``_GROUP_ITEMS``; a larger entry is a group of its
    own."""
    if sum(sizes) <= PIECE_BYTES and len(sizes) <= _GROUP_ITEMS:  # nearly always
        yield items
        return
    start = held = 0
    for at, size in enumerate(sizes):
        if at > start and (held + size > PIECE_BYTES or at - start == _GROUP_ITEMS):
            yield items[start:at]
            start, held = at, 0
        held += size
    yield items[start:]


def _is_large(item: Item) -> bool:
    return isinstance(item, Entry) and len(item.value) > PIECE_BYTES


def _key_json(key: str) -> bytes:
    return b'{"key":%b}' % msgspec.json.encode(key)


def cursor_of(place: Place) -> str:
    """The cursor for what comes after a place. It is opaque to clients."""
    kind = _AFTER_FOLDED if place.folded else _AFTER_KEY
    return urlsafe_b64encode(kind + place.key.encode()).rstrip(b"=").decode()


def place_of_cursor(cursor: str | None) -> Place | None:
    """The place that a cursor follows; None for an empty one. Raises InvalidRequest."""
    if not cursor:
        return None  # from the start
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        decoded = urlsafe_b64decode(padded)
        place = Place(check_key(decoded[1:].decode()), decoded[:1] == _AFTER_FOLDED)
        if cursor_of(place) == cursor:
            return place
    except (ValueError, InvalidRequest):
        pass  # binascii.Error and UnicodeError are ValueErrors
    raise InvalidRequest("this is not a cursor from a list", "cursor")


def prefers_ndjson(accept: str) -> bool:
    """Whether an ``Accept`` header names NDJSON and does not prefer JSON."""
    accepted = weights(accept)
    weight = accepted.get(NDJSON, 0.0)
    return weight > 0 and weight >= accepted.get(JSON, 0.0)
