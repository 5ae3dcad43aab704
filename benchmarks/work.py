"""What is asked of the services, and on which data."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from benchmarks.dialect import Dialect, Exchange

Entries = Mapping[str, str]

BULK_KEYS: Final = 100
LIST_ENTRIES: Final = 1_000

# Each load repeats a list of requests that was made before it: this many bytes of them.
_PREPARED_BYTES: Final = 16_000_000
_PREPARED: Final = 20_000


class Needs(Enum):
    """How the services are to be set up for some work."""

    CACHE = "a cache; writes need not be durable"
    NO_CACHE = "no cache"
    DURABLE = "a cache; every write on the disk before it is acknowledged"


@dataclass(frozen=True)
class Data:
    """So many keys, each with a value of so many bytes."""

    name: str
    keys: int
    value_bytes: int

    @property
    def title(self) -> str:
        """What it is, in words."""
        size = (
            f"{self.value_bytes} B" if self.value_bytes < 1024 else f"{self.value_bytes >> 10} KiB"
        )
        return f"{self.keys:,} × {size}"

    def entries(self) -> dict[str, str]:
        """The same on every call, in the order of the keys."""
        return {key: value(key, self.value_bytes) for key in map(name, range(self.keys))}


@dataclass(frozen=True)
class Work:
    """One line of the table.

    Attributes:
        name: what it is called there, and for --only.
        needs: how the services are set up.
        data: the names of the data it is done on.
        keys: how many keys one request is about.
        exchange: makes one request, or None where a service has no such thing.
    """

    name: str
    needs: Needs
    data: Sequence[str]
    exchange: Callable[[Dialect, Entries, random.Random], Exchange | None]
    keys: int = 1

    def exchanges(
        self, dialect: Dialect, entries: Entries, count: int = _PREPARED
    ) -> list[Exchange]:
        """At most so many requests, the same on every call; empty: it cannot be asked."""
        # Seeded: every service gets the same keys in the same order.
        chance = random.Random(self.name)
        first = self.exchange(dialect, entries, chance)
        if first is None:
            return []
        count = min(count, _PREPARED_BYTES // len(first.request))
        more = (self.exchange(dialect, entries, chance) for _ in range(count - 1))
        return [first, *(exchange for exchange in more if exchange is not None)]


def name(number: int) -> str:
    """The key of this number: the order of keys is that of the numbers."""
    return f"key-{number:07d}"


def absent_name(number: int) -> str:
    """A key that does not exist."""
    return f"absent-{number:07d}"


def value(seed: str, size: int) -> str:
    """A value of so many bytes that no other seed has."""
    return hashlib.shake_128(seed.encode()).hexdigest(size // 2)


def _get(dialect: Dialect, entries: Entries, chance: random.Random) -> Exchange:
    key = name(chance.randrange(len(entries)))
    return dialect.get(key, entries[key])


def _absent(dialect: Dialect, entries: Entries, chance: random.Random) -> Exchange:
    return dialect.get(absent_name(chance.randrange(len(entries))), None)


def _set(dialect: Dialect, entries: Entries, chance: random.Random) -> Exchange:
    # The value it has: whatever is read later on is still what the entries say.
    key = name(chance.randrange(len(entries)))
    return dialect.set(key, entries[key])


def _mixed(dialect: Dialect, entries: Entries, chance: random.Random) -> Exchange:
    return (_set if chance.random() < 0.1 else _get)(dialect, entries, chance)


def _bulk(dialect: Dialect, entries: Entries, chance: random.Random) -> Exchange | None:
    numbers = chance.sample(range(len(entries)), BULK_KEYS)
    return dialect.get_many({key: entries[key] for key in map(name, numbers)})


def _list(dialect: Dialect, entries: Entries, chance: random.Random) -> Exchange | None:
    return dialect.list({key: entries[key] for key in map(name, range(LIST_ENTRIES))})


SMALL: Final = Data("small", 5_000, 100)
MANY: Final = Data("many", 50_000, 100)  # more than tenantbase remembers the frames of
FEW: Final = Data("few", 200, 100)  # all of them stay in the processor's caches
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
WORK: Final = (CACHED_GET, COLD_GET, NEGATIVE_GET, DURABLE_SET, MIXED, BULK_GET, LIST)
