"""Listing: pages that come line by line, and go on where a connection was lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final
from urllib.parse import quote, urlencode

import msgspec

from tenantbase.client.exchange import Exchange
from tenantbase.client.retrying import Interrupted, delay
from tenantbase.client.wire import parse

_PAGE: Final = 1000
_NDJSON: Final = {"Accept": "application/x-ndjson"}
_CURSOR: Final = b'{"cursor":'  # an entry begins with its key


class _Cursor(msgspec.Struct):
    cursor: str


class _Key(msgspec.Struct):
    key: str


async def lines(
    exchange: Exchange, prefix: str, limit: int | None, **fields: str
) -> AsyncGenerator[tuple[str, bytes], None]:
    """Key and line of each entry, in byte order of keys, in memory that does not grow."""
    cursor: dict[str, str] = {}
    last = b""
    failures = 0  # in a row
    now = asyncio.get_running_loop().time
    progress = now()
    while limit is None or limit > 0:
        size = _PAGE if limit is None else min(_PAGE, limit)
        query = {"prefix": prefix, "limit": size, **cursor, **fields}
        target = f"/v1/values?{urlencode(query, quote_via=quote)}"
        following = None
        try:
            async with exchange.stream(target, _NDJSON, exchange.timeout) as page:
                async for line in page:
                    if line.startswith(_CURSOR):
                        following = parse(line, _Cursor).cursor
                        continue
                    key = parse(line, _Key).key
                    failures, progress = 0, now()
                    # What came before the connection was lost comes again.
                    if key.encode() > last:
                        last = key.encode()
                        limit = None if limit is None else limit - 1
                        yield key, line
        except Interrupted as interrupted:
            failures += 1
            if failures >= exchange.attempts or now() - progress >= exchange.timeout:
                raise interrupted.failure from interrupted
            await asyncio.sleep(delay(failures, interrupted.answer))
            continue
        if following is None:
            return
        cursor = {"cursor": following}
