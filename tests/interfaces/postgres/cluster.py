"""A primary with a synchronous standby, and stores on them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from tenantbase.commands import Applied, Command, Increment, Set
from tenantbase.entry import JSON, Entry
from tenantbase.errors import StoreError, TenantbaseError
from tenantbase.interfaces.postgres.address import DatabaseAddress
from tenantbase.interfaces.postgres.confirmation import Confirm
from tenantbase.interfaces.postgres.store import PostgresStore
from tests.fakes import Granted
from tests.interfaces.shared import SMALL, name_hash
from tests.postgres import PostgresProcess
from tests.servers import READY_SECONDS

KEY = "default/k"
INCREMENT = Increment(KEY, 1, 0)


@contextmanager
def replicated() -> Iterator[tuple[PostgresProcess, PostgresProcess]]:
    """A primary and its synchronous standby. The role of the nodes may see which one that is."""
    with PostgresProcess() as primary:
        primary.sql("GRANT pg_read_all_settings, pg_read_all_stats TO tenantbase")
        yield primary, primary.standby()


@asynccontextmanager
async def opened(
    *servers: PostgresProcess | str,
    confirm: Confirm = Confirm.STANDBY,
    replicated: bool = True,
    timeout: float = 5.0,
    write_timeout: float = 30.0,
    figures: memoryview | None = None,
    database: str = "tenantbase",
) -> AsyncIterator[PostgresStore]:
    """A store on these servers, given as processes or as addresses.

    Its time limits are generous, so that no answer is late on a busy machine.
    """
    hosts = ",".join(each if isinstance(each, str) else each.host for each in servers)
    store = await PostgresStore.open(
        DatabaseAddress.parse(f"postgresql://tenantbase@{hosts}/{database}?sslmode=disable"),
        confirm=confirm,
        replicated=replicated,
        timeout=timeout,
        write_timeout=write_timeout,
        read_timeout=timeout,
        sizes=SMALL,
        figures=figures,
    )
    try:
        yield store
    finally:
        await store.close()


async def outcome(
    store: PostgresStore, *commands: Command
) -> tuple[Applied, ...] | TenantbaseError | None:
    """What becomes of a transaction that is a group of its own."""
    (found,) = (await store.commit([Granted(*commands)], name_hash)).outcomes
    return found


async def put(store: PostgresStore, key: str, value: bytes = b"1") -> Entry:
    made = await outcome(store, Set(key, value, JSON))
    assert isinstance(made, tuple), made
    assert made[0].entry is not None
    return made[0].entry


async def value_of(store: PostgresStore, key: str = KEY) -> bytes | None:
    (entry,), _ = await store.read_stamped([key])
    assert not isinstance(entry, StoreError)
    return None if entry is None else entry.value


async def again(store: PostgresStore) -> None:
    """Wait until a store answers."""
    deadline = time.monotonic() + 2 * READY_SECONDS
    while True:
        try:
            await store.ask(0)
            return
        except StoreError as error:
            assert time.monotonic() < deadline, f"the store does not answer again: {error}"
            await asyncio.sleep(0.05)
