"""The routes that change an entry but not its value: ``touch-value`` and ``rename-value``."""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from tenantbase.database import Database
from tenantbase.errors import InvalidRequest
from tenantbase.json_text import Decoder
from tenantbase.web.answer import Answer
from tenantbase.web.caller import scope_of
from tenantbase.web.responses import written
from tenantbase.web.semantics.bodies import read_json
from tenantbase.web.semantics.conditions import write_condition
from tenantbase.web.settings import WebSettings


class TouchValue(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``touch-value``: ``ttl`` or ``expires_at``, where null means never."""

    key: str
    ttl: float | None = None
    expires_at: float | None | UnsetType = UNSET
    if_version: int | None = None


class RenameValue(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``rename-value``."""

    key: str
    to: str
    copy: bool | None = False
    replace: bool | None = False
    if_version: int | None = None


_TOUCH: Final = Decoder(TouchValue)
_RENAME: Final = Decoder(RenameValue)


class Changing:
    """The routes that change an entry but not its value."""

    def __init__(self, database: Database, settings: WebSettings) -> None:
        self._database = database
        self._settings = settings

    async def touch(self, request: web.Request) -> Answer:
        """``POST /touch-value``"""
        given = await read_json(request, _TOUCH, self._settings)
        if given.ttl is None and given.expires_at is UNSET:
            raise InvalidRequest(
                "ttl or expires_at is required; expires_at null means never", "ttl"
            )
        touched = await self._database.touch(
            scope_of(request),
            given.key,
            ttl=given.ttl,
            expires_at=None if given.expires_at is UNSET else given.expires_at,
            condition=write_condition(request),
            if_version=given.if_version,
        )
        return written(given.key, touched)

    async def rename(self, request: web.Request) -> Answer:
        """``POST /rename-value``"""
        given = await read_json(request, _RENAME, self._settings)
        renamed = await self._database.rename(
            scope_of(request),
            given.key,
            given.to,
            copy=bool(given.copy),
            replace=bool(given.replace),
            condition=write_condition(request),
            if_version=given.if_version,
        )
        return written(given.to, renamed)
