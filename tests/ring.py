"""A memcached in memory that keeps every item it was ever given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import count

from tenantbase.errors import CacheUnavailable
from tenantbase.figures import CacheFailure
from tenantbase.interfaces.cache import ABSENT, UNCHANGED, Answer, Fetched, Item


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
        self.given: dict[bytes, list[Fetched]] = {}
        self._numbers = count(1)
        self.age = 0
        self.before_answer: Callable[[], Awaitable[object]] | None = None
        self.failing = False

    async def get_many(self, names: Sequence[bytes], known: Sequence[bytes | None]) -> list[Answer]:
        if self.before_answer is not None:
            await self.before_answer()
        if self.failing:
            raise CacheUnavailable("away", CacheFailure.TIMEOUT)
        return [self._answer(name, cas) for name, cas in zip(names, known, strict=True)]

    def _answer(self, name: bytes, known: bytes | None) -> Answer:
        given = self.given.get(name, [])
        if len(given) <= self.age:
            return ABSENT
        item = given[-1 - self.age]
        return UNCHANGED if item.cas == known else item

    async def set_many(self, items: Sequence[Item]) -> None:
        for name, data, _ in items:
            cas = b"%d" % next(self._numbers)
            self.given.setdefault(name, []).append(Fetched(data, cas))

    async def close(self) -> None:
        pass
