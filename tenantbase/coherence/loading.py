"""The second step of a read: load from the store what memcached did not have, and fill memcached.

A fill goes under a tag that says for which moment it is true. A store that several machines share
says so itself, with every answer. Otherwise it is the tag from *before* the store was read: if a
write came in between, it changed the tag, and the fill does not fit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from operator import attrgetter
from time import monotonic_ns
from typing import Any, Final, NamedTuple

from tenantbase.coherence.authority import Tag
from tenantbase.coherence.batcher import Batcher, Line
from tenantbase.coherence.filler import Fill, Filler
from tenantbase.entry import Entry
from tenantbase.errors import StoreError, StoreUnavailable
from tenantbase.lookup import CacheStatus, Lookup
from tenantbase.shared_timer import SharedTimer
from tenantbase.stages import Stage
from tenantbase.waits import note

BATCH_KEYS: Final = 256
"""The most keys that are read at once, if their values are small."""

_KEY_BYTES: Final = 1 << 10  # a larger value weighs as much as several keys

_SELECTS: Final = 8  # queries in flight at most

Loaded = Entry | None | StoreError

Load = Callable[[Sequence[str], float, bool], Awaitable[tuple[Sequence[Loaded], Tag | None]]]
"""Reads keys from the store, given the time in Unix seconds and whether it is a bulk read. Returns the
entries, and the tag to cache them under; None: the tag that each bucket had before."""

Missed = tuple[bytes, Tag]
"""A key's name, and the tag its bucket had before the store was read."""

_Flight = tuple[bytes, Tag, int]  # what is missed, and the question by which that was found


class _Wanted(NamedTuple):
    lane: str
    keys: list[str]
    weight: int  # in a batch


class _Selected(NamedTuple):
    read: Mapping[str, Loaded]
    tag: Tag | None


def weight_of(keys: int, size: int) -> int:
    """The weight of some keys in a batch.

    Args:
        size: the approximate size of all their values, in bytes; 0: unknown, or small.
    """
    return max(keys, size // _KEY_BYTES)


class Loader:
    """Reads keys from the store, in batches, and fills memcached.

    Args:
        load: reads the store.
        timeout: seconds until a read is given up.
    """

    def __init__(
        self, load: Load, filler: Filler, clock: Callable[[], float], timeout: float
    ) -> None:
        self._load = load
        self._filler = filler
        self._clock = clock
        self._in_flight: dict[_Flight, asyncio.Future[Entry | None]] = {}
        # Bulk reads have a batcher of their own, so that they do not hold up others.
        self._selects, self._bulk_selects = (
            Batcher(
                partial(self._select, bulk),
                queue=Line[_Wanted, _Selected](
                    BATCH_KEYS, attrgetter("weight"), attrgetter("lane")
                ),
                parallel=_SELECTS,
            )
            for bulk in (False, True)
        )
        self._timeouts: SharedTimer[None] = SharedTimer(timeout, _time_out)

    def limit(self, awaited: asyncio.Future[Any]) -> None:
        """Fail a part of a read that takes too long."""
        self._timeouts.watch(awaited, None)

    async def refresh(
        self, missed: Mapping[str, Missed | None], lane: str, now: float
    ) -> Mapping[str, Loaded]:
        """Read keys without joining a load that has begun before, and fill memcached.

        Args:
            missed: None for a key whose bucket had no tag.
        """
        selected = await self._selected(lane, list(missed), bulk=len(missed) > 1)
        fills: list[Fill] = []
        for key, load in missed.items():
            entry = selected.read[key]
            if load is not None and not isinstance(entry, StoreError):
                self._filler.offer(fills, load[0], selected.tag or load[1], entry, now)
        if fills:
            await self._filler.store(fills)
        return selected.read

    async def load(
        self,
        missed: Mapping[str, Missed],
        direct: Sequence[str],
        lane: str,
        now: float,
        question: int,
        bulk: bool,
        size: int = 0,
    ) -> dict[str, Lookup | StoreError]:
        """Read keys, and fill memcached with those it was asked for.

        Each key is read once, however many callers want it. Joining a load that another batch has
        begun is sound only under the same tag: a write acknowledged between the beginning of that
        load and ours would have changed it. If tags have to be asked for, both were given by the
        same answer. An expiry changes no tag, and is checked here.

        Args:
            direct: keys that bypass memcached.
            bulk: the keys are those of bulk reads.
            now: when the batch began.
            size: the approximate size of all values, in bytes; 0: unknown, or small.
        """
        loop = asyncio.get_running_loop()
        joined: dict[str, asyncio.Future[Entry | None]] = {}
        own: dict[str, _Flight] = {}
        for key, load in missed.items():
            flight = (*load, question)
            in_flight = self._in_flight.get(flight)
            if in_flight is None:
                own[key] = flight
                self._in_flight[flight] = loop.create_future()
            else:
                joined[key] = in_flight
        read: Mapping[str, Loaded] = {}
        tag: Tag | None = None
        began = monotonic_ns()
        if wanted := [*own, *direct]:
            try:
                try:
                    read, tag = await self._selected(lane, wanted, bulk, size)
                finally:
                    note(Stage.DATABASE, began)
            except Exception as error:  # of any kind: callers that joined must not wait forever
                for flight in own.values():
                    _settle(self._in_flight.pop(flight), error)
                raise
        fills: list[Fill] = []
        for key, flight in own.items():
            entry = read[key]
            _settle(self._in_flight.pop(flight), entry)
            if not isinstance(entry, StoreError):
                self._filler.offer(fills, flight[0], tag or flight[1], entry, now)
        if fills:
            began = monotonic_ns()
            await self._filler.store(fills)
            note(Stage.MEMCACHED, began)
        loaded = {key: as_lookup(read[key], CacheStatus.MISS) for key in own}
        loaded.update((key, as_lookup(read[key], CacheStatus.BYPASS)) for key in direct)
        for key, future in joined.items():
            try:
                entry = await future
                # The load may have begun before the entry expired, and this read after that.
                alive = entry is not None and entry.alive(now)
                loaded[key] = Lookup(entry if alive else None, CacheStatus.MISS)
            except StoreError as error:
                loaded[key] = error
        return loaded

    async def _selected(self, lane: str, keys: list[str], bulk: bool, size: int = 0) -> _Selected:
        selects = self._bulk_selects if bulk else self._selects
        selected = selects.submit(_Wanted(lane, keys, weight_of(len(keys), size)))
        self._timeouts.watch(selected, None)
        return await selected

    async def _select(self, bulk: bool, wanted: Sequence[_Wanted]) -> list[_Selected]:
        keys = list(dict.fromkeys(chain.from_iterable(each.keys for each in wanted)))
        entries, tag = await self._load(keys, self._clock(), bulk)
        return [_Selected(dict(zip(keys, entries, strict=True)), tag)] * len(wanted)


def as_lookup(entry: Loaded, cache_status: CacheStatus) -> Lookup | StoreError:
    """The result of a read of the store."""
    return entry if isinstance(entry, StoreError) else Lookup(entry, cache_status)


def _settle(load: asyncio.Future[Entry | None], result: Entry | None | Exception) -> None:
    if isinstance(result, Exception):
        load.set_exception(result)
        load.exception()  # marks the exception as retrieved, even if no caller joined
    else:
        load.set_result(result)


def _time_out(_: None, read: asyncio.Future[object]) -> None:
    read.set_exception(StoreUnavailable("the database did not answer in time"))
