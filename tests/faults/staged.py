"""Races staged step by step: each planted bug meets the schedule that exposes it.

Two policies in one process share a database. The first has a memcached, the second has none, like a
server that is cut off from it. Their answers go to the history checker.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from tenantbase.coherence.policy import Cache
from tenantbase.coherence.sealed_item import ItemSealer
from tenantbase.commands import PutTenant, Set
from tenantbase.entry import JSON, Entry
from tenantbase.figures import MISSES
from tenantbase.interfaces.memcached.address import MemcacheAddress
from tenantbase.interfaces.memcached.client import MemcacheClient
from tenantbase.listing import KeyRange
from tenantbase.plain_entries import Columns
from tests.faults import sealed_items
from tests.faults.control import Control
from tests.faults.history import Operation
from tests.faults.planted import plant
from tests.faults.stepped import Parts, stepped
from tests.servers import READY_SECONDS, MemcachedProcess, contents, poll_async
from tests.service import opened

Result = TypeVar("Result")
_PATIENCE: Final = 2 * READY_SECONDS
_LIMIT: Final = 100  # pages of this many are remembered


class _Gate:
    """A step that makes the next caller wait."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()


class _Gates(Control):
    """A control whose steps can be made to wait."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._gates: dict[str, _Gate] = {}

    def close(self, step: str) -> _Gate:
        self._gates[step] = _Gate()
        return self._gates[step]

    def reach(self, step: str) -> None:
        gate = self._gates.pop(step, None)
        if gate is not None:
            gate.reached.set()
            gate.opened.wait(_PATIENCE)

    async def reach_async(self, step: str) -> None:
        gate = self._gates.pop(step, None)
        if gate is not None:
            gate.reached.set()
            await poll_async(gate.opened.is_set, f"the gate at {step} opens", _PATIENCE)


class _Rendering:
    """Renders pages, which are then remembered."""

    form = ()

    def __call__(self, entries: Columns) -> bytes:
        return b"rendered"


class Stage:
    """The stage of a race.

    Attributes:
        history: the operations so far.
        near, far: the policy with a memcached, and the one without.
    """

    near: Cache
    far: Cache

    def __init__(self, gates: _Gates, memcached: MemcachedProcess, database: Path) -> None:
        self.gates = gates
        self.history: list[Operation] = []
        self._address = memcached.address
        self._database = database
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """Open both policies."""
        options = {"cache_timeout": 2.0, "write_timeout": 600.0}
        self.near, self.far = [
            await self._stack.enter_async_context(opened(self._database, memcached, **options))
            for memcached in (self._address, None)
        ]
        for tenant in ("r0", "t0"):  # whose keys the schedules write
            await self.near.write(PutTenant(tenant))

    async def close(self) -> None:
        """Close both policies, which removes the tag file."""
        await self._stack.aclose()

    async def get(self, cache: Cache, key: str = "r0/0") -> None:
        """Read a key, and record the operation."""
        start = time.monotonic_ns()
        self._saw(key, start, (await cache.get(key)).entry)

    async def list(self, cache: Cache, key: str = "r0/0") -> None:
        """List a key as the beginning of a document, and record what the list shows of it."""
        start = time.monotonic_ns()
        wanted = KeyRange(key)
        pages = cache.scan(wanted, limit=_LIMIT, render=_Rendering())
        shown = [item async for page, _ in pages for item in page if isinstance(item, Entry)]
        self._saw(key, start, shown[0] if shown else None)

    def _saw(self, key: str, start: int, entry: Entry | None) -> None:
        told: dict[str, Any] = {}
        if entry is not None:
            expires = None if entry.expires_at is None else start + 10**12
            value = entry.value.decode(errors="replace")
            told = {"version": entry.version, "id": entry.id, "value": value, "expires": expires}
        self.history.append(Operation(key, "get", start, time.monotonic_ns(), **told))

    async def set(
        self, cache: Cache, value: str, key: str = "r0/0", *, expires_at: float | None = None
    ) -> None:
        """Write a key, and record the operation."""
        start = time.monotonic_ns()
        (applied,) = await cache.write(Set(key, value.encode(), JSON, expires_at))
        assert applied.entry is not None
        self.history.append(
            Operation(
                key,
                "set",
                start,
                time.monotonic_ns(),
                value=value,
                version=applied.entry.version,
                id=applied.entry.id,
                created=applied.created,
                expires=None if expires_at is None else start + 10**12,
            )
        )

    @asynccontextmanager
    async def held_at(
        self, step: str, work: Coroutine[Any, Any, None]
    ) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Let some work reach a step, and hold it there while the block runs. Yields: a function
        that lets it finish, which is called at the end of the block at the latest.
        """
        gate = self.gates.close(step)
        task = asyncio.create_task(work)
        await poll_async(gate.reached.is_set, f"work reaches {step}", _PATIENCE)

        async def go_on() -> None:
            gate.opened.set()
            await task

        yield go_on
        await go_on()

    async def missed(self, cache: Cache, count: int) -> None:
        """Wait until this many reads of a policy have missed, and load or have joined a load."""
        await poll_async(lambda: cache.figures[MISSES] >= count, "they have missed", _PATIENCE)
        for _ in range(10):  # from there, a few turns of the event loop
            await asyncio.sleep(0)

    async def item(self, key: str = "r0/0") -> tuple[bytes, bytes]:
        """The name and the sealed item that memcached has for a key."""
        name = ItemSealer(await self._secret()).name(key)
        address = MemcacheAddress.parse(self._address)
        async with MemcacheClient(address, timeout=2.0) as client:
            return name, (await contents(client, [name]))[name]

    async def put(self, *items: tuple[bytes, bytes]) -> None:
        """Put items into memcached, bypassing the policies."""
        await asyncio.to_thread(sealed_items.put, self._address, list(items))

    async def _secret(self) -> bytes:
        return self.near._store.secret


@asynccontextmanager
async def staged(directory: Path, bug: str | None) -> AsyncIterator[Stage]:
    """A stage whose policies have a planted bug, or none."""
    with MemcachedProcess() as memcached:
        gates = _Gates(directory / "control")
        parts = stepped(plant(Parts(), bug), gates)
        with parts.installed(gates):
            stage = Stage(gates, memcached, directory / "x.db")
            await stage.open()
            try:
                yield stage
            finally:
                await stage.close()
