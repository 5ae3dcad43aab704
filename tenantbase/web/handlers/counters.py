"""``increment-value``: counters that lose no count, over requests and processes."""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from tenantbase.coherence.policy import Cache
from tenantbase.entry import check_key, expiry
from tenantbase.interfaces.store import Increment
from tenantbase.web.answer import Answer
from tenantbase.web.responses import written
from tenantbase.json_text import Decoder, parse
from tenantbase.web.semantics.bodies import keys_bytes, read_body
from tenantbase.web.semantics.conditions import write_condition
from tenantbase.web.settings import WebSettings
from tenantbase.web.semantics.targets import NOTHING, query


class IncrementValue(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``increment-value``. The integers are exact, however long."""

    key: str
    by: int = 1
    initial: int = 0
    ttl: float | None = None
    expires_at: float | None = None
    if_version: int | None = None
    if_absent: bool | None = False


_INCREMENT: Final = Decoder(IncrementValue)


class Counters:
    """Handler of the route."""

    def __init__(self, cache: Cache, settings: WebSettings) -> None:
        self._cache = cache
        self._settings = settings

    async def increment(self, request: web.Request) -> Answer:
        """``POST /increment-value``"""
        query(request, NOTHING)
        settings = self._settings
        body = await read_body(request, keys_bytes(settings), settings.body_timeout)
        given = parse(_INCREMENT, body)
        change = Increment(
            check_key(given.key),
            given.by,
            given.initial,
            expiry(self._cache.now(), given.ttl, given.expires_at),
            write_condition(request, given.if_version, bool(given.if_absent)),
        )
        (applied,) = await self._cache.write(change)
        return written(applied, with_value=True)
