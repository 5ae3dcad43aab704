"""Listing: page after page, each read to its end before anything of it is handed out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol, TypeVar
from urllib.parse import quote, urlencode

from tenantbase.client.exchange import Exchange
from tenantbase.client.wire import parse

Each = TypeVar("Each", covariant=True)

_FIRST_PAGE = 16  # entries: they may be large
_LARGEST_PAGE = 1000
_ENOUGH = 1 << 20  # bytes; pages grow and shrink towards this


class Page(Protocol[Each]):
    """What a page is decoded to."""

    @property
    def values(self) -> Sequence[Each]: ...

    @property
    def cursor(self) -> str | None: ...


async def listed(
    exchange: Exchange, shape: type[Page[Each]], prefix: str, limit: int | None, **fields: str
) -> AsyncGenerator[Each, None]:
    """What the pages of a list hold, ``limit`` of it at most."""
    query: dict[str, str | int] = {"prefix": prefix, **fields}
    size = _FIRST_PAGE
    while limit is None or limit > 0:
        query["limit"] = size if limit is None else min(size, limit)
        answer = await exchange.read("GET", f"/v1/values?{urlencode(query, quote_via=quote)}")
        page = parse(answer.body, shape)
        for each in page.values:
            yield each
        if page.cursor is None:
            return
        query["cursor"] = page.cursor
        limit = None if limit is None else limit - len(page.values)
        if len(answer.body) < _ENOUGH // 4:
            size = min(size * 4, _LARGEST_PAGE)
        elif len(answer.body) > _ENOUGH:
            size = max(size // 4, 1)
