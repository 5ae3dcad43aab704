"""The watch of the space left looks at once and goes on, also while the database cannot say."""

from __future__ import annotations

import asyncio

import pytest

from tenantbase.errors import StoreUnavailable
from tenantbase.interfaces.store import StoreSize
from tenantbase.process import space
from tenantbase.process.space import watching_space
from tests.servers import poll_async


class FakeDatabase:
    """Cannot say its size at first."""

    def __init__(self) -> None:
        self.asked = 0

    async def size(self) -> StoreSize:
        self.asked += 1
        if self.asked == 1:
            raise StoreUnavailable("it hangs")
        return StoreSize(0, 0, 0, 0, None)


async def test_it_looks_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "_INTERVAL_SECONDS", 0.01)
    database = FakeDatabase()
    async with watching_space(database):
        await poll_async(lambda: database.asked > 3, "it looks")
    asked = database.asked
    await asyncio.sleep(0.05)
    assert database.asked == asked
