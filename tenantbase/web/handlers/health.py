"""Health and liveness, cheap enough for every load balancer to poll every second."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from aiohttp import web

from tenantbase import __version__
from tenantbase.database import Database
from tenantbase.errors import StoreError
from tenantbase.web.answer import Answer
from tenantbase.web.lifecycle import Lifecycle
from tenantbase.web.responses import options, state

PROBES: Final = frozenset({"/health-check", "/livez"})
"""The routes that are answered at any load."""

_CHECK_SECONDS: Final = 2.0
_ALIVE: Final = b'{"status":"ok"}'


class Health:
    """The routes for health checks."""

    def __init__(self, database: Database, lifecycle: Lifecycle) -> None:
        self._database = database
        self._lifecycle = lifecycle
        self._check: asyncio.Task[bool] | None = None

    async def check(self, request: web.Request) -> Answer:
        """``GET /health-check``"""
        return await self.state()

    async def state(self) -> Answer:
        """The state of the service: 200, or 503 if it cannot serve or is draining."""
        serves = await self.store_serves()
        cached, away = self._database.cache_available, self._database.cache_away
        troubles = self._database.troubles
        draining = self._lifecycle.draining
        unavailable = draining or not serves
        status = "unavailable" if unavailable else "degraded" if troubles or away else "ok"
        cache = "ok" if not away else "degraded" if cached else "unavailable"
        document = {
            "status": status,
            "store": "unavailable" if not serves else "degraded" if troubles else "ok",
            "troubles": troubles,
            "cache": "off" if cached is None else cache,
            # Not by address: this needs no token.
            "cache_away": [number + 1 for number in away],
            "draining": draining,
            "version": __version__,
        }
        return state(msgspec.json.encode(document), serves=not unavailable)

    async def options(self, target: str) -> Answer:
        """``OPTIONS`` for the whole server. HAProxy's ``option httpchk`` uses it as a health check.

        Args:
            target: ``*`` or ``/``. The latter is also the console's page.
        """
        answer = await self.state()
        return options(whole_server=target == "*") if answer.status == 200 else answer

    async def alive(self, request: web.Request) -> Answer:
        """``GET /livez``: shows that the event loop runs, even if nothing else works."""
        return state(_ALIVE)

    async def store_serves(self) -> bool:
        """Whether the database can serve."""
        # One check at a time: while the database hangs, health checks must not pile up behind it.
        if self._check is None:
            self._check = asyncio.create_task(self._ask_store())
            self._check.add_done_callback(self._checked)
        done, _ = await asyncio.wait([self._check], timeout=_CHECK_SECONDS)
        return any(check.result() for check in done)

    async def _ask_store(self) -> bool:
        try:
            await self._database.check()
        except StoreError:
            return False
        return True

    def _checked(self, check: asyncio.Task[bool]) -> None:
        self._check = None
