"""Servers in this process, over real databases, with and without a real memcached."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio

from tenantbase.coherence.policy import Cache
from tenantbase.process.config import HEARTBEAT_SECONDS
from tenantbase.web import WebSettings
from tests.servers import FaultProxy, MemcachedProcess
from tests.service import Server, opened, served, web_settings


class Start(Protocol):
    """Starts a server with the given settings inside the block."""

    def __call__(
        self,
        settings: WebSettings = ...,
        memcached: MemcachedProcess | None = ...,
        wrap: Callable[[Cache], Cache] = ...,
        heartbeat: float = ...,
    ) -> AbstractAsyncContextManager[Server]: ...


@asynccontextmanager
async def serve(
    database: Path,
    settings: WebSettings,
    memcached: MemcachedProcess | FaultProxy | None,
    wrap: Callable[[Cache], Cache] = lambda cache: cache,
    heartbeat: float = HEARTBEAT_SECONDS,
) -> AsyncIterator[Server]:
    async with opened(database, memcached) as cache:
        async with served(wrap(cache), settings, heartbeat=heartbeat) as server:
            server.cached = memcached is not None
            yield server


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
    """One server for all tests of a module, which use different keys.

    The answers must be the same with memcached, without it, without the fast path, and with a
    memcached that dies in the middle of every answer.
    """
    database = tmp_path_factory.mktemp("server") / "x.db"
    settings = web_settings(fast_path=request.param != "general-path")
    async with FaultProxy(memcached.address) as proxy:
        await proxy.cut_after(3)
        cached = {"no-cache": None, "dying": proxy}.get(request.param, memcached)
        async with serve(database, settings, cached) as server:
            server.cached = request.param in ("cache", "general-path")
            yield server


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """For tests that need their own server."""

    def start(
        settings: WebSettings = web_settings(),  # noqa: B008  frozen
        memcached: MemcachedProcess | None = None,
        wrap: Callable[[Cache], Cache] = lambda cache: cache,
        heartbeat: float = HEARTBEAT_SECONDS,
    ) -> AbstractAsyncContextManager[Server]:
        return serve(tmp_path / "x.db", settings, memcached, wrap, heartbeat)

    return start
