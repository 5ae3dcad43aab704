"""A server that counts the requests that its general path answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from tenantbase.web import WebSettings
from tests.service import Server, opened, served
from tests.wire import request

GET = request("GET", "/get-value?key=k")
SET = request("POST", "/set-value", '{"key": "k", "value": 1}')


class Served:
    """The server, with ``general``, the number of requests that its general path has answered."""

    def __init__(self, server: Server, database: Path) -> None:
        self.port = server.port
        self.lifecycle = server.lifecycle
        self.database = database
        self.general = 0


@asynccontextmanager
async def serve(directory: Path, settings: WebSettings) -> AsyncIterator[Served]:
    database = directory / "x.db"

    @web.middleware
    async def counting(request: web.Request, handler: Handler) -> web.StreamResponse:
        result.general += 1
        return await handler(request)

    def prepare(app: web.Application) -> None:
        app.middlewares.insert(0, counting)

    async with opened(database) as cache, served(cache, settings, prepare=prepare) as server:
        result = Served(server, database)
        assert (await server.send(SET)).status == 200
        assert result.general == 0
        yield result
