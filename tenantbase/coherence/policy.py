"""The policy: reads come from memcached when they provably may, writes go to the database first.

A read loads its bucket's tag from the tag file, asks memcached, and believes the frame it gets
only if it carries exactly this tag. Otherwise it reads the database and stores what it found
under the tag loaded *before*. A write makes the tag odd, commits, makes it even, and stores the
new value under the new tag. ``DESIGN.md`` says why each of these is needed; ``tests/test_model.py``
shows what goes wrong without it. memcached can fail in any way: that costs misses.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Final, NamedTuple, cast

from tenantbase.coherence.pending import PendingWrite, give_up
from tenantbase.coherence.batcher import LATER, Batcher, Later, Receiver, Unfinished
from tenantbase.entry import Entry
from tenantbase.events import ChangeEvent
from tenantbase.errors import CacheUnavailable, Overloaded, StoreError, StoreUnavailable
from tenantbase.coherence.tag_seqlock import TagSeqlock, TagTicket
from tenantbase.coherence.filler import HEAVY_BYTES, Fill, Filler
from tenantbase.lookup import CacheStatus, Counters, Lookup
from tenantbase.coherence.sealed_item import (
    CACHED_BYTES,
    OVERHEAD,
    REJECTED,
    ItemSealer,
    Slot,
    Verdict,
)
from tenantbase.interfaces.cache import Memcache
from tenantbase.interfaces.store import (
    Applied,
    Command,
    DeletePrefix,
    Store,
    Sweep,
    Written,
)
from tenantbase.coherence.tag_file import Tag, TagFile
from tenantbase.deadlines import Deadlines
from tenantbase.troubles import Trouble
from tenantbase.coherence.write_queue import QUEUE_BYTES, WriteQueue

_READ_BATCH: Final = 256
_SELECTS: Final = 8
_WRITE_THROUGHS: Final = 7
_SCAN_ENTRIES: Final = 256
_SCAN_BYTES: Final = 1 << 20
_SWEEP_ROWS: Final = 500
_LARGE_FRAME: Final = 64 << 10  # bytes; smaller ones are opened sooner than handed on
_NOTHING_OPENED: Final[Mapping[bytes, Entry | None | Verdict]] = {}
_Loaded = Entry | None | StoreError
# memcached takes a longer time for an absolute one.
_MAX_EXPTIME: Final = 30 * 24 * 3600


class Cache:
    """Reads and writes of one database through one memcached, coherent over processes.

    Args:
        store: the truth.
        tags: the tag file beside it.
        seqlock: what the store raises around each commit.
        sealer: makes and opens frames.
        memcache: the accelerator; None: none.
        clock: the present in Unix seconds.
        max_item_bytes: frames above this are not offered to memcached.
        write_timeout: seconds until a write that waits is given up.
        read_timeout: seconds until a read that needs the database is given up.
        max_queue, max_queue_bytes: writes waiting at most, and what they may hold in memory, of
            large ones and of small ones each; more are refused.
    """

    def __init__(
        self,
        store: Store,
        tags: TagFile,
        seqlock: TagSeqlock,
        sealer: ItemSealer,
        memcache: Memcache | None,
        *,
        clock: Callable[[], float],
        max_item_bytes: int = 1 << 20,
        write_timeout: float = 30.0,
        read_timeout: float = 5.0,
        max_queue: int = 10_000,
        max_queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self._store = store
        self._tags = tags
        self._seqlock = seqlock
        self._sealer = sealer
        self._memcache = memcache
        self._clock = clock
        self._max_value = min(max_item_bytes - OVERHEAD, CACHED_BYTES)
        self._loads: dict[tuple[bytes, Tag], asyncio.Future[Entry | None]] = {}
        # One question to memcached at a time makes large batches, which cost least. What has to
        # go to the database never holds up the next question, however long it takes.
        self._reads = Batcher(self._read_singly, limit=_READ_BATCH, parallel=1)
        self._bulk_reads = Batcher(self._read_bulks, limit=_READ_BATCH, parallel=1, weight=len)
        self._selects = Batcher(self._select, limit=_READ_BATCH, parallel=_SELECTS, weight=len)
        self._read_patience: Deadlines[None] = Deadlines(read_timeout, _give_up_read)
        self._queue = WriteQueue[PendingWrite, Receiver[tuple[Applied, ...]]](
            max_queue, max_queue_bytes
        )
        self._writes = Batcher(
            self._commit, queue=self._queue, parallel=1, overlapping=_WRITE_THROUGHS
        )
        self._deadlines = Deadlines(write_timeout, give_up)
        self.counters = Counters()
        self._filler = None if memcache is None else Filler(sealer, memcache, self.counters)

    @property
    def cache_available(self) -> bool | None:
        """Whether memcached answers; None when there is none."""
        return None if self._memcache is None else self._memcache.available

    @property
    def troubles(self) -> Sequence[Trouble]:
        """What is wrong with the database although it serves."""
        return self._store.troubles

    @property
    def commits(self) -> int:
        """Changes with every commit of any process on the database."""
        return self._tags.commits

    def now(self) -> float:
        """The present in Unix seconds, as the policy sees it."""
        return self._clock()

    # Reading

    def get(self, key: str) -> asyncio.Future[Lookup]:
        """Read one key, together with all others asked for in this turn of the event loop."""
        return self._reads.submit(key)

    def get_then(self, key: str, receive: Callable[[Lookup | Exception], None]) -> None:
        """As ``get``, but ``receive`` is called with the result, or the exception."""
        self._reads.submit_then(key, receive)

    async def get_many(self, keys: Sequence[str]) -> list[Lookup]:
        """Read many keys in one round trip to memcached and, for the rest, one query.

        Raises:
            StoreUnavailable: the database was needed and cannot serve.
        """
        return await self._bulk_reads.submit(keys)

    async def _read_singly(self, keys: Sequence[str]) -> Sequence[Lookup] | Unfinished[Lookup]:
        asked = await self._ask_for(keys)
        found = asked.found
        if not (asked.missed or asked.direct):
            return [found[key] for key in keys]
        ready: list[Lookup | Later] = [found.get(key, LATER) for key in keys]
        late = [key for key in keys if key not in found]
        return Unfinished(ready, partial(self._finish_singly, asked, late))

    async def _finish_singly(self, asked: _Asked, late: list[str]) -> list[Lookup | Exception]:
        loaded = await self._load(asked)
        return [loaded[key] for key in late]

    async def _read_bulks(
        self, bulks: Sequence[Sequence[str]]
    ) -> Sequence[list[Lookup]] | Unfinished[list[Lookup]]:
        asked = await self._ask_for(list(chain.from_iterable(bulks)))
        found = asked.found
        if not (asked.missed or asked.direct):
            return [[found[key] for key in keys] for keys in bulks]
        ready: list[list[Lookup] | Later] = []
        late: list[Sequence[str]] = []
        for keys in bulks:
            if all(key in found for key in keys):
                ready.append([found[key] for key in keys])
            else:
                ready.append(LATER)
                late.append(keys)
        return Unfinished(ready, partial(self._finish_bulks, asked, late))

    async def _finish_bulks(
        self, asked: _Asked, late: list[Sequence[str]]
    ) -> list[list[Lookup] | Exception]:
        known: dict[str, Lookup | StoreError] = {**asked.found, **await self._load(asked)}
        results: list[list[Lookup] | Exception] = []
        for keys in late:
            found = []
            for key in keys:
                result = known[key]
                if isinstance(result, StoreError):
                    results.append(result)
                    break
                found.append(result)
            else:
                results.append(found)
        return results

    async def _ask_for(self, keys: Sequence[str]) -> _Asked:
        """The first step of a batch of reads: what memcached has of these keys."""
        now = self._clock()
        found: dict[str, Lookup] = {}
        # Before memcached and the database are asked: every caller of this batch has begun, so
        # the tags are fresh for all of them.
        slots = list(map(self._sealer.slot, dict.fromkeys(keys)))
        tags = self._tags.tags([slot.bucket for slot in slots])
        missed: dict[str, tuple[bytes, Tag]] = {}
        direct: list[str] = []
        if self._memcache is None or not self._memcache.available:
            direct.extend(slot.key for slot in slots)
        else:
            asked: list[tuple[Slot, Tag]] = []
            for slot, tag in zip(slots, tags, strict=True):
                if tag[1] % 2:
                    direct.append(slot.key)
                else:
                    asked.append((slot, tag))
            frames = await self._ask([slot.name for slot, _ in asked])
            if frames is None:
                direct.extend(slot.key for slot, _ in asked)
            else:
                await self._open(asked, frames, now, found, missed)
        if missed or direct:
            misses, bypasses = set(missed), set(direct)
            self.counters.misses += sum(key in misses for key in keys)
            self.counters.bypasses += sum(key in bypasses for key in keys)
            self.counters.hits += sum(key in found for key in keys)
        else:
            self.counters.hits += len(keys)
        return _Asked(found, missed, direct, now)

    async def _open(
        self,
        asked: Sequence[tuple[Slot, Tag]],
        frames: Mapping[bytes, bytes],
        now: float,
        found: dict[str, Lookup],
        missed: dict[str, tuple[bytes, Tag]],
    ) -> None:
        """Sort what was asked for by whether memcached's frame of it is sound."""
        frame_of, decode, hit = frames.get, self._sealer.decode, CacheStatus.HIT
        opened: Mapping[bytes, Entry | None | Verdict] = _NOTHING_OPENED
        if sum(map(len, frames.values())) > HEAVY_BYTES:
            large = [
                (slot, frames[slot.name], tag)
                for slot, tag in asked
                if len(frames.get(slot.name, b"")) >= _LARGE_FRAME
            ]
            opened = await asyncio.to_thread(self._sealer.decode_many, large)
        for slot, tag in asked:
            data = frame_of(slot.name)
            if data is None:
                entry: Entry | None | Verdict = REJECTED
            elif opened and slot.name in opened:
                entry = opened[slot.name]
            else:
                entry = decode(data, slot, tag)
            if entry is REJECTED:
                missed[slot.key] = slot.name, tag
                if data is not None:
                    self.counters.rejected_items += 1
            elif entry is None or entry.expires_at is None or entry.alive(now):
                found[slot.key] = Lookup(entry, hit)
            else:
                found[slot.key] = Lookup(None, hit)

    async def _ask(self, names: list[bytes]) -> dict[bytes, bytes] | None:
        if not names or self._memcache is None:
            return {}
        try:
            return await self._memcache.get_many(names)
        except CacheUnavailable:
            self.counters.cache_failures += 1
            return None

    async def _load(self, asked: _Asked) -> dict[str, Lookup | StoreError]:
        """The second step: read from the database what memcached did not have, and fill.

        Each key is read once however many ask. Joining a load that another batch has begun is
        sound only under the very same tag: no write was acknowledged between its beginning and
        ours, or the tag would differ.
        """
        loop = asyncio.get_running_loop()
        joined: dict[str, asyncio.Future[Entry | None]] = {}
        own: dict[str, tuple[bytes, Tag]] = {}
        for key, token in asked.missed.items():
            under_way = self._loads.get(token)
            if under_way is None:
                own[key] = token
                self._loads[token] = loop.create_future()
            else:
                joined[key] = under_way
        read: Mapping[str, _Loaded] = {}
        if wanted := [*own, *asked.direct]:
            try:
                selected = self._selects.submit(wanted)
                self._read_patience.watch(selected, None)
                read = await selected
            except Exception as error:  # whatever it is, nobody who joined may wait for ever
                for token in own.values():
                    _settle_load(self._loads.pop(token), error)
                raise
        fills: list[Fill] = []
        for key, token in own.items():
            entry = read[key]
            _settle_load(self._loads.pop(token), entry)
            if not isinstance(entry, StoreError):
                self._offer(fills, *token, entry, asked.now)
        await self._publish(fills)
        loaded = {key: _found(read[key], CacheStatus.MISS) for key in own}
        loaded.update((key, _found(read[key], CacheStatus.BYPASS)) for key in asked.direct)
        for key, load in joined.items():
            try:
                loaded[key] = Lookup(await load, CacheStatus.MISS)
            except StoreError as error:
                loaded[key] = error
        return loaded

    async def _select(self, wanted: Sequence[list[str]]) -> list[Mapping[str, _Loaded]]:
        keys = list(dict.fromkeys(chain.from_iterable(wanted)))
        read = dict(zip(keys, await self._store.read(keys, self._clock()), strict=True))
        return [read] * len(wanted)

    # Writing

    def write(self, *changes: Command) -> asyncio.Future[tuple[Applied, ...]]:
        """Make the changes in one transaction, all or none; done when they are on disk.

        Cancelling the future gives up the result and stops nothing.

        Raises (the future does):
            ConditionFailed, WrongType: nothing was done.
            Overloaded, StoreUnavailable, StoreFull: nothing was done.
            OutcomeUnknown: it may or may not have been done.
        """
        pending = PendingWrite(changes)
        if not self._queue.has_room(pending):
            refused = asyncio.get_running_loop().create_future()
            refused.set_exception(Overloaded("too many writes are waiting; try again soon"))
            return refused
        committed = self._writes.submit(pending)
        self._deadlines.watch(committed, pending)
        return committed

    async def _commit(self, group: Sequence[PendingWrite]) -> list[tuple[Applied, ...] | Exception]:
        written = await self._store.write(group, self._clock(), self._seqlock)
        for pending in group:
            pending.settled = True
        # The next group need not wait for what this one has to say to memcached.
        self._writes.overlap()
        await self._publish(self._write_through(group, written))
        # None: withdrawn, and nobody waits for the answer.
        return [() if outcome is None else outcome for outcome in written.outcomes]

    def _write_through(self, group: Sequence[PendingWrite], written: Written) -> list[Fill]:
        """What a group is to store in memcached.

        The whole group has one tag, so only the last state of a key may be cached under it:
        an earlier one would pass for the newest.
        """
        ticket = cast("TagTicket | None", written.ticket)
        if ticket is None:
            return []
        self.counters.commits += 1
        last: dict[str, Entry | None] = {}
        for pending, outcome in zip(group, written.outcomes, strict=True):
            if outcome is None or isinstance(outcome, Exception):
                continue
            for change, applied in zip(pending.transaction, outcome, strict=True):
                if isinstance(change, DeletePrefix | Sweep):
                    last.clear()  # it may have removed any of them
                elif applied.entry is not None or applied.removed:
                    last[change.key] = applied.entry
        now = self._clock()
        fills: list[Fill] = []
        for key, entry in last.items():
            slot = self._sealer.slot(key)
            self._offer(fills, slot.name, ticket.tag(slot.bucket), entry, now)
        return fills

    def _offer(
        self, fills: list[Fill], name: bytes, tag: Tag, entry: Entry | None, now: float
    ) -> None:
        """Add an entry to what will be stored, if memcached can hold it and is to be asked."""
        if self._memcache is None or not self._memcache.available:
            return
        lifetime = 0
        if entry is not None:
            if len(entry.value) > self._max_value:
                return
            if entry.expires_at is not None:
                # The frame says itself when it ends; this only frees memory early.
                remaining = math.ceil(entry.expires_at - now) + 1
                lifetime = max(remaining, 1) if remaining <= _MAX_EXPTIME else 0
        fills.append((name, tag, entry, lifetime))

    async def _publish(self, fills: list[Fill]) -> None:
        if self._filler is not None and fills:
            await self._filler.store(fills)

    # Listing, housekeeping, life

    async def scan(
        self, prefix: str = "", after: str = "", *, limit: int | None = None, values: bool = True
    ) -> AsyncIterator[tuple[list[Entry], bool]]:
        """Entries in byte order of keys, in pieces of bounded size, from the database.

        Each piece is a short query of its own, so a long listing holds up nobody. A key that
        exists throughout is listed exactly once.

        Yields:
            A piece, and whether there may be entries after it.
        """
        more = True
        while more and (limit is None or limit > 0):
            size = _SCAN_ENTRIES if limit is None else min(limit, _SCAN_ENTRIES)
            if values:
                piece, more = await self._store.scan(
                    prefix, after, size, _SCAN_BYTES, self._clock()
                )
            else:
                piece, more = await self._store.scan_keys(prefix, after, size, self._clock())
            if limit is not None:
                limit -= len(piece)
            if piece:
                after = piece[-1].key
            yield piece, more

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        """The change log; see ``Store.changes``."""
        return await self._store.changes(after, limit)

    async def last_version(self) -> int:
        """The newest version given out."""
        return await self._store.last_version()

    async def sweep(self) -> bool:
        """Remove a batch of what has expired; True when there may be more."""
        (result,) = await self.write(Sweep(_SWEEP_ROWS))
        return result.removed >= _SWEEP_ROWS

    async def check(self) -> None:
        """Return if the store can serve. Raises StoreError."""
        await self._store.check()

    async def drained(self) -> None:
        """Wait for every read, write and fill under way. Call before the store is closed."""
        await self._writes.drained()
        await self._reads.drained()
        await self._bulk_reads.drained()


class _Asked(NamedTuple):
    """What the first step of a batch of reads has found, and what is left for the second."""

    found: dict[str, Lookup]
    missed: dict[str, tuple[bytes, Tag]]
    direct: list[str]
    now: float


def _found(entry: _Loaded, cache_status: CacheStatus) -> Lookup | StoreError:
    return entry if isinstance(entry, StoreError) else Lookup(entry, cache_status)


def _settle_load(load: asyncio.Future[Entry | None], result: Entry | None | Exception) -> None:
    if isinstance(result, Exception):
        load.set_exception(result)
        load.exception()  # whether or not it was joined, it has been seen
    else:
        load.set_result(result)


def _give_up_read(_: None, read: asyncio.Future[object]) -> None:
    read.set_exception(StoreUnavailable("the database did not answer in time"))
