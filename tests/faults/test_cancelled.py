"""Cancelling a request at any await does not affect other requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tenantbase.coherence.policy import Cache
from tenantbase.commands import Command, Delete, Increment, Set
from tenantbase.entry import JSON
from tests.servers import READY_SECONDS, MemcachedProcess
from tests.service import opened

_STEPS = 60  # turns of the event loop, more than any operation takes


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[Cache]:
    with MemcachedProcess() as memcached:
        async with opened(tmp_path / "x.db", memcached, cache_timeout=2.0) as cache:
            yield cache


def steps() -> Iterator[int]:
    """After how many turns to cancel something: each number, then ever larger ones.

    On a busy machine, an operation may need many more turns to finish.
    """
    yield from range(_STEPS)
    yield from (_STEPS << doublings for doublings in count(1))


async def cancelled(work: Coroutine[Any, Any, Any], step: int) -> bool:
    """Start a task and cancel it after some turns. Returns: whether it was still running."""
    task = asyncio.create_task(work)
    for turn in range(step):
        # Give the database's threads and memcached time, too, or no step is ever reached.
        await asyncio.sleep(0 if turn % 4 else 0.0005)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


async def write(cache: Cache, *changes: Command) -> None:
    await cache.write(*changes)


async def of_entry(cache: Cache, key: str) -> bytes | None:
    entry = (await cache.get(key)).entry
    return None if entry is None else entry.value


async def test_a_cancelled_write_is_atomic(cache: Cache) -> None:
    ended = 0
    for step in steps():
        keys = [f"default/{step}/a", f"default/{step}/b"]
        await cache.write(*(Set(key, b"1", JSON) for key in keys))
        work = write(cache, Set(keys[0], b"2", JSON), Increment(keys[1], 1, 0))
        ended += not await cancelled(work, step)
        await cache.write(Set("default/barrier", b"0", JSON))  # everything queued before it is done
        values = [await of_entry(cache, key) for key in keys]
        assert values in ([b"1", b"1"], [b"2", b"2"])
        assert values == [await of_entry(cache, key) for key in keys]
        if ended and step >= _STEPS:
            break  # so every step was tried


@pytest.mark.parametrize("bulk", [False, True])
async def test_a_cancelled_read_does_not_cancel_those_that_joined_it(
    cache: Cache, bulk: bool
) -> None:
    async def read(key: str) -> bytes | None:
        if not bulk:
            return await of_entry(cache, key)
        (found,) = await cache.get_many([key])
        return None if found.entry is None else found.entry.value

    ended = 0
    for step in steps():
        key = f"default/{step}"
        await cache.write(Set(key, b"1", JSON))
        await cache.write(Delete(key))
        others = [asyncio.create_task(read(key)) for _ in range(3)]
        ended += not await cancelled(read(key), step)
        late = read(key)
        assert await asyncio.gather(*others, late) == [None] * 4
        await cache.write(Set(key, b"2", JSON))
        assert await read(key) == b"2"
        if ended and step >= _STEPS:
            break  # so every step was tried


@pytest.mark.parametrize("size", [1, 300])
async def test_cancelled_crowds_leave_nothing_behind(cache: Cache, size: int) -> None:
    for step in range(0, _STEPS, 3):
        works: list[Callable[[str], Coroutine[Any, Any, Any]]] = [
            lambda key: write(cache, Increment(key, 1, 0)),
            lambda key: of_entry(cache, key),
        ]
        tasks = [
            cancelled(works[n % 2](f"default/{step}/{n // 2 % 7}"), step) for n in range(2 * size)
        ]
        await asyncio.gather(*tasks)
    async with asyncio.timeout(READY_SECONDS):
        await cache.drained()
        before = await of_entry(cache, "default/0/0")
        await cache.write(Increment("default/0/0", 1, 0))
        assert await of_entry(cache, "default/0/0") == b"%d" % (int(before or b"0") + 1)
