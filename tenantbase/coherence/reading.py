"""Read-through: valid copies from memcached, the rest from the store.

A batch of reads asks the authority for its buckets' tags, and memcached, and uses the items that fit
these tags (``opening.py``). The others are loaded from the store (``loading.py``). ``DESIGN.md`` says
why each rule is needed; ``tests/test_model.py`` shows what goes wrong without it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from functools import partial
from itertools import chain
from operator import attrgetter
from time import monotonic_ns
from typing import Final, NamedTuple

from tenantbase.coherence.authority import Authority, Tag, Tags
from tenantbase.coherence.batcher import AGAIN, LATER, Again, Batcher, Later, Line, Unfinished
from tenantbase.coherence.loading import BATCH_KEYS, Loader, Missed, as_lookup, weight_of
from tenantbase.coherence.opening import NO_QUESTION, Asked, Opener
from tenantbase.coherence.sealed_item import ItemSealer, Remembered, Slot
from tenantbase.errors import CacheUnavailable, LeftOut, StoreError
from tenantbase.figures import BYPASSES, CACHE_FAILURES, HITS, MISSES, STALE_HITS
from tenantbase.interfaces.cache import Answer, Memcache
from tenantbase.lanes import LaneOf
from tenantbase.lookup import CacheStatus, Lookup
from tenantbase.stages import Stage
from tenantbase.waits import note

_SHARED: Final = ""  # the lane of batches with keys of several lanes, which were chosen fairly
_NO_KEYS: Final[Set[str]] = frozenset()


class BulkRead(NamedTuple):
    """Many keys of one lane, read together.

    Attributes:
        size: the approximate size of all their values, in bytes; 0: unknown, or small.
    """

    keys: Sequence[str]
    size: int = 0

    @property
    def weight(self) -> int:
        """Its weight in a batch. A large value weighs as much as several keys."""
        return weight_of(len(self.keys), self.size)


class ReadThrough:
    """Reads keys, in batches.

    Args:
        authority: says which cached copies are valid.
        memcache: None if there is none.
        loader: reads the store.
        lane_of: gives the lane of a key. All keys of a bulk read are of one lane.

    Attributes:
        single, bulk: take one key, or many keys at a time; see ``Cache.get`` and ``get_many``.
        stale_single, stale_bulk: the same, by the tags that the authority remembers.
    """

    def __init__(
        self,
        authority: Authority,
        sealer: ItemSealer,
        memcache: Memcache | None,
        loader: Loader,
        figures: memoryview,
        clock: Callable[[], float],
        lane_of: LaneOf,
    ) -> None:
        self._authority = authority
        self._sealer = sealer
        self._memcache = memcache
        self._loader = loader
        self._figures = figures
        self._clock = clock
        self._lane_of = lane_of
        self._opener = Opener(sealer, figures)
        self.single, self.bulk = self._batchers(self._ask, authority.parallel)
        self.stale_single, self.stale_bulk = self._batchers(self._recall, 1)

    def _batchers(
        self, ask: _Ask, parallel: int
    ) -> tuple[Batcher[str, Lookup], Batcher[BulkRead, list[Lookup]]]:
        # One question to memcached at a time makes large batches, which cost least. Reading the
        # store never holds up the next question, however long it takes.
        singles = Line[str, Lookup](BATCH_KEYS, None, self._lane_of)
        bulks = Line[BulkRead, list[Lookup]](
            BATCH_KEYS, attrgetter("weight"), lambda bulk: self._lane_of_first(bulk.keys)
        )
        return (
            Batcher(partial(self._read_single, ask), queue=singles, parallel=parallel),
            Batcher(partial(self._read_bulk, ask), queue=bulks, parallel=parallel),
        )

    async def drained(self) -> None:
        """Wait for every read in flight, and for what it stores in memcached."""
        for batcher in (self.single, self.bulk, self.stale_single, self.stale_bulk):
            await batcher.drained()

    async def refresh(self, keys: Sequence[str]) -> list[Lookup]:
        """See ``Cache.refresh``."""
        now = self._clock()
        slots = [self._sealer.slot(key) for key in keys]
        answer = self._authority.tags([slot.bucket for slot in slots])
        if isinstance(answer, list):
            tags = answer
        else:
            self._loader.limit(answer)
            tags, now, _ = await answer
        missed: dict[str, Missed | None] = {
            slot.key: None if tag is None else (slot.name, tag)
            for slot, tag in zip(slots, tags, strict=True)
        }
        read = await self._loader.refresh(missed, self._lane_of_first(keys), now)
        self._figures[BYPASSES] += len(keys)
        known = {key: as_lookup(read[key], CacheStatus.BYPASS) for key in keys}
        result = _bulk(keys, known, _NO_KEYS)
        if isinstance(result, StoreError):
            raise result
        assert isinstance(result, list)  # the first key is never left out
        return result

    async def _read_single(
        self, ask: _Ask, keys: Sequence[str]
    ) -> Sequence[Lookup | Exception | Again] | Unfinished[Lookup]:
        asked = await ask(keys)
        found = asked.found
        if asked.complete:
            return [found[key] for key in keys]
        ready = [found.get(key, AGAIN if key in asked.left_out else LATER) for key in keys]
        late = [key for key, result in zip(keys, ready, strict=True) if result is LATER]
        return Unfinished(ready, partial(self._finish_single, asked, late))

    async def _finish_single(
        self, asked: Asked, late: list[str]
    ) -> list[Lookup | Exception | Again]:
        if not late:
            return []
        loaded = await self._load(asked, _SHARED, bulk=False)
        return [AGAIN if isinstance(loaded[key], LeftOut) else loaded[key] for key in late]

    async def _read_bulk(
        self, ask: _Ask, bulks: Sequence[BulkRead]
    ) -> Sequence[list[Lookup] | Exception | Again] | Unfinished[list[Lookup]]:
        asked = await ask(list(chain.from_iterable(bulk.keys for bulk in bulks)))
        found = asked.found
        if asked.complete:
            return [[found[key] for key in bulk.keys] for bulk in bulks]
        ready: list[list[Lookup] | Exception | Later | Again] = []
        late: list[BulkRead] = []
        for bulk in bulks:
            result = _bulk(bulk.keys, found, asked.left_out)
            if result is LATER:
                late.append(bulk)
            ready.append(result)
        return Unfinished(ready, partial(self._finish_bulk, asked, late))

    async def _finish_bulk(
        self, asked: Asked, late: list[BulkRead]
    ) -> list[list[Lookup] | Exception | Again]:
        if not late:
            return []
        lanes = {self._lane_of_first(bulk.keys) for bulk in late}
        lane = lanes.pop() if len(lanes) == 1 else _SHARED
        loaded = await self._load(asked, lane, bulk=True, size=sum(bulk.size for bulk in late))
        known: dict[str, Lookup | StoreError] = {**asked.found, **loaded}
        results: list[list[Lookup] | Exception | Again] = []
        for bulk in late:
            result = _bulk(bulk.keys, known, asked.left_out)
            assert result is not LATER
            results.append(result)
        return results

    async def _load(
        self, asked: Asked, lane: str, bulk: bool, size: int = 0
    ) -> dict[str, Lookup | StoreError]:
        return await self._loader.load(
            asked.missed, asked.direct, lane, asked.now, asked.question, bulk, size
        )

    async def _ask(self, keys: Sequence[str]) -> Asked:
        """The first step of a batch: what memcached has of these keys."""
        now = self._clock()
        slots = list(map(self._sealer.slot, dict.fromkeys(keys)))
        memcache = self._memcache
        if memcache is None or not memcache.available:
            return self._count(keys, _direct(slots, now))
        # Every caller of this batch has begun by now, so the tags are fresh for all of them.
        answer = self._authority.tags([slot.bucket for slot in slots])
        tags: Sequence[Tag | None]
        if isinstance(answer, list):
            question = NO_QUESTION
            slots, tags, direct = _split(slots, answer)
            known = [
                last if (last := slot.remembered) is not None and last.tag == tag else None
                for slot, tag in zip(slots, tags, strict=True)
            ]
            answers = await self._fetch(memcache, slots, known)
        else:
            self._loader.limit(answer)
            direct = []
            known = [slot.remembered for slot in slots]
            fetching = asyncio.ensure_future(self._fetch(memcache, slots, known))
            began = monotonic_ns()
            try:
                tags, now, question = await answer
            except BaseException:
                await asyncio.wait([fetching])  # it belongs to this batch, which ends here
                raise
            finally:
                note(Stage.CONFIRMATION, began)
            answers = await fetching
        asked = Asked({}, {}, direct, set(), now, question)
        await self._opener.sort(slots, tags, known, answers, asked, CacheStatus.HIT)
        return self._count(keys, asked)

    async def _recall(self, keys: Sequence[str]) -> Asked:
        """The first step of a batch of reads that may be stale.

        Each has checked how old the authority's last answer is.
        """
        slots = list(map(self._sealer.slot, dict.fromkeys(keys)))
        memcache = self._memcache
        if memcache is None or not memcache.available:
            return self._count(keys, _direct(slots, self._clock()))
        answer = self._authority.remembered([slot.bucket for slot in slots], math.inf)
        assert answer is not None
        known = [slot.remembered for slot in slots]
        answers = await self._fetch(memcache, slots, known)
        asked = Asked({}, {}, [], set(), answer.now, answer.question)
        await self._opener.sort(slots, answer.tags, known, answers, asked, CacheStatus.STALE)
        return self._count(keys, asked, STALE_HITS)

    def _count(self, keys: Sequence[str], asked: Asked, hits: int = HITS) -> Asked:
        figures = self._figures
        if asked.complete:
            figures[hits] += len(keys)
        else:
            misses, bypasses = asked.missed, set(asked.direct)
            figures[MISSES] += sum(key in misses for key in keys)
            figures[BYPASSES] += sum(key in bypasses for key in keys)
            figures[hits] += sum(key in asked.found for key in keys)
        return asked

    async def _fetch(
        self, memcache: Memcache, slots: Sequence[Slot], known: Sequence[Remembered | None]
    ) -> Sequence[Answer] | None:
        """What memcached has for these slots; None if it cannot be asked.

        Args:
            known: the items that need not be sent again if they have not changed.
        """
        if not slots:
            return []
        began = monotonic_ns()
        try:
            return await memcache.get_many(
                [slot.name for slot in slots],
                [None if last is None else last.cas for last in known],
            )
        except CacheUnavailable as error:
            self._figures[CACHE_FAILURES[error.reason]] += 1
            return None
        finally:
            note(Stage.MEMCACHED, began)

    def _lane_of_first(self, keys: Sequence[str]) -> str:
        return self._lane_of(keys[0]) if keys else _SHARED


_Ask = Callable[[Sequence[str]], Awaitable[Asked]]


def _direct(slots: Sequence[Slot], now: float) -> Asked:
    """All keys bypass memcached."""
    return Asked({}, {}, [slot.key for slot in slots], set(), now)


def _split(slots: list[Slot], tags: Tags) -> tuple[list[Slot], Sequence[Tag | None], list[str]]:
    """Slots with their tags, and the keys of those that have none, which bypass memcached."""
    if all(tags):  # nearly always
        return slots, tags, []
    pairs = list(zip(slots, tags, strict=True))
    tagged = [(slot, tag) for slot, tag in pairs if tag is not None]
    direct: list[str] = [slot.key for slot, tag in pairs if tag is None]
    return [slot for slot, _ in tagged], [tag for _, tag in tagged], direct


def _bulk(
    keys: Sequence[str], known: Mapping[str, Lookup | StoreError], left_out: Set[str]
) -> list[Lookup] | StoreError | Later | Again:
    """The result of a bulk read: up to the first key that was left out, or the first error.

    LATER if it needs a key that is not loaded yet; AGAIN if its first key was left out.
    """
    results: list[Lookup] = []
    for key in keys:
        result = known.get(key)
        if key in left_out or isinstance(result, LeftOut):
            return results or AGAIN
        if result is None:
            return LATER
        if isinstance(result, StoreError):
            return result
        results.append(result)
    return results
