"""The workloads, and the data they run on."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from benchmarks.dialect import Dialect, Exchange

Entries = Mapping[str, str]

BULK_KEYS: Final = 100
LIST_ENTRIES: Final = 1_000

# Each load repeats a list of prepared requests, of this many bytes.
_PREPARED_BYTES: Final = 16_000_000
_PREPARED: Final = 20_000


class Needs(Enum):
    """What a workload needs from the services."""

    CACHE = "a cache; writes need not be durable"
    NO_CACHE = "no cache"
    DURABLE = "a cache; every write durable before it is acknowledged"


@dataclass(frozen=True)
class Data:
    """A number of keys, each with a value of the same size."""

    name: str
    keys: int
    value_bytes: int

    @property
    def title(self) -> str:
        """A description for the tables."""
        size = (
            f"{self.value_bytes} B" if self.value_bytes < 1024 else f"{self.value_bytes >> 10} KiB"
        )
        return f"{self.keys:,} × {size}"

    def entries(self) -> dict[str, str]:
        """The entries, the same on every call, in order of keys."""
        return {key: value(key, self.value_bytes) for key in map(name, range(self.keys))}


class Neighbours(Mapping[str, str]):
    """Some entries that follow each other in order of keys. Thousands of these take little memory.

    Args:
        entries: all entries; their keys are numbered.
        first: the number of the first one.
        count: how many.
    """

    def __init__(self, entries: Entries, first: int, count: int) -> None:
        self._entries = entries
        self._numbers = range(first, first + count)

    def __getitem__(self, key: str) -> str:
        if name(self._numbers[0]) <= key <= name(self._numbers[-1]):
            return self._entries[key]
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return map(name, self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


class Generated(Mapping[str, str]):
    """The same entries, each made when it is asked for: ten million would fill the memory."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def __getitem__(self, key: str) -> str:
        return value(key, self._data.value_bytes)

    def __iter__(self) -> Iterator[str]:
        return map(name, range(self._data.keys))

    def __len__(self) -> int:
        return self._data.keys


@dataclass(frozen=True)
class Work:
    """One workload.

    Attributes:
        name: its name in the table, and for --only.
        needs: what the services need for it.
        data: the names of the data it runs on.
        keys: keys per request.
        exchange: makes one request; None if the service cannot do it.
    """

    name: str
    needs: Needs
    data: Sequence[str]
    exchange: Callable[[Dialect, Entries, random.Random], Exchange | None]
    keys: int = 1

    def exchanges(
        self, dialect: Dialect, entries: Entries, count: int = _PREPARED
    ) -> list[Exchange]:
        """At most ``count`` requests, the same on every call; none if the service cannot do it."""
        # Seeded: every service gets the same keys in the same order.
        chance = random.Random(self.name)
        first = self.exchange(dialect, entries, chance)
        if first is None:
            return []
        count = min(count, _PREPARED_BYTES // len(first.request))
        more = (self.exchange(dialect, entries, chance) for _ in range(count - 1))
        return [first, *(exchange for exchange in more if exchange is not None)]


def name(number: int) -> str:
    """The key with this number. Keys sort in the order of their numbers."""
    return f"key-{number:07d}"


def absent_name(number: int) -> str:
    """A key that does not exist."""
    return f"absent-{number:07d}"


def value(seed: str, size: int) -> str:
    """A value of this size, different for each seed."""
    return hashlib.shake_128(seed.encode()).hexdigest(size // 2)


def _get(dialect: Dialect, entries: Entries, chance: random.Random) -> Exchange:
    key = name(chance.randrange(len(entries)))
    return dialect.get(key, entries[key])


def _absent(dialect: Dialect, entries: Entries, chance: random.Random) -> Exchange:
    return dialect.get(absent_name(chance.randrange(len(entries))), None)


def _set(dialect: Dialect, entries: Entries, chance: random.Random) -> Exchange | None:
    # The value that the key already has, so that later reads find the expected one.
    key = name(chance.randrange(len(entries)))
    return dialect.set(key, entries[key])


def _mixed(dialect: Dialect, entries: Entries, chance: random.Random) -> Exchange | None:
    return (_set if chance.random() < 0.1 else _get)(dialect, entries, chance)


def _bulk(dialect: Dialect, entries: Entries, chance: random.Random) -> Exchange | None:
    numbers = chance.sample(range(len(entries)), BULK_KEYS)
    return dialect.get_many({key: entries[key] for key in map(name, numbers)})


def _list(dialect: Dialect, entries: Entries, chance: random.Random) -> Exchange | None:
    first = chance.randrange(len(entries) - LIST_ENTRIES + 1)
    return dialect.list(Neighbours(entries, first, LIST_ENTRIES))


def _same_list(dialect: Dialect, entries: Entries, chance: random.Random) -> Exchange | None:
    return dialect.list(Neighbours(entries, 0, LIST_ENTRIES))


SMALL: Final = Data("small", 5_000, 100)
MANY: Final = Data("many", 50_000, 100)  # more keys than tenantbase has slots for
FEW: Final = Data("few", 200, 100)  # few enough to stay in the processor's caches
LARGE: Final = Data("large", 5_000, 10_240)
HOT: Final = Data("hot", 1, 100)
DATA: Final = (SMALL, MANY, FEW, LARGE, HOT)

_ALL: Final = (SMALL.name, LARGE.name, HOT.name)

CACHED_GET: Final = Work("cached-get", Needs.CACHE, (*_ALL, MANY.name), _get)
COLD_GET: Final = Work("cold-get", Needs.NO_CACHE, (SMALL.name, LARGE.name), _get)
NEGATIVE_GET: Final = Work("negative-get", Needs.CACHE, (SMALL.name,), _absent)
DURABLE_SET: Final = Work("durable-set", Needs.DURABLE, _ALL, _set)
MIXED: Final = Work("mixed", Needs.DURABLE, _ALL, _mixed)
BULK_GET: Final = Work(
    "bulk-get", Needs.CACHE, (SMALL.name, FEW.name, LARGE.name), _bulk, BULK_KEYS
)
LIST: Final = Work("list", Needs.CACHE, (SMALL.name,), _list)
REPEATED_LIST: Final = Work("repeated-list", Needs.CACHE, (SMALL.name,), _same_list)
WORK: Final = (
    CACHED_GET,
    COLD_GET,
    NEGATIVE_GET,
    DURABLE_SET,
    MIXED,
    BULK_GET,
    LIST,
    REPEATED_LIST,
)
