"""Lists that are short enough to be answered whole: one page of the database, rendered by its thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, cast

from tenantbase.database import Database
from tenantbase.documents import PIECE_BYTES
from tenantbase.entry import Entry
from tenantbase.listing import PAGE_ENTRIES, Folded, Place
from tenantbase.plain_entries import PlainEntries
from tenantbase.request_context import CURRENT, RequestContext
from tenantbase.web.caller import Caller, Callers
from tenantbase.web.handlers.lists import GROUP_ITEMS, PAGE_BYTES
from tenantbase.web.list_document import ListDocument
from tenantbase.web.semantics.list_requests import PARAMETERS, cursor_of, list_request
from tenantbase.web.semantics.targets import parameters_in
from tenantbase.web.sending import COMPRESSED_FROM_BYTES
from tenantbase.web.transport.turns import Turns
from tenantbase.web.transport.unread import WAIT_SECONDS, Share

_FORGET_SECONDS: Final = 10.0  # then one page may be read twice again

Page = tuple[Sequence[Entry | Folded], bool]
Document = Sequence[bytes]
"""The parts of a list's document."""


class Recipient(Protocol):
    """The connection that a list is for."""

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
        # How many entries were too many, by tenant and by whether long answers are compressed.
        self._too_many: dict[tuple[str, bool], int] = {}
        self._forget_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(
        self,
        query: str,
        caller: Caller,
        compresses: bool,
        recipient: Recipient,
        receive: Callable[[Document | Exception | None], None],
    ) -> bool:
        """Begin to read a list.

        Args:
            query: the request's, still encoded.
            compresses: a long answer is compressed, which is done elsewhere.
            receive: called later with the document, the exception, or None if the list is too long
                after all.

        Returns: False if the list may be long, or is not one of whole entries. Then ``receive`` is not
            called.

        Raises:
            InvalidRequest, Forbidden: likewise.
        """
        asked = list_request(parameters_in(query, PARAMETERS))
        limit, kind = asked.limit, (caller.scope.tenant, compresses)
        if limit is None or not self._may_fit(limit, kind):
            return False
        if not asked.values or asked.wanted.delimiter:
            return False
        document = ListDocument(caller.scope.plain)
        page = self._database.page(caller.scope, asked.wanted, asked.after, limit, document)

        async def read() -> None:
            recipient.context = recipient.context or RequestContext()
            CURRENT.set(recipient.context)
            try:
                entries, more = await self._read(page, caller, recipient)
                parts = None
                if not more or len(entries) == limit:
                    parts = _document(entries, more, document, caller.scope.plain)
                if parts and compresses and sum(map(len, parts)) >= COMPRESSED_FROM_BYTES:
                    parts = None
            except Exception as error:  # the client gets it
                receive(error)
                return
            if parts is None:
                self._too_many[kind] = len(entries)
            receive(parts)

        # Now and not in the task: until that starts, lists would wait for this one as for other requests.
        self._turns.begin_stream(caller.scope.tenant)
        task = asyncio.get_running_loop().create_task(read())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _may_fit(self, limit: int, kind: tuple[str, bool]) -> bool:
        if not 0 < limit <= PAGE_ENTRIES:
            return False
        now = asyncio.get_running_loop().time()
        if now >= self._forget_at:  # values may be smaller by now
            self._too_many.clear()
            self._forget_at = now + _FORGET_SECONDS
        too_many = self._too_many.get(kind)
        return too_many is None or limit < too_many

    async def _read(
        self, page: Callable[[], Awaitable[Page]], caller: Caller, recipient: Recipient
    ) -> Page:
        tenant = caller.scope.tenant
        try:
            with self._callers.holding(caller, recipient.abort):
                await recipient.share.reserve(PAGE_BYTES, WAIT_SECONDS)
                # Threads that read compete with the event loop for the processor.
                async with self._turns.held(tenant):
                    return await page()
        finally:
            self._turns.end_stream(tenant)


def _document(
    entries: Sequence[Entry | Folded], more: bool, document: ListDocument, plain: slice
) -> Document | None:
    """The document of a whole list; None if it takes too long to render at once."""
    parts = []
    if isinstance(entries, PlainEntries) and entries.rendered:
        parts.append(entries.rendered)
    elif entries:
        rows = cast("Sequence[Entry]", list(entries))  # nothing is folded without a delimiter
        if len(rows) > GROUP_ITEMS or sum(len(entry.value) for entry in rows) > PIECE_BYTES:
            return None
        parts.append(document.entries(rows))
    if parts:
        document.before = b","
    cursor = cursor_of(Place(entries[-1].key[plain])) if more and entries else None
    parts.append(document.end(cursor))
    return parts
