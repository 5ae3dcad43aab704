"""A memcached in memory that keeps every item it was ever given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from tenantbase.errors import CacheUnavailable
from tenantbase.figures import CacheFailure
from tenantbase.interfaces.cache import Item


class Ring:
    """A memcached that remembers every item, and answers with the newest unless told otherwise.

    Attributes:
        given: by name, all items in the order of arrival.
        age: answer with the item before so many others.
        before_answer: awaited before each answer, if given.
        failing: it does not answer in time.
    """

    available = True
    away = ()

    def __init__(self) -> None:
        self.given: dict[bytes, list[bytes]] = {}
        self.age = 0
        self.before_answer: Callable[[], Awaitable[object]] | None = None
        self.failing = False

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        if self.before_answer is not None:
            await self.before_answer()
        if self.failing:
            raise CacheUnavailable("away", CacheFailure.TIMEOUT)
        items = {key: self.given[key] for key in keys if len(self.given.get(key, ())) > self.age}
        return {key: each[-1 - self.age] for key, each in items.items()}

    async def set_many(self, items: Sequence[Item]) -> None:
        for name, data, _ in items:
            self.given.setdefault(name, []).append(data)

    async def close(self) -> None:
        pass
