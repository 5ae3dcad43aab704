"""The part of ``Client`` that lists and counts entries."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from urllib.parse import urlencode

from tenantbase.client.exchange import Exchange
from tenantbase.client.listing import listed, pages
from tenantbase.client.results import Entry, EntryMeta, Folder, Total
from tenantbase.client.wire import (
    Counted,
    EntryPage,
    FoldedPage,
    KeyPage,
    MetaPage,
    parse,
)


class Lists:
    """See ``Client``.

    A list is not a snapshot: a key written in the meantime may or may not be listed. A key that
    exists throughout is listed exactly once. The methods take:

    Args:
        prefix: literal text that the keys begin with.
        start: the first possible key.
        end: only keys before this one.
        reverse: in descending order of keys instead of ascending byte order.
        limit: at most this many.
    """

    @property
    def _exchange(self) -> Exchange:
        raise NotImplementedError

    async def list(
        self,
        prefix: str = "",
        *,
        start: str = "",
        end: str = "",
        reverse: bool = False,
        limit: int | None = None,
    ) -> AsyncGenerator[Entry, None]:
        """The entries of a range, in order."""
        wanted = _range(prefix, start, end, reverse)
        async for found in listed(self._exchange, EntryPage, wanted, limit):
            yield found.entry()

    async def list_keys(
        self,
        prefix: str = "",
        *,
        start: str = "",
        end: str = "",
        reverse: bool = False,
        limit: int | None = None,
    ) -> AsyncGenerator[str, None]:
        """Like ``list``, but only the keys."""
        wanted = _range(prefix, start, end, reverse) | {"fields": "key"}
        async for found in listed(self._exchange, KeyPage, wanted, limit):
            yield found.key

    async def list_meta(
        self,
        prefix: str = "",
        *,
        start: str = "",
        end: str = "",
        reverse: bool = False,
        limit: int | None = None,
    ) -> AsyncGenerator[EntryMeta, None]:
        """Like ``list``, but without values."""
        wanted = _range(prefix, start, end, reverse) | {"fields": "meta"}
        async for found in listed(self._exchange, MetaPage, wanted, limit):
            yield found

    async def browse(
        self,
        prefix: str = "",
        *,
        delimiter: str = "/",
        start: str = "",
        end: str = "",
        reverse: bool = False,
    ) -> AsyncGenerator[EntryMeta | Folder, None]:
        """Like ``list_meta``, but keys that contain the delimiter after the prefix become folders.

        A folder costs the same however many keys are in it.
        """
        wanted = _range(prefix, start, end, reverse) | {"fields": "meta", "delimiter": delimiter}
        async for page in pages(self._exchange, FoldedPage, wanted, None):
            items: list[tuple[str, EntryMeta | Folder]] = [(meta.key, meta) for meta in page.values]
            items += [(folder, Folder(folder)) for folder in page.prefixes]
            for _, item in sorted(items, key=lambda item: item[0], reverse=reverse):
                yield item

    async def count(self, prefix: str = "") -> Total:
        """Count the entries whose keys have the prefix."""
        entries = size = 0
        query = {"prefix": prefix}
        while True:
            answer = await self._exchange.read("GET", f"/v1/count?{urlencode(query)}")
            counted = parse(answer.body, Counted)
            entries += counted.count
            size += counted.bytes
            if counted.cursor is None:
                return Total(entries, size)
            query["cursor"] = counted.cursor


def _range(prefix: str, start: str, end: str, reverse: bool) -> dict[str, str]:
    """The query of a list."""
    given = {"start": start, "end": end, "order": "desc" if reverse else ""}
    return {"prefix": prefix} | {name: value for name, value in given.items() if value}
