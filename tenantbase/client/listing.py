"""Lists, page by page. A page is received whole before any of it is yielded."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol, TypeVar
from urllib.parse import quote, urlencode

from tenantbase.client.exchange import Exchange
from tenantbase.client.wire import parse

Each = TypeVar("Each", covariant=True)
APage = TypeVar("APage", bound="Page[object]")

_FIRST_PAGE_ENTRIES = 16  # few, because entries may be large
_LARGEST_PAGE_ENTRIES = 1000
_TARGET_PAGE_BYTES = 1 << 20  # pages grow and shrink towards this


class Page(Protocol[Each]):
    """A decoded page."""

    @property
    def values(self) -> Sequence[Each]: ...

    @property
    def cursor(self) -> str | None: ...


async def listed(
    exchange: Exchange,
    shape: type[Page[Each]],
    wanted: Mapping[str, str],
    limit: int | None,
) -> AsyncGenerator[Each, None]:
    """The entries of all pages, at most ``limit``."""
    async for page in pages(exchange, shape, wanted, limit):
        for each in page.values:
            yield each


async def pages(
    exchange: Exchange, shape: type[APage], wanted: Mapping[str, str], limit: int | None
) -> AsyncGenerator[APage, None]:
    """The pages of a list with at most ``limit`` entries.

    Args:
        wanted: the query, without the parameters of a page.
    """
    query: dict[str, str | int] = dict(wanted)
    size = _FIRST_PAGE_ENTRIES
    while limit is None or limit > 0:
        query["limit"] = size if limit is None else min(size, limit)
        answer = await exchange.read("GET", f"/v1/values?{urlencode(query, quote_via=quote)}")
        page = parse(answer.body, shape)
        yield page
        if page.cursor is None:
            return
        query["cursor"] = page.cursor
        limit = None if limit is None else limit - len(page.values)
        if len(answer.body) < _TARGET_PAGE_BYTES // 4:
            size = min(size * 4, _LARGEST_PAGE_ENTRIES)
        elif len(answer.body) > _TARGET_PAGE_BYTES:
            size = max(size // 4, 1)
