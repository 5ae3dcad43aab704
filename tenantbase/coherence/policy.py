"""The policy: read from memcached where that is provably correct; write to the store first.

It combines ``reading.py`` (read-through) and ``writing.py`` (write-through), and passes everything
else on to the store: listings, the change log, tenants and tokens, housekeeping. memcached can fail
in any way: that costs misses.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from time import monotonic_ns
from typing import Final

from tenantbase.access import Access
from tenantbase.coherence.authority import Authority
from tenantbase.coherence.filler import Filler
from tenantbase.coherence.loading import Load, Loaded, Loader
from tenantbase.coherence.reading import BulkRead, ReadThrough
from tenantbase.coherence.sealed_item import ItemSealer
from tenantbase.coherence.write_queue import QUEUE_BYTES
from tenantbase.coherence.writing import Commit, WriteThrough
from tenantbase.commands import Applied, Command, DeletePrefix, Sweep, Transaction
from tenantbase.entry import Entry
from tenantbase.errors import prefix_too_large
from tenantbase.events import ChangeEvent
from tenantbase.figures import EXPIRED, private_cells
from tenantbase.interfaces.cache import Memcache
from tenantbase.interfaces.store import COUNTING_PART, Store, StoreSize
from tenantbase.lanes import LaneOf, one_lane
from tenantbase.listing import PAGE_ENTRIES, Folded, Item, KeyRange, place_of
from tenantbase.lookup import Lookup
from tenantbase.plain_entries import Render
from tenantbase.scope import ScopedKey
from tenantbase.stages import Stage
from tenantbase.troubles import Trouble
from tenantbase.waits import note

_SCAN_ENTRIES: Final = 256
_SCAN_BYTES: Final = 256 << 10
# The thread that writes takes about a millisecond for them, and requests may wait for it.
_SWEEP_ROWS: Final = 100


class Cache:
    """Reads and writes of one database through memcached, coherent across processes.

    Args:
        store: the truth.
        authority: says which cached copies are valid.
        commit: commits a group to the store, which advances the authority's tags.
        sealer: seals and opens the items in memcached.
        memcache: the accelerator, or None.
        clock: the current time in Unix seconds.
        load: reads entries from the store; None: ``store.read`` does, under the authority's tags.
        max_item_bytes: larger sealed items are not offered to memcached.
        write_timeout: seconds until a write that waits is given up.
        read_timeout: seconds until a read that needs the database is given up.
        max_queue, max_queue_bytes: writes waiting at most, and what they may hold in memory, of
            large ones and of small ones each, in a single lane; more are refused.
        lane_of: gives the lane of a key or prefix. Where requests wait, lanes get equal shares.
        figures: the worker's cells (``figures.py``); None: private ones.
    """

    def __init__(
        self,
        store: Store,
        authority: Authority,
        commit: Commit,
        sealer: ItemSealer,
        memcache: Memcache | None,
        *,
        clock: Callable[[], float],
        load: Load | None = None,
        max_item_bytes: int = 1 << 20,
        write_timeout: float = 30.0,
        read_timeout: float = 5.0,
        max_queue: int = 10_000,
        max_queue_bytes: int = QUEUE_BYTES,
        lane_of: LaneOf = one_lane,
        figures: memoryview | None = None,
    ) -> None:
        self._store = store
        self._authority = authority
        self._memcache = memcache
        self._clock = clock
        self._count_timeout = COUNTING_PART * write_timeout
        self.figures: Final = private_cells() if figures is None else figures
        filler = Filler(sealer, memcache, self.figures, max_item_bytes)
        loader = Loader(load or _loaded_from(store), filler, clock, read_timeout)
        self._reading = ReadThrough(
            authority, sealer, memcache, loader, self.figures, clock, lane_of
        )
        self._reads = self._reading.single
        self._bulk_reads = self._reading.bulk
        self._writing = WriteThrough(
            commit,
            sealer,
            filler,
            self.figures,
            clock,
            write_timeout,
            max_queue,
            max_queue_bytes,
            lane_of,
        )

    @property
    def cache_available(self) -> bool | None:
        """Whether memcached, or any server of it, answers; None when there is none."""
        return None if self._memcache is None else self._memcache.available

    @property
    def cache_away(self) -> Sequence[int]:
        """The servers of memcached that do not answer, by their number from 0."""
        return () if self._memcache is None else self._memcache.away

    @property
    def troubles(self) -> Sequence[Trouble]:
        """Current problems of the database, while it still serves."""
        return self._store.troubles

    @property
    def commits(self) -> int:
        """A number that changes with every commit of any process."""
        return self._authority.commits

    @property
    def queued_bytes(self) -> int:
        """The memory that waiting writes hold, in bytes."""
        return self._writing.queue.bytes

    def now(self) -> float:
        """The current time in Unix seconds, as the policy sees it."""
        return self._clock()

    def get(self, key: str, max_stale: float | None = None) -> asyncio.Future[Lookup]:
        """Read one key, together with all others asked for in this turn of the event loop.

        Args:
            max_stale: a copy will do that was valid at most so many seconds ago. It is used without
                asking the database, if that would have to be asked. None: it will not do.
        """
        if self._may_recall(max_stale):
            return self._reading.stale_single.submit(key)
        return self._reads.submit(key)

    def get_then(self, key: str, receive: Callable[[Lookup | Exception], None]) -> None:
        """As ``get``, but ``receive`` is called with the result, or the exception."""
        self._reads.submit_then(key, receive)

    async def get_many(
        self, keys: Sequence[str], size: int = 0, max_stale: float | None = None
    ) -> list[Lookup]:
        """Read many keys in one round trip to memcached and, for the rest, one query.

        Args:
            size: the approximate size of all values, in bytes, so that batches of large ones hold fewer
                keys; 0: unknown, or small.
            max_stale: see ``get``.

        Returns: the results for the first of the keys: for all of them, unless their values are too
            large to be read at once.

        Raises:
            StoreUnavailable: the database was needed and cannot serve.
        """
        if self._may_recall(max_stale):
            return await self._reading.stale_bulk.submit(BulkRead(keys, size))
        return await self._bulk_reads.submit(BulkRead(keys, size))

    def get_many_then(
        self, keys: Sequence[str], receive: Callable[[list[Lookup] | Exception], None]
    ) -> None:
        """As ``get_many``, of small values, but ``receive`` is called with the results, or the
        exception."""
        self._bulk_reads.submit_then(BulkRead(keys), receive)

    async def refresh(self, keys: Sequence[str], size: int = 0) -> list[Lookup]:
        """Read many keys from the database, and store the entries in memcached.

        Args:
            size: ignored.

        Returns and raises: as ``get_many``. The results are bypasses.
        """
        return await self._reading.refresh(keys)

    def write(self, *commands: Command) -> asyncio.Future[tuple[Applied, ...]]:
        """Carry out the commands in one transaction; the future is done when they are on disk.

        Cancelling the future discards the result but does not stop the write.

        Raises (the future does):
            ConditionFailed, WrongType, NoSuchTenant, QuotaExceeded: nothing was done.
            Overloaded, StoreUnavailable, StoreFull: nothing was done.
            OutcomeUnknown: it may or may not have been done.
        """
        return self._writing.write(commands)

    def write_all(self, transaction: Transaction) -> asyncio.Future[tuple[Applied, ...]]:
        """As ``write``, of a transaction that is not a tuple."""
        return self._writing.write(transaction)

    def write_then(
        self, command: Command, receive: Callable[[tuple[Applied, ...] | Exception], None]
    ) -> None:
        """As ``write``, of one command, but ``receive`` is called, later, with the result or the
        exception."""
        self._writing.write_then(command, receive)

    async def delete_prefix(self, prefix: str) -> int:
        """Remove every entry under a prefix, in one transaction. Returns: how many.

        Raises: as ``write``. StoreUnavailable also if counting the entries takes too long.
        """
        async with AsyncExitStack() as stack:
            began = monotonic_ns()
            try:
                async with asyncio.timeout(self._count_timeout):
                    await stack.enter_async_context(self._store.counting(prefix, self._clock()))
            except TimeoutError:
                raise prefix_too_large(self._count_timeout) from None
            finally:
                note(Stage.DATABASE, began)
            (applied,) = await self.write(DeletePrefix(prefix))
        return applied.removed

    def check_room(self, prefix: str, rows: int) -> None:
        """Check that ``write`` would accept this many rows under a prefix now, before preparing them.

        Raises:
            Overloaded: it would refuse them.
        """
        self._writing.check_room(prefix, rows)

    async def scan(
        self,
        wanted: KeyRange,
        *,
        limit: int | None = None,
        values: bool = True,
        render: Render | None = None,
    ) -> AsyncIterator[tuple[Sequence[Item], bool]]:
        """The items of a range, in pieces of bounded size, from the database.

        Each piece is a short query of its own, so a long listing holds up no other caller. A key
        that exists throughout is listed exactly once.

        Yields:
            A piece, and whether there may be items after it.
        """
        more = True
        most = _SCAN_ENTRIES if render is None else PAGE_ENTRIES
        piece: Sequence[Item]
        while more and (limit is None or limit > 0):
            size = most if limit is None else min(limit, most)
            if values:
                piece, more = await self.page(wanted, size, render)
            else:
                began = monotonic_ns()
                piece, more = await self._store.scan_meta(wanted, size, self._clock())
                note(Stage.DATABASE, began)
            if limit is not None:
                limit -= len(piece)
            if piece:
                wanted = wanted.after(place_of(piece[-1]))
            yield piece, more

    async def page(
        self, wanted: KeyRange, limit: int, render: Render | None
    ) -> tuple[Sequence[Entry | Folded], bool]:
        """The first piece of ``scan``, with values, from one state of the database."""
        began = monotonic_ns()
        page = await self._store.scan(wanted, limit, _SCAN_BYTES, self._clock(), render)
        note(Stage.DATABASE, began)
        return page

    async def count(self, wanted: KeyRange, limit: int) -> tuple[int, int, ScopedKey | None]:
        """Count the first entries of a range; see ``Store.count``."""
        return await self._store.count(wanted, limit, self._clock())

    async def poll(self) -> None:
        """Bring ``commits`` up to date; see ``Authority.poll``."""
        await self._authority.poll()

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        """The change log; see ``Store.changes``."""
        return await self._store.changes(after, limit)

    async def last_version(self) -> int:
        """The newest version assigned."""
        return await self._store.last_version()

    async def access(self, known: int | None) -> Access | None:
        """Tenants and tokens; see ``Store.access``."""
        return await self._store.access(known)

    async def sweep(self, rows: int = _SWEEP_ROWS) -> bool:
        """Remove expired rows and old lines of the change log; True when there may be more."""
        (result,) = await self.write(Sweep(rows))
        self.figures[EXPIRED] += result.expired
        return result.removed >= rows

    async def size(self) -> StoreSize:
        """The size of the database. Raises StoreError."""
        return await self._store.size()

    async def check(self) -> None:
        """Check that the store can serve. Raises StoreError."""
        await self._store.check()

    async def drained(self) -> None:
        """Wait for every read, write and fill in flight. Call before the store is closed."""
        await self._writing.drained()
        await self._reading.drained()
        await self._authority.drained()

    def _may_recall(self, max_stale: float | None) -> bool:
        return max_stale is not None and self._authority.remembered((), max_stale) is not None


def _loaded_from(store: Store) -> Load:
    async def load(keys: Sequence[str], now: float, bulk: bool) -> tuple[Sequence[Loaded], None]:
        return await store.read(keys, now), None

    return load
