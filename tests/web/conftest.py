"""Servers in this process, over real databases, with a real memcached and without one."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio

from tenantbase.coherence.policy import Cache
from tenantbase.process.config import Config
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.web import Lifecycle, WebSettings, create_app, serving
from tenantbase.process.wiring import Memcached, open_cache
from tests.servers import FaultProxy, MemcachedProcess
from tests.wire import Answer, Headers, Wire, request


class Server:
    """A server that runs in the test's event loop."""

    def __init__(self, port: int, cache: Cache, lifecycle: Lifecycle, cached: bool) -> None:
        self.port = port
        self.cache = cache
        self.lifecycle = lifecycle
        self.cached = cached

    async def ask(
        self,
        method: str,
        target: str | bytes,
        body: bytes | str | None = None,
        headers: Headers = (),
    ) -> Answer:
        """Send one request over a connection of its own."""
        async with await Wire.connect(self.port) as wire:
            await wire.send(request(method, target, body, headers))
            return await wire.answer(method)

    async def send(self, data: bytes, method: str = "GET") -> Answer:
        """Send bytes, and take the first answer."""
        async with await Wire.connect(self.port) as wire:
            await wire.send(data)
            return await wire.answer(method)

    def wire(self) -> AbstractAsyncContextManager[Wire]:
        """A connection, open as long as the block."""
        return _connected(self.port)


@asynccontextmanager
async def _connected(port: int) -> AsyncIterator[Wire]:
    async with await Wire.connect(port) as wire:
        yield wire


class Start(Protocol):
    """Starts a server with these settings, which ends with the block."""

    def __call__(
        self,
        settings: WebSettings = ...,
        memcached: MemcachedProcess | None = ...,
        wrap: Callable[[Cache], Cache] = ...,
    ) -> AbstractAsyncContextManager[Server]: ...


@asynccontextmanager
async def serve(
    database: Path,
    settings: WebSettings,
    memcached: MemcachedProcess | FaultProxy | None,
    wrap: Callable[[Cache], Cache] = lambda cache: cache,
) -> AsyncIterator[Server]:
    accelerator = None
    if memcached is not None:
        accelerator = Memcached(MemcacheAddress.parse(memcached.address), 1 << 20)
    # A generous deadline: a slow machine must not turn hits into misses.
    config = Config(database=database, cache_timeout=5.0)
    async with open_cache(config, accelerator) as cache:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            lifecycle = Lifecycle()
            app = create_app(wrap(cache), settings, lifecycle)
            async with serving(app, [listener], lifecycle, settings):
                port = listener.getsockname()[1]
                yield Server(port, cache, lifecycle, memcached is not None)


@pytest.fixture(scope="session")
def memcached() -> Iterator[MemcachedProcess]:
    with MemcachedProcess() as process:
        yield process


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["cache", "no-cache", "general-path", "dying"]
)
async def server(
    request: pytest.FixtureRequest,
    memcached: MemcachedProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Server]:
    """One server for all tests of a module, which use keys of their own.

    With the cache, without it, with it but without the fast path, and with one that dies in the
    middle of every answer: the answers are the same.
    """
    database = tmp_path_factory.mktemp("server") / "x.db"
    settings = WebSettings(fast_path=request.param != "general-path")
    async with FaultProxy(memcached.address) as proxy:
        await proxy.cut_after(3)
        cached = {"no-cache": None, "dying": proxy}.get(request.param, memcached)
        async with serve(database, settings, cached) as server:
            server.cached = request.param in ("cache", "general-path")
            yield server


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """For tests that need a server of their own."""

    def start(
        settings: WebSettings = WebSettings(),  # noqa: B008  frozen
        memcached: MemcachedProcess | None = None,
        wrap: Callable[[Cache], Cache] = lambda cache: cache,
    ) -> AbstractAsyncContextManager[Server]:
        return serve(tmp_path / "x.db", settings, memcached, wrap)

    return start
