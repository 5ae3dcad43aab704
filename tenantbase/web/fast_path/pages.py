"""Lists that are short enough to be answered whole: one page of the database, rendered by its thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from tenantbase.coherence.policy import PAGE_ENTRIES
from tenantbase.database import Database
from tenantbase.documents import PIECE_BYTES
from tenantbase.entry import Entry
from tenantbase.listing import Folded, Place
from tenantbase.plain_entries import PlainEntries
from tenantbase.request_context import CURRENT, RequestContext
from tenantbase.web.caller import Caller, Callers
from tenantbase.web.handlers.lists import GROUP_ITEMS, PAGE_BYTES
from tenantbase.web.list_document import ListDocument
from tenantbase.web.semantics.list_requests import PARAMETERS, ListRequest, cursor_of, list_request
from tenantbase.web.semantics.targets import parameters_in
from tenantbase.web.transport.turns import Turns
from tenantbase.web.transport.unread import WAIT_SECONDS, Share

_FORGET_SECONDS: Final = 10.0

Page = tuple[Sequence[Entry | Folded], bool]
Document = Sequence[bytes]
"""The parts of a list's document."""


class Reader(Protocol):
    """The connection that a list is read for."""

    context: RequestContext | None
    """The id and trace of the request, once it has any."""

    @property
    def share(self) -> Share:
        """Its share of the budget for unread answers; released when the request has ended."""

    def abort(self) -> None:
        """Cut the connection."""


class Pages:
    """Reads lists of one page."""

    def __init__(self, database: Database, callers: Callers, turns: Turns) -> None:
        self._database = database
        self._callers = callers
        self._turns = turns
        # How many entries were too many for a tenant. Not for ever, because entries change.
        self._too_many: dict[str, int] = {}
        self._forget_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(
        self,
        query: str,
        caller: Caller,
        reader: Reader,
        receive: Callable[[Document | Exception | None], None],
    ) -> bool:
        """Begin to read a list.

        Args:
            query: the request's, without a fragment.
            receive: called later with the document, the exception, or None if the list does not fit
                into a page after all.

        Returns: False if it is not known to fit, or there is no room for it. Then ``receive`` is not
            called.

        Raises:
            InvalidRequest, Forbidden: likewise.
        """
        asked = list_request(parameters_in(query, PARAMETERS))
        if not asked.values or asked.wanted.delimiter or not self._fits(asked.limit, caller):
            return False
        document = ListDocument(caller.scope.plain)
        page = self._database.page(
            caller.scope, asked.wanted, asked.after, asked.limit or PAGE_ENTRIES, document
        )
        work = self._read(page, asked, document, caller, reader, receive)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _fits(self, limit: int | None, caller: Caller) -> bool:
        if limit is None or not 0 < limit <= PAGE_ENTRIES:
            return False
        now = asyncio.get_running_loop().time()
        if now > self._forget_at:
            self._too_many.clear()
            self._forget_at = now + _FORGET_SECONDS
        return limit < self._too_many.get(caller.scope.tenant, PAGE_ENTRIES + 1)

    async def _read(
        self,
        page: Callable[[], Awaitable[Page]],
        asked: ListRequest,
        document: ListDocument,
        caller: Caller,
        reader: Reader,
        receive: Callable[[Document | Exception | None], None],
    ) -> None:
        reader.context = reader.context or RequestContext()
        CURRENT.set(reader.context)
        tenant = caller.scope.tenant
        try:
            with self._turns.streaming(tenant), self._callers.holding(caller, reader.abort):
                await reader.share.reserve(PAGE_BYTES, WAIT_SECONDS)
                # Threads that read compete with the event loop for the processor.
                async with self._turns.held(tenant):
                    entries, more = await page()
            parts = _parts(entries, more, asked.limit, document, caller.scope.plain)
        except Exception as error:
            receive(error)
            return
        if parts is None:
            self._too_many[tenant] = min(len(entries) + 1, asked.limit or PAGE_ENTRIES)
        receive(parts)


def _parts(
    entries: Sequence[Entry | Folded],
    more: bool,
    limit: int | None,
    document: ListDocument,
    plain: slice,
) -> Document | None:
    """The document of a page; None if it is not all of the list, or must be rendered in pieces."""
    if more and len(entries) != limit:
        return None
    parts = []
    if isinstance(entries, PlainEntries) and entries.rendered:
        parts.append(entries.rendered)
    elif entries:
        whole = [entry for entry in entries if isinstance(entry, Entry)]
        size = sum(len(entry.value) for entry in whole)
        if len(whole) > GROUP_ITEMS or size > PIECE_BYTES:
            return None
        parts.append(document.entries(whole))
    if parts:
        document.before = b","
    cursor = cursor_of(Place(entries[-1].key[plain])) if more and entries else None
    parts.append(document.end(cursor))
    return parts
