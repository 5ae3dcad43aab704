"""Lists: ``GET /get-values`` and ``GET /v1/values``, as JSON or as NDJSON."""

from __future__ import annotations

import math
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
    entry_json,
    entry_pieces,
    in_one_line,
    meta_json,
)
from tenantbase.entry import JSON, Entry
from tenantbase.listing import EntryMeta, Item, Place, place_of
from tenantbase.plain_entries import PlainEntries, Render
from tenantbase.web.answer import Answer, Stream
from tenantbase.web.caller import CALLER, Callers, scope_of
from tenantbase.web.list_document import ListDocument
from tenantbase.web.responses import collection
from tenantbase.web.semantics.list_requests import (
    PARAMETERS,
    cursor_of,
    list_request,
    place_of_cursor,
)
from tenantbase.web.semantics.negotiation import weights
from tenantbase.web.semantics.targets import query
from tenantbase.web.sending import share_of
from tenantbase.web.transport.turns import PIECE_SHARE, Turns
from tenantbase.web.transport.unread import WAIT_SECONDS, Share, Unread

NDJSON: Final = "application/x-ndjson"

PAGE_BYTES: Final = (256 << 10) + (1 << 20)
"""The usual size of a page, at most. ``Cache.scan`` stops at 256 KiB, but the last value, usually at most a
mebibyte, may exceed that."""

GROUP_ITEMS: Final = 256
"""How many items the event loop renders at once, which takes about half a millisecond."""

_ITEM_BYTES: Final = 256  # roughly the size of an item without a value, and its key
_COUNT_PARAMETERS: Final = frozenset({"prefix", "cursor"})


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


class _Listing:
    """The list that one request asks for.

    Args:
        as_document: it will be sent as ``document``; otherwise as ``lines``.

    Raises:
        InvalidRequest: the request asks for an impossible list.
    """

    def __init__(self, database: Database, request: web.Request, *, as_document: bool) -> None:
        self._parameters = query(request, PARAMETERS)
        self._asked = list_request(self._parameters)
        self._scope = scope_of(request)
        self._plain = self._scope.plain
        self._database = database
        self._document = ListDocument(self._plain)
        render = self._document if as_document else None
        self._pieces = self._scan(self._asked.limit, render=render)
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
        asked = self._asked
        values = asked.values if values is None else values
        return self._database.scan(
            self._scope, asked.wanted, asked.after, limit=limit, values=values, render=render
        )

    async def find_page(self) -> str | None:
        """Find the keys of the page before it is sent, because the ``Link`` header precedes it.

        Only these items are sent afterwards, so an entry added in the meantime moves none of them to
        the next page.

        Returns: the target of the next page, or None if this is the last one. It is relative,
            because a proxy may serve the API under a prefix.
        """
        if self._asked.limit is None:
            return None
        page: dict[Place, None] = {}
        more = False
        async for items, more in self._scan(self._asked.limit, values=False):
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
            if reached <= last.key if self._asked.wanted.descending else reached >= last.key:
                return

    async def _groups(self) -> AsyncGenerator[Sequence[Item], None]:
        """The items in groups; an entry with a large value is a group of its own, and so is a page that is
        rendered already."""
        seconds: float | None = WAIT_SECONDS  # only the first piece has a timeout
        left = math.inf if self._asked.limit is None else self._asked.limit
        while left > 0:
            # Reserve room for a page of the usual size before reading it.
            await self.share.reserve(PAGE_BYTES, seconds)
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
                yield self._document.before
                for piece in self._pieces_of(group[0]):
                    yield piece
            elif part := self._part(group):
                yield part
            else:
                continue
            self._document.before = b","
        cursor = None
        if self._more and self._last is not None:
            cursor = cursor_of(Place(self._last.key[self._plain], self._last.folded))
        yield self._document.end(cursor, self._folded if self._asked.wanted.delimiter else None)

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """One item per line."""
        async for group in self._groups():
            if _is_large(group[0]):
                for piece in self._pieces_of(group[0]):
                    yield in_one_line(piece)
                yield b"\n"
            else:
                yield b"".join(map(as_line, self._documents(group, None)))

    def _part(self, items: Sequence[Item]) -> bytes:
        """These items as a part of the document; empty if all of them are folded, and only noted."""
        asked = self._asked
        if asked.values and not asked.wanted.delimiter:  # nearly always: these are all entries
            return self._document.entries(cast("Sequence[Entry]", items))
        documents = b",".join(self._documents(items, self._folded))
        return self._document.before + documents if documents else b""

    def _documents(self, items: Sequence[Item], folded: list[bytes] | None) -> list[bytes]:
        """Each item as a JSON object; folded ones go to ``folded`` instead, as strings, if given."""
        plain = self._plain
        documents = []
        for item in items:
            key = item.key[plain]
            if isinstance(item, Entry):
                documents.append(entry_json(key, item))
            elif isinstance(item, EntryMeta):
                documents.append(_key_json(key) if self._asked.keys_only else meta_json(key, item))
            elif folded is None:
                documents.append(b'{"prefix":%b}' % msgspec.json.encode(key))
            else:
                folded.append(msgspec.json.encode(key))
        return documents

    def _pieces_of(self, item: Item) -> Iterator[bytes]:
        assert isinstance(item, Entry)
        return entry_pieces(item.key[self._plain], item)


def _divided(items: Sequence[Item], sizes: list[int]) -> Iterator[Sequence[Item]]:
    """The items in groups of at most ``PIECE_BYTES`` and ``GROUP_ITEMS``; a larger entry is a group of its
    own."""
    if sum(sizes) <= PIECE_BYTES and len(sizes) <= GROUP_ITEMS:  # nearly always
        yield items
        return
    start = held = 0
    for at, size in enumerate(sizes):
        if at > start and (held + size > PIECE_BYTES or at - start == GROUP_ITEMS):
            yield items[start:at]
            start, held = at, 0
        held += size
    yield items[start:]


def _is_large(item: Item) -> bool:
    return isinstance(item, Entry) and len(item.value) > PIECE_BYTES


def _key_json(key: str) -> bytes:
    return b'{"key":%b}' % msgspec.json.encode(key)


def prefers_ndjson(accept: str) -> bool:
    """Whether an ``Accept`` header names NDJSON and does not prefer JSON."""
    accepted = weights(accept)
    weight = accepted.get(NDJSON, 0.0)
    return weight > 0 and weight >= accepted.get(JSON, 0.0)
