"""Servers in this process, over real databases, with and without a real memcached."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

import pytest
import pytest_asyncio

from tenantbase.access import TokenScope
from tenantbase.coherence.policy import Cache
from tenantbase.commands import Delete, Set
from tenantbase.database import Database
from tenantbase.entry import JSON
from tenantbase.interfaces.postgres.address import DatabaseAddress
from tenantbase.process.config import HEARTBEAT_SECONDS
from tenantbase.scope import DEFAULT, Scope
from tenantbase.web import WebSettings
from tenantbase.web.transport.turns import Turns
from tests.postgres import PostgresProcess
from tests.servers import FaultProxy, MemcachedProcess
from tests.service import Server, opened, served, service, web_settings

TENANT: Final = "acme"
_DATABASES: Final = count(1)


# In seconds: on a busy machine, a request must not fail because it is slow.
PATIENT: Final = {f"{what}_timeout": 60.0 for what in ("store", "read", "write")}


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
    async with opened(database, memcached, **PATIENT) as cache:
        async with served(wrap(cache), settings, heartbeat=heartbeat) as server:
            server.cached = memcached is not None
            yield server


@pytest.fixture(scope="session")
def memcached() -> Iterator[MemcachedProcess]:
    with MemcachedProcess() as process:
        yield process


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresProcess]:
    with PostgresProcess() as process:
        yield process


class Way(NamedTuple):
    """How a server that must give the same answers as any other is run.

    Attributes:
        memcached: ``dying``: it dies in the middle of every answer.
        tokens: whether the database is closed, and requests are those of a tenant's token.
        shared: whether the database is one on PostgreSQL.
    """

    memcached: Literal["on", "off", "dying"] = "on"
    fast_path: bool = True
    tokens: bool = False
    shared: bool = False


# Every two of these choices are combined at least once.
WAYS: Final = {
    "cache": Way(),
    "no-cache": Way("off"),
    "general-path": Way(fast_path=False),
    "dying": Way("dying"),
    "tokens": Way(tokens=True),
    "tokens-no-cache-general-path": Way("off", fast_path=False, tokens=True),
    "tokens-dying-general-path": Way("dying", fast_path=False, tokens=True),
    "shared": Way(shared=True),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=WAYS.values(), ids=WAYS)
async def server(
    request: pytest.FixtureRequest,
    memcached: MemcachedProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Server]:
    """One server for all tests of a module, which use different keys. The answers must be the
    same in each way."""
    way: Way = request.param
    database: Path | DatabaseAddress = tmp_path_factory.mktemp("server") / "x.db"
    if way.shared:
        postgres = request.getfixturevalue("postgres")  # started only now
        name = f"web_{next(_DATABASES)}"
        postgres.sql(f"CREATE DATABASE {name} OWNER tenantbase")
        database = DatabaseAddress.parse(postgres.url(name))
    settings = web_settings(fast_path=way.fast_path)
    async with FaultProxy(memcached.address) as proxy:
        await proxy.cut_after(3)
        cached = {"off": None, "dying": proxy}.get(way.memcached, memcached)
        async with opened(database, cached, **PATIENT) as cache:
            await _use_up_versions(cache)
            token = await _tenants_token(service(cache, settings)) if way.tokens else None
            async with served(cache, settings) as server:
                server.cached = way.memcached == "on"
                if token is not None:
                    server.token, server.scope = token, Scope(TENANT)
                yield server


async def _use_up_versions(cache: Cache) -> None:
    """Small numbers are no entry's version, whichever test comes first."""
    for _ in range(100):
        await cache.write(Set(DEFAULT.key("spent"), b"1", JSON))
    await cache.write(Delete(DEFAULT.key("spent")))


async def _tenants_token(database: Database) -> str:
    """Close the database. Returns: the secret of a token of the tenant ``TENANT``."""
    await database.put_tenant(TENANT)
    _, secret = await database.create_token("tables", TokenScope.WRITE, TENANT)
    return secret


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


@pytest.fixture
def turns_taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """The turns of the event loop that have been taken: by which lane, and the share of each."""
    take, taken = Turns.take, list[tuple[str, float]]()

    async def counted(turns: Turns, lane: str = "", share: float = 1.0) -> None:
        taken.append((lane, share))
        await take(turns, lane, share)

    monkeypatch.setattr(Turns, "take", counted)
    return taken
