"""Races staged step by step: planted bugs meet the schedules that expose them.

Two nodes in one process are on a primary and its synchronous standby. The first has a memcached, the
second has none. Their answers go to the history checker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any, Final

import asyncpg

from tenantbase.coherence.change_table import ChangeTable
from tenantbase.coherence.policy import Cache
from tenantbase.coherence.read_index import ReadIndex
from tenantbase.commands import Set
from tenantbase.entry import JSON
from tenantbase.errors import OutcomeUnknown, StoreError
from tenantbase.interfaces.postgres import queries, settling, writing
from tenantbase.interfaces.postgres.address import DatabaseAddress
from tenantbase.interfaces.postgres.confirmation import Confirm, Confirmer
from tenantbase.interfaces.postgres.connection import SCHEMA, Connection, Rows
from tenantbase.interfaces.postgres.settling import Settler
from tenantbase.interfaces.postgres.store import PostgresStore
from tenantbase.interfaces.postgres.writing import Committer, Ticket
from tenantbase.lookup import CacheStatus
from tests.cluster.planted import BUGS
from tests.faults.history import NEVER, Operation
from tests.interfaces.postgres.cluster import replicated
from tests.postgres import PostgresProcess
from tests.servers import MemcachedProcess, poll_async
from tests.service import opened

KEY: Final = "default/k"
_CHANGED_CLASSES: Final = (
    ChangeTable,
    Committer,
    Confirmer,
    Connection,
    PostgresStore,
    ReadIndex,
    Settler,
    Ticket,
)
# Steps before a statement is sent, and after it was answered.
_BEFORE: Final = {
    queries.READ.plain: "reading",
    queries.READ.committing: "reading",
    writing._COMMIT: "committing",
    settling._MARK: "marking",
}
_AFTER: Final = {queries.ASK.plain: "asked", queries.ASK.committing: "asked"}
# Nothing is given up because the machine is busy.
_STORE_SECONDS: Final = 30.0
_WRITE_SECONDS: Final = 120.0


class Gate:
    """A step that makes the next statement wait.

    Attributes:
        connection, statement, args: what waits.
    """

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self.connection: Connection
        self.statement: str
        self.args: tuple[object, ...]

    async def reach(self) -> None:
        """Wait until a statement waits here."""
        await asyncio.wait_for(self.reached.wait(), _STORE_SECONDS)

    async def wait(self, connection: Connection, statement: str, args: tuple[object, ...]) -> None:
        self.connection, self.statement, self.args = connection, statement, args
        self.reached.set()
        await self.opened.wait()


class Stage:
    """The stage of a race.

    Attributes:
        history: the operations so far.
        primary, standby: the servers.
        near, far: the node with a memcached, and the one without.
        questions: how many were asked.
    """

    near: Cache
    far: Cache

    def __init__(self, primary: PostgresProcess, standby: PostgresProcess, mode: Confirm) -> None:
        self.primary = primary
        self.standby = standby
        self.history: list[Operation] = []
        self.questions = 0
        self._mode = mode
        self._gates: dict[str, Gate] = {}
        self._stack = AsyncExitStack()

    async def open(self, memcached: MemcachedProcess) -> None:
        """Open both nodes."""
        self.near = await self.node(memcached)
        self.far = await self.node()

    async def close(self) -> None:
        """Close all nodes."""
        await self._stack.aclose()

    async def node(self, memcached: MemcachedProcess | None = None) -> Cache:
        """Open one more node."""
        hosts = f"{self.primary.host},{self.standby.host}"
        url = f"postgresql://tenantbase@{hosts}/tenantbase?sslmode=disable"
        node = opened(
            DatabaseAddress.parse(url),
            memcached,
            store_unreplicated=False,
            store_confirm=self._mode,
            store_timeout=_STORE_SECONDS,
            write_timeout=_WRITE_SECONDS,
            read_timeout=_STORE_SECONDS,
        )
        return await self._stack.enter_async_context(node)

    # Operations

    async def get(self, node: Cache) -> CacheStatus:
        """Read the key, and record the operation."""
        start = time.monotonic_ns()
        found = await node.get(KEY)
        told: dict[str, Any] = {}
        if (entry := found.entry) is not None:
            told = {"version": entry.version, "id": entry.id, "value": entry.value.decode()}
        self.history.append(Operation(KEY, "get", start, time.monotonic_ns(), **told))
        return found.cache_status

    async def get_cached(self) -> None:
        """Read the key on the node with a memcached, until it comes from there."""
        while await self.get(self.near) is not CacheStatus.HIT:
            await asyncio.sleep(0.005)

    async def set(self, node: Cache, value: str) -> None:
        """Write the key, and record the operation, whatever becomes of it."""
        start = time.monotonic_ns()
        told: dict[str, Any] = {"outcome": "ok", "end": NEVER}
        try:
            (applied,) = await node.write(Set(KEY, value.encode(), JSON))
        except OutcomeUnknown:
            told["outcome"] = "unknown"
        except StoreError:
            told["outcome"] = "failed"
        else:
            assert (entry := applied.entry) is not None
            told = {"version": entry.version, "id": entry.id, "created": applied.created}
            told["end"] = time.monotonic_ns()
        self.history.append(Operation(KEY, "set", start, value=value, **told))

    # Steps

    def close_gate(self, step: str) -> Gate:
        """Let the next statement wait at a step."""
        gate = self._gates[step] = Gate()
        return gate

    async def held_at(
        self, step: str, work: Coroutine[Any, Any, object]
    ) -> tuple[asyncio.Task[object], Gate]:
        """Let some work reach a step, and hold it there."""
        gate = self.close_gate(step)
        task = asyncio.create_task(work)
        await gate.reach()
        return task, gate

    async def cut_off_commit(
        self, work: Coroutine[Any, Any, object]
    ) -> tuple[asyncio.Task[object], Gate]:
        """Let a node lose its session while its COMMIT is on the way; see ``deliver``."""
        task, gate = await self.held_at("committing", work)
        gate.connection.terminate("the network is down")
        gate.opened.set()
        return task, gate

    async def deliver(self, gate: Gate) -> None:
        """Let a COMMIT reach the primary late. Its answer gets lost."""
        driver = await asyncpg.connect(self.primary.url(), server_settings={"search_path": SCHEMA})
        with suppress(asyncpg.UniqueViolationError):  # there is a mark
            await driver.fetch(gate.statement, *gate.args)
        await driver.close()

    # Servers

    def waits_for_standby(self, text: str) -> bool:
        """Whether a statement with this text waits for the standby."""
        count = self.primary.sql(f"SELECT count(*) {_waiting(text)}")
        return count != "0"

    async def cancel_wait(self, text: str) -> None:
        """Wait until such a statement waits, and cancel its wait: what it did becomes visible."""
        await poll_async(lambda: self.waits_for_standby(text), f"{text} waits for the standby")
        self.primary.sql(f"SELECT pg_cancel_backend(pid) {_waiting(text)}")
        await poll_async(lambda: not self.waits_for_standby(text), f"{text} no longer waits")

    def promote(self) -> None:
        """Make the standby the primary, with a standby of its own. The deposed one does not know."""
        self.standby.promote()
        self.standby.standby("third")

    def fail_over(self) -> None:
        """Kill the primary, and promote the standby, which was killed before."""
        self.primary.kill()
        self.standby.start()
        self.promote()

    # Installing

    def install(self) -> None:
        """Let all statements and questions of nodes pass through this stage. See ``_planted``."""
        fetch, ask = Connection.fetch, PostgresStore.ask

        async def staged_fetch(connection: Connection, statement: str, *args: object) -> Rows:
            await self._pass(_BEFORE, connection, statement, args)
            rows = await fetch(connection, statement, *args)
            await self._pass(_AFTER, connection, statement, args)
            return rows

        async def counted_ask(store: PostgresStore, after: int) -> Any:
            self.questions += 1
            return await ask(store, after)

        Connection.fetch = staged_fetch  # type: ignore[method-assign, assignment]
        PostgresStore.ask = counted_ask  # type: ignore[method-assign, assignment]

    async def _pass(
        self,
        steps: dict[str, str],
        connection: Connection,
        statement: str,
        args: tuple[object, ...],
    ) -> None:
        gate = self._gates.pop(steps.get(statement, ""), None)
        if gate is not None:
            await gate.wait(connection, statement, args)


def _waiting(text: str) -> str:
    return f"FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%{text}%'"


@contextmanager
def _planted(bug: str | None) -> Iterator[None]:
    """Plant a bug, or none. At the end, all changes of the classes are undone."""
    before = [(each, dict(vars(each))) for each in _CHANGED_CLASSES]
    if bug is not None:
        BUGS[bug]()
    try:
        yield
    finally:
        for each, attributes in before:
            for name, value in attributes.items():
                if vars(each)[name] is not value:
                    setattr(each, name, value)


@asynccontextmanager
async def staged(bug: str | None, mode: Confirm) -> AsyncIterator[Stage]:
    """A stage whose nodes have a planted bug, or none, and confirm answers in this way."""
    with MemcachedProcess() as memcached, replicated() as servers, _planted(bug):
        stage = Stage(*servers, mode)
        stage.install()
        try:
            await stage.open(memcached)
            yield stage
        finally:
            await stage.close()
