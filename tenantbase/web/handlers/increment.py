"""``POST /increment-value``: atomic across requests and processes."""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from tenantbase.database import Database
from tenantbase.json_text import Decoder
from tenantbase.web.answer import Answer
from tenantbase.web.caller import scope_of
from tenantbase.web.responses import written
from tenantbase.web.semantics.bodies import read_json
from tenantbase.web.semantics.conditions import write_condition
from tenantbase.web.settings import WebSettings


class IncrementValue(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``increment-value``. Integers are exact, however long."""

    key: str
    by: int = 1
    initial: int = 0
    ttl: float | None = None
    expires_at: float | None = None
    if_version: int | None = None
    if_absent: bool | None = False
    keep_ttl: bool | None = False


_INCREMENT: Final = Decoder(IncrementValue)


class Increment:
    """The route that adds to an integer."""

    def __init__(self, database: Database, settings: WebSettings) -> None:
        self._database = database
        self._settings = settings

    async def increment(self, request: web.Request) -> Answer:
        """``POST /increment-value``"""
        given = await read_json(request, _INCREMENT, self._settings)
        applied = await self._database.increment(
            scope_of(request),
            given.key,
            given.by,
            given.initial,
            ttl=given.ttl,
            expires_at=given.expires_at,
            keep_ttl=bool(given.keep_ttl),
            condition=write_condition(request),
            if_version=given.if_version,
            if_absent=bool(given.if_absent),
        )
        return written(given.key, applied, with_value=True)
