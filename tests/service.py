"""The service within the test's process: the policy over a database, and a server on a free
port."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from tenantbase.coherence.policy import Cache
from tenantbase.database import Database, Limits
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.interfaces.postgres.address import DatabaseAddress
from tenantbase.process.config import HEARTBEAT_SECONDS, Config
from tenantbase.process.wiring import Memcached, open_cache
from tenantbase.process.worker import web_settings as settings_of
from tenantbase.scope import DEFAULT
from tenantbase.web import Lifecycle, WebSettings, create_app, serving
from tenantbase.web.app import BUDGET
from tenantbase.web.handlers.figures import Measured
from tenantbase.web.observer import Observer
from tenantbase.web.transport.budget import Budget
from tests.servers import FaultProxy, MemcachedProcess
from tests.wire import Answer, Headers, Wire, request

_MAX_ITEM_BYTES: Final = 1 << 20


def web_settings(**changes: Any) -> WebSettings:
    """The default settings with these fields, or fields of ``limits``, changed."""
    settings = settings_of(Config())
    limits = {name: changes.pop(name) for name in Limits.__struct_fields__ if name in changes}
    return replace(settings, limits=msgspec.structs.replace(settings.limits, **limits), **changes)


def service(
    cache: Cache, settings: WebSettings, *, heartbeat: float = HEARTBEAT_SECONDS
) -> Database:
    """A ``Database`` over the test's policy, with the limits of these settings."""
    return Database(cache, settings.limits, heartbeat=heartbeat)


def opened(
    database: Path | DatabaseAddress,
    memcached: MemcachedProcess | FaultProxy | str | None = None,
    figures: Any = None,
    **options: Any,
) -> AbstractAsyncContextManager[Cache]:
    """Open the policy on a database, which is created if it does not exist.

    Args:
        memcached: the memcached to use, or its address, or several with commas between them;
            None: nothing is cached.
        figures: where this process counts, a memoryview.
        options: of `Config`. The cache's default timeout is generous: a slow machine must not turn
            hits into misses.
    """
    options = {"cache_timeout": 5.0, "store_unreplicated": True, **options}
    config = Config(database=database, **options)
    if memcached is None:
        return open_cache(config, figures=figures)
    text = memcached if isinstance(memcached, str) else memcached.address
    addresses = [MemcacheAddress.parse(each) for each in text.split(",")]
    return open_cache(config, Memcached(addresses, _MAX_ITEM_BYTES), figures=figures)


class Server:
    """A server that runs in the test's event loop.

    Attributes:
        cached: whether reads may be served from memcached.
        token: a secret to send with every request; None: none is sent.
        scope: what the requests reach with it.
        bodies: the budget for bodies that it holds; known once it is served.
    """

    bodies: Budget

    def __init__(self, cache: Cache, lifecycle: Lifecycle, *, cached: bool = False) -> None:
        self.port = 0
        self.cache = cache
        self.lifecycle = lifecycle
        self.cached = cached
        self.token: str | None = None
        self.scope = DEFAULT

    def request(
        self,
        method: str,
        target: str | bytes,
        body: bytes | str | None = None,
        headers: Headers = (),
        version: str = "1.1",
    ) -> bytes:
        """A request as bytes, with the server's token if it has one."""
        if self.token is not None:
            pairs = headers.items() if isinstance(headers, Mapping) else headers
            headers = [*pairs, ("Authorization", f"Bearer {self.token}")]
        return request(method, target, body, headers, version)

    async def ask(
        self,
        method: str,
        target: str | bytes,
        body: bytes | str | None = None,
        headers: Headers = (),
    ) -> Answer:
        """Send one request over a new connection."""
        return await self.send(self.request(method, target, body, headers), method)

    async def send(self, data: bytes, method: str = "GET") -> Answer:
        """Send bytes, and return the first answer."""
        async with self.wire() as wire:
            await wire.send(data)
            return await wire.answer(method)

    @asynccontextmanager
    async def wire(self) -> AsyncIterator[Wire]:
        """A connection that is open inside the block."""
        async with await Wire.connect(self.port) as wire:
            yield wire


@asynccontextmanager
async def served(
    cache: Cache,
    settings: WebSettings | None = None,
    *,
    heartbeat: float = HEARTBEAT_SECONDS,
    port: int = 0,
    prepare: Callable[[web.Application], None] = lambda app: None,
    observer: Observer | None = None,
    measured: Measured | None = None,
) -> AsyncIterator[Server]:
    """Run a server of this cache on 127.0.0.1 inside the block.

    Args:
        port: the port to listen on; 0: a free one.
        prepare: called with the application before it is served.
        observer: told of each request that has ended.
        measured: what figures are made from.
    """
    settings = settings or web_settings()
    with socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        server = Server(cache, Lifecycle())
        server.port = listener.getsockname()[1]
        database = service(cache, settings, heartbeat=heartbeat)
        app = create_app(database, settings, server.lifecycle, observer=observer, measured=measured)
        server.bodies = app[BUDGET]
        prepare(app)
        async with serving(app, [listener], server.lifecycle, settings):
            yield server
