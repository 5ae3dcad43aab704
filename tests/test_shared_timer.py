"""One timer for many futures: which expire, when, and which are forgotten."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

import pytest

from tenantbase import shared_timer
from tenantbase.shared_timer import SharedTimer
from tests.servers import let_pass


class Expired:
    """Records the items that expire, and settles their futures."""

    def __init__(self) -> None:
        self.items: list[str] = []

    def __call__(self, item: str, future: asyncio.Future[Any]) -> None:
        self.items.append(item)
        future.set_exception(TimeoutError(item))


async def outcome(future: asyncio.Future[Any]) -> str:
    try:
        return str(await future)
    except TimeoutError as error:
        return f"expired: {error}"


async def test_only_unfinished_futures_expire() -> None:
    expired = Expired()
    timer = SharedTimer(0.05, expired)
    loop = asyncio.get_running_loop()
    futures = {name: loop.create_future() for name in ("done", "late", "cancelled", "slow")}
    for name, future in futures.items():
        timer.watch(future, name)
    futures["done"].set_result("done")
    futures["cancelled"].cancel()
    assert await outcome(futures["late"]) == "expired: late"
    assert await outcome(futures["slow"]) == "expired: slow"
    assert await outcome(futures["done"]) == "done"
    assert expired.items == ["late", "slow"]


async def test_each_future_has_its_own_deadline() -> None:
    expired = Expired()
    timer = SharedTimer(3600.0, expired)
    loop = asyncio.get_running_loop()
    first, second = loop.create_future(), loop.create_future()
    timer.watch(first, "first")
    let_pass(1800.0)
    timer.watch(second, "second")
    let_pass(1800.0)
    assert await outcome(first) == "expired: first"
    assert not second.done()
    let_pass(1800.0)
    assert await outcome(second) == "expired: second"


async def test_it_works_again_after_a_pause() -> None:
    expired = Expired()
    timer = SharedTimer(0.02, expired)
    loop = asyncio.get_running_loop()
    for name in ("a", "b"):
        future = loop.create_future()
        timer.watch(future, name)
        await outcome(future)
        await asyncio.sleep(0.05)  # no future is pending, so no timer runs
    assert expired.items == ["a", "b"]


async def test_finished_futures_are_dropped_early() -> None:
    timer = SharedTimer(3600.0, Expired())
    loop = asyncio.get_running_loop()

    class Item(str):
        pass

    items = [Item(n) for n in range(100)]
    known = weakref.WeakSet(items)
    futures = [loop.create_future() for _ in items]
    for future, item in zip(futures, items, strict=True):
        timer.watch(future, item)
    for future in futures:
        future.set_result(None)
    del items, item
    assert len(known) == 100
    timer.watch(last := loop.create_future(), Item("last"))
    # No gc.collect(): nothing here is in a cycle, and an earlier test may have left an object whose
    # finalizer warns.
    assert not known, "the next one clears away what is done before it"
    last.set_result(None)


async def test_the_last_finished_future_is_dropped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_timer, "_LOOK_SECONDS", 0.05)
    timer = SharedTimer(3600.0, Expired())

    class Item(str):
        pass

    item = Item("x")
    kept = weakref.ref(item)
    future = asyncio.get_running_loop().create_future()
    timer.watch(future, item)
    del item
    future.set_result(None)
    async with asyncio.timeout(20):
        while kept() is not None:
            await asyncio.sleep(0.005)
