"""Who waits for whom at the connections of a session."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import cast

import pytest

from tenantbase.errors import StoreUnavailable
from tenantbase.interfaces.postgres.connection import Connection
from tenantbase.interfaces.postgres.session import Pool
from tests.interfaces.postgres.cluster import KEY, put, value_of
from tests.interfaces.shared import open_postgres

ONE = cast(Connection, object())


async def test_lanes_take_turns() -> None:
    pool = Pool([ONE])
    order: list[str] = []

    async def call(lane: str) -> None:
        async with pool.take(lane=lane):
            order.append(lane)

    async with pool.take() as connection:
        assert connection is ONE
        calls = [asyncio.create_task(call(lane)) for lane in ("a", "a", "a", "b")]
        await asyncio.sleep(0)
    await asyncio.gather(*calls)
    assert order == ["a", "b", "a", "a"]


async def test_a_wait_that_was_given_up_costs_nobody_a_turn() -> None:
    pool = Pool([ONE])
    loop = asyncio.get_running_loop()
    async with pool.take():
        with pytest.raises(StoreUnavailable, match="busy"):
            async with pool.take(loop.time()):
                raise AssertionError("it is in use")
    async with pool.take(loop.time() + 30) as connection:
        assert connection is ONE


@pytest.mark.integration
async def test_single_reads_do_not_wait_for_lists_and_bulk_reads(database: str) -> None:
    store = await open_postgres(database)
    await put(store, KEY)
    session = await store._sessions.current(asyncio.get_running_loop().time() + 30)
    bulk = None
    async with AsyncExitStack() as stack:
        for _ in session.listers.connections:
            await stack.enter_async_context(session.listers.take())
        bulk = asyncio.create_task(store.read_stamped([KEY, "default/other"], bulk=True))
        for _ in range(5):  # otherwise the bulk read would have its turn between them
            assert await value_of(store) == b"1"
        assert not bulk.done()
    entries, _ = await bulk
    assert entries[0] is not None
    await store.close()
