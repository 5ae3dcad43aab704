"""Read-through: valid copies from memcached, the rest from the store.

A batch of reads asks the authority for its buckets' tags, then memcached, and uses the items that
fit these tags. For the others it reads the store and fills memcached under the tags from *before*
that: if a write came in between, it changed the tag, and the fill does not fit. ``DESIGN.md`` says
why each rule is needed; ``tests/test_model.py`` shows what goes wrong without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from itertools import chain
from operator import itemgetter
from time import monotonic_ns
from typing import Final, NamedTuple, cast

from tenantbase.coherence.authority import Authority, Tag, Tags
from tenantbase.coherence.batcher import AGAIN, LATER, Again, Batcher, Later, Line, Unfinished
from tenantbase.coherence.filler import HEAVY_BYTES, Fill, Filler
from tenantbase.coherence.sealed_item import REJECTED, ItemSealer, Slot, Verdict
from tenantbase.deadlines import Deadlines
from tenantbase.entry import Entry
from tenantbase.errors import CacheUnavailable, LeftOut, StoreError, StoreUnavailable
from tenantbase.figures import BYPASSES, CACHE_FAILURES, HITS, MISSES, REJECTED_ITEMS
from tenantbase.interfaces.cache import AWAY, LEFT_OUT, Memcache
from tenantbase.interfaces.store import Store
from tenantbase.lanes import LaneOf
from tenantbase.lookup import CacheStatus, Lookup
from tenantbase.stages import Stage
from tenantbase.waits import note

_BATCH_KEYS: Final = 256
_SELECTS: Final = 8  # queries in flight at most
_LARGE_ITEM_BYTES: Final = 8 << 10  # opening smaller ones is faster than passing them to a thread
_SHARED: Final = ""  # the lane of batches with keys of several lanes, which were chosen fairly
_NO_KEYS: Final[Set[str]] = frozenset()
_NONE_OPENED: Final[Mapping[bytes, Entry | None | Verdict]] = {}
_Loaded = Entry | None | StoreError
_Wanted = tuple[str, list[str]]  # a lane, and keys
_Load = tuple[bytes, Tag]  # a key's name, and the tag its bucket had before the store was read


class ReadThrough:
    """Reads keys, in batches.

    Args:
        store: the truth.
        authority: says which cached copies are valid.
        memcache: None if there is none.
        filler: stores in memcached what was read from the store.
        timeout: seconds until a read that needs the store is given up.
        lane_of: gives the lane of a key. All keys of a bulk read are of one lane.

    Attributes:
        single, bulk: take one key, or many keys at a time; see ``Cache.get`` and ``get_many``.
    """

    def __init__(
        self,
        store: Store,
        authority: Authority,
        sealer: ItemSealer,
        memcache: Memcache | None,
        filler: Filler,
        figures: memoryview,
        clock: Callable[[], float],
        timeout: float,
        lane_of: LaneOf,
    ) -> None:
        self._store = store
        self._authority = authority
        self._sealer = sealer
        self._memcache = memcache
        self._filler = filler
        self._figures = figures
        self._clock = clock
        self._lane_of = lane_of
        self._loads: dict[_Load, asyncio.Future[Entry | None]] = {}
        # One question to memcached at a time makes large batches, which cost least. Reading the
        # store never holds up the next question, however long it takes.
        singles = Line[str, Lookup](_BATCH_KEYS, None, lane_of)
        self.single = Batcher(self._read_single, queue=singles, parallel=1)
        bulks = Line[Sequence[str], list[Lookup]](_BATCH_KEYS, len, self._lane_of_first)
        self.bulk = Batcher(self._read_bulk, queue=bulks, parallel=1)
        selects = Line[_Wanted, Mapping[str, _Loaded]](
            _BATCH_KEYS, lambda wanted: len(wanted[1]), itemgetter(0)
        )
        self._selects = Batcher(self._select, queue=selects, parallel=_SELECTS)
        self._deadlines: Deadlines[None] = Deadlines(timeout, _time_out)

    async def drained(self) -> None:
        """Wait for every read in flight, and for what it stores in memcached."""
        await self.single.drained()
        await self.bulk.drained()

    async def refresh(self, keys: Sequence[str]) -> list[Lookup]:
        """See ``Cache.refresh``."""
        now = self._clock()
        slots = [self._sealer.slot(key) for key in keys]
        answer = self._authority.tags([slot.bucket for slot in slots])
        tags = answer if isinstance(answer, list) else await answer
        # Don't share a load in flight, which may have begun before this request.
        selected = self._selects.submit((self._lane_of_first(keys), list(keys)))
        self._deadlines.watch(selected, None)
        read = await selected
        fills: list[Fill] = []
        for slot, tag in zip(slots, tags, strict=True):
            entry = read[slot.key]
            if tag is not None and not isinstance(entry, StoreError):
                self._filler.offer(fills, slot.name, tag, entry, now)
        if fills:
            await self._filler.store(fills)
        self._figures[BYPASSES] += len(keys)
        known = {key: _lookup(read[key], CacheStatus.BYPASS) for key in keys}
        result = _bulk(keys, known, _NO_KEYS)
        if isinstance(result, StoreError):
            raise result
        assert isinstance(result, list)  # the first key is never left out
        return result

    async def _read_single(
        self, keys: Sequence[str]
    ) -> Sequence[Lookup | Exception | Again] | Unfinished[Lookup]:
        asked = await self._ask(keys)
        found = asked.found
        if asked.complete:
            return [found[key] for key in keys]
        ready = [found.get(key, AGAIN if key in asked.left_out else LATER) for key in keys]
        late = [key for key, result in zip(keys, ready, strict=True) if result is LATER]
        return Unfinished(ready, partial(self._finish_single, asked, late))

    async def _finish_single(
        self, asked: _Asked, late: list[str]
    ) -> list[Lookup | Exception | Again]:
        if not late:
            return []
        loaded = await self._load(asked, _SHARED)
        return [AGAIN if isinstance(loaded[key], LeftOut) else loaded[key] for key in late]

    async def _read_bulk(
        self, bulks: Sequence[Sequence[str]]
    ) -> Sequence[list[Lookup] | Exception | Again] | Unfinished[list[Lookup]]:
        asked = await self._ask(list(chain.from_iterable(bulks)))
        found = asked.found
        if asked.complete:
            return [[found[key] for key in keys] for keys in bulks]
        ready: list[list[Lookup] | Exception | Later | Again] = []
        late: list[Sequence[str]] = []
        for keys in bulks:
            result = _bulk(keys, found, asked.left_out)
            if result is LATER:
                late.append(keys)
            ready.append(result)
        return Unfinished(ready, partial(self._finish_bulk, asked, late))

    async def _finish_bulk(
        self, asked: _Asked, late: list[Sequence[str]]
    ) -> list[list[Lookup] | Exception | Again]:
        if not late:
            return []
        lanes = set(map(self._lane_of_first, late))
        loaded = await self._load(asked, lanes.pop() if len(lanes) == 1 else _SHARED)
        known: dict[str, Lookup | StoreError] = {**asked.found, **loaded}
        results: list[list[Lookup] | Exception | Again] = []
        for keys in late:
            result = _bulk(keys, known, asked.left_out)
            assert result is not LATER
            results.append(result)
        return results

    async def _ask(self, keys: Sequence[str]) -> _Asked:
        """The first step of a batch: what memcached has of these keys."""
        now = self._clock()
        found: dict[str, Lookup] = {}
        missed: dict[str, _Load] = {}
        left_out: set[str] = set()
        slots = list(map(self._sealer.slot, dict.fromkeys(keys)))
        memcache = self._memcache
        if memcache is None or not memcache.available:
            direct: list[str] = [slot.key for slot in slots]
        else:
            # Every caller of this batch has begun by now, so the tags are fresh for all of them.
            answer = self._authority.tags([slot.bucket for slot in slots])
            if isinstance(answer, list):
                asked, direct = _split(slots, answer)
                items = await self._fetch(memcache, [slot.name for slot, _ in asked])
            else:
                tags, items = await asyncio.gather(
                    answer, self._fetch(memcache, [slot.name for slot in slots])
                )
                asked, direct = _split(slots, tags)
            if items is None:
                direct += [slot.key for slot, _ in asked]
            else:
                await self._open(asked, items, now, found, missed, direct, left_out)
        if missed or direct or left_out:
            misses, bypasses = set(missed), set(direct)
            self._figures[MISSES] += sum(key in misses for key in keys)
            self._figures[BYPASSES] += sum(key in bypasses for key in keys)
            self._figures[HITS] += sum(key in found for key in keys)
        else:
            self._figures[HITS] += len(keys)
        return _Asked(found, missed, direct, left_out, now)

    async def _fetch(self, memcache: Memcache, names: list[bytes]) -> dict[bytes, bytes] | None:
        """What memcached has under these names; None if it cannot be asked."""
        if not names:
            return {}
        began = monotonic_ns()
        try:
            return await memcache.get_many(names)
        except CacheUnavailable as error:
            self._figures[CACHE_FAILURES[error.reason]] += 1
            return None
        finally:
            note(Stage.MEMCACHED, began)

    async def _open(
        self,
        asked: Sequence[tuple[Slot, Tag]],
        items: Mapping[bytes, bytes],
        now: float,
        found: dict[str, Lookup],
        missed: dict[str, _Load],
        direct: list[str],
        left_out: set[str],
    ) -> None:
        """Sort the requested keys by whether memcached has a valid copy."""
        item_of, open_item, hit = items.get, self._sealer.open, CacheStatus.HIT
        opened = _NONE_OPENED
        if sum(map(len, items.values())) > HEAVY_BYTES:
            large = [
                (slot, items[slot.name], tag)
                for slot, tag in asked
                if len(items.get(slot.name, LEFT_OUT)) >= _LARGE_ITEM_BYTES
            ]
            opened = await asyncio.to_thread(self._sealer.open_many, large)
        for slot, tag in asked:
            data = item_of(slot.name)
            if data is None:
                missed[slot.key] = slot.name, tag
                continue
            if data is LEFT_OUT:
                left_out.add(slot.key)
                continue
            if data is AWAY:
                direct.append(slot.key)
                continue
            if opened and slot.name in opened:
                entry = opened[slot.name]
            else:
                entry = open_item(data, slot, tag)
            if entry is REJECTED:
                missed[slot.key] = slot.name, tag
                self._figures[REJECTED_ITEMS] += 1
            elif entry is None or entry.expires_at is None or entry.alive(now):
                found[slot.key] = Lookup(entry, hit)
            else:
                found[slot.key] = Lookup(None, hit)

    async def _load(self, asked: _Asked, lane: str) -> dict[str, Lookup | StoreError]:
        """The second step: read from the store what memcached did not have, and fill.

        Each key is read once, however many callers want it. Joining a load that another batch has
        begun is sound only under the same tag: a write acknowledged between the beginning of that
        load and ours would have changed it. An expiry changes no tag, and is checked here.
        """
        loop = asyncio.get_running_loop()
        joined: dict[str, asyncio.Future[Entry | None]] = {}
        own: dict[str, _Load] = {}
        for key, load in asked.missed.items():
            in_flight = self._loads.get(load)
            if in_flight is None:
                own[key] = load
                self._loads[load] = loop.create_future()
            else:
                joined[key] = in_flight
        read: Mapping[str, _Loaded] = {}
        began = monotonic_ns()
        if wanted := [*own, *asked.direct]:
            try:
                selected = self._selects.submit((lane, wanted))
                self._deadlines.watch(selected, None)
                try:
                    read = await selected
                finally:
                    note(Stage.DATABASE, began)
            except Exception as error:  # of any kind: callers that joined must not wait forever
                for load in own.values():
                    _settle(self._loads.pop(load), error)
                raise
        fills: list[Fill] = []
        for key, load in own.items():
            entry = read[key]
            _settle(self._loads.pop(load), entry)
            if not isinstance(entry, StoreError):
                self._filler.offer(fills, *load, entry, asked.now)
        if fills:
            began = monotonic_ns()
            await self._filler.store(fills)
            note(Stage.MEMCACHED, began)
        loaded = {key: _lookup(read[key], CacheStatus.MISS) for key in own}
        loaded.update((key, _lookup(read[key], CacheStatus.BYPASS)) for key in asked.direct)
        for key, future in joined.items():
            try:
                entry = await future
                # The load may have begun before the entry expired, and this read after that.
                alive = entry is not None and entry.alive(asked.now)
                loaded[key] = Lookup(entry if alive else None, CacheStatus.MISS)
            except StoreError as error:
                loaded[key] = error
        return loaded

    def _lane_of_first(self, keys: Sequence[str]) -> str:
        return self._lane_of(keys[0]) if keys else _SHARED

    async def _select(self, wanted: Sequence[_Wanted]) -> list[Mapping[str, _Loaded]]:
        keys = list(dict.fromkeys(chain.from_iterable(keys for _, keys in wanted)))
        read = dict(zip(keys, await self._store.read(keys, self._clock()), strict=True))
        return [read] * len(wanted)


class _Asked(NamedTuple):
    """The results of a batch's first step, and what is left for the second.

    Attributes:
        missed: keys of which memcached has no valid copy, with the tags to load them under.
        direct: keys that have to bypass memcached.
        left_out: keys that memcached has, but whose items did not fit; they are requested again.
    """

    found: dict[str, Lookup]
    missed: dict[str, _Load]
    direct: list[str]
    left_out: set[str]
    now: float

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to do."""
        return not (self.missed or self.direct or self.left_out)


def _split(slots: list[Slot], tags: Tags) -> tuple[list[tuple[Slot, Tag]], list[str]]:
    """Slots with their tags, and the keys of those that have none, which bypass memcached."""
    pairs = zip(slots, tags, strict=True)
    if all(tags):  # nearly always
        return cast("list[tuple[Slot, Tag]]", list(pairs)), []
    asked: list[tuple[Slot, Tag]] = []
    direct: list[str] = []
    for slot, tag in pairs:
        if tag is None:
            direct.append(slot.key)
        else:
            asked.append((slot, tag))
    return asked, direct


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


def _lookup(entry: _Loaded, cache_status: CacheStatus) -> Lookup | StoreError:
    return entry if isinstance(entry, StoreError) else Lookup(entry, cache_status)


def _settle(load: asyncio.Future[Entry | None], result: Entry | None | Exception) -> None:
    if isinstance(result, Exception):
        load.set_exception(result)
        load.exception()  # marks the exception as retrieved, even if no caller joined
    else:
        load.set_result(result)


def _time_out(_: None, read: asyncio.Future[object]) -> None:
    read.set_exception(StoreUnavailable("the database did not answer in time"))
