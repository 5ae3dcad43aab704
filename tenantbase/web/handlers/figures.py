"""``GET /metrics`` and ``GET /v1/stats``: the figures of all workers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec
from aiohttp import web

from tenantbase import __version__
from tenantbase import figures as f
from tenantbase.database import Database
from tenantbase.errors import Forbidden, StoreError
from tenantbase.figures import ALL_REQUESTS, CacheState
from tenantbase.interfaces.store import StoreSize
from tenantbase.metrics.board import Board
from tenantbase.metrics.families import (
    CONTENT_TYPE,
    Scraped,
    cache_away,
    exposition,
    in_cache_state,
)
from tenantbase.metrics.pulse import Pulse
from tenantbase.metrics.shared import shared_figures
from tenantbase.web.answer import Answer
from tenantbase.web.caller import CALLER
from tenantbase.web.handlers.health import Health
from tenantbase.web.observer import RequestCells
from tenantbase.web.problems import NoSuchRoute
from tenantbase.web.responses import figures
from tenantbase.web.semantics.targets import NOTHING, query

_SIZE_SECONDS: Final = 2.0


class Measured(msgspec.Struct, frozen=True):
    """The sources of the figures.

    Attributes:
        per_tenant: show each tenant in ``/metrics``.
        cache_servers: the addresses in ``--memcached``, in that order.
    """

    board: Board
    pulse: Pulse
    requests: RequestCells
    per_tenant: bool
    cache_servers: Sequence[str] = ()


class Figures:
    """The routes for figures.

    Args:
        measured: None: metrics are turned off.
    """

    def __init__(self, database: Database, health: Health, measured: Measured | None) -> None:
        self._database = database
        self._health = health
        self._measured = measured

    async def metrics(self, request: web.Request) -> Answer:
        """``GET /metrics``"""
        measured = self._checked(request)
        size = await self._size()
        tenants = []
        if measured.per_tenant:
            with suppress(StoreError):
                tenants = list(await self._database.tenants())
        serves = await self._health.store_serves()
        measured.pulse.note_cache()
        cells = measured.board.total()
        requests = (
            (series.method, series.route, status, count)
            for series, status, count in measured.requests.counts(cells)
        )
        durations = measured.requests.durations
        scraped = Scraped(
            requests,
            durations,
            serves,
            size,
            self._database.troubles,
            tenants,
            measured.cache_servers,
        )
        return figures(exposition(measured.board, cells, scraped), CONTENT_TYPE)

    async def stats(self, request: web.Request) -> Answer:
        """``GET /v1/stats``"""
        measured = self._checked(request)
        size = await self._size()
        board = measured.board
        measured.pulse.note_cache()
        cells, recent = board.total(), measured.pulse.recent()
        hits, misses, bypasses = cells[f.HITS], cells[f.MISSES], cells[f.BYPASSES]
        stale = cells[f.STALE_HITS]
        reads = hits + stale + misses + bypasses
        servers, away = measured.cache_servers, cache_away(board)
        document = {
            "version": __version__,
            "uptime_seconds": round(board.uptime, 3),
            "workers": len(board.of_each(f.PID)),
            "requests": {
                "total": sum(cells[ALL_REQUESTS.first : ALL_REQUESTS.sum]),
                "per_second": round(recent.per_second, 3),
                "errors_per_second": round(recent.errors_per_second, 3),
                "p50_ms": _milliseconds(recent.p50),
                "p99_ms": _milliseconds(recent.p99),
            },
            "cache": {
                "available": in_cache_state(board) is CacheState.AVAILABLE,
                "away": [server for number, server in enumerate(servers) if number in away],
                "hits": hits,
                "stale": stale,
                "misses": misses,
                "bypasses": bypasses,
                "hit_ratio": round((hits + stale) / reads, 4) if reads else None,
            },
            "store": {
                "entries": size and size.entries,
                "bytes": size and size.bytes,
                "database_bytes": size and size.database_bytes,
                "log_bytes": size and size.log_bytes,
                "commits": cells[f.COMMITS],
                "shared": shared_figures(board, cells, size.server if size else None),
            },
            "watchers": cells[f.WATCHERS],
            "connections": cells[f.CONNECTIONS],
        }
        return figures(msgspec.json.encode(document))

    def _checked(self, request: web.Request) -> Measured:
        """The sources, if the caller may see figures. Raises Forbidden, NoSuchRoute."""
        if not request[CALLER].principal.reads_figures:
            raise Forbidden("this takes a token with the scope metrics or admin")
        query(request, NOTHING)
        if self._measured is None:
            raise NoSuchRoute("metrics are turned off")
        return self._measured

    async def _size(self) -> StoreSize | None:
        """The database's size; None if it does not answer, because that is when figures matter most."""
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_SIZE_SECONDS):
                return await self._database.size()
        return None


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
