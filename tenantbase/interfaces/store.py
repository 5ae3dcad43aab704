"""The Protocol of a database, as the policy needs it.

A write is a *transaction*: a sequence of commands, all carried out or none. The store takes many
transactions at a time and commits them as one group. Each has its own outcome: one whose
condition fails does not affect its neighbours. Before a change can be seen, a local store begins a
write on the *seqlock*, naming the keys, and afterwards ends it: that is how caches learn of writes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from tenantbase.access import Access
from tenantbase.commands import Applied, Transaction
from tenantbase.entry import Entry
from tenantbase.errors import StoreError, TenantbaseError
from tenantbase.events import ChangeEvent
from tenantbase.listing import EntryMeta, Folded, KeyRange
from tenantbase.plain_entries import Render
from tenantbase.scope import ScopedKey
from tenantbase.troubles import Trouble

COUNTING_PART: Final = 0.6
"""How much of the time for a write there is to count what is under a prefix, before it is deleted."""

Ticket = TypeVar("Ticket")
Ticket_co = TypeVar("Ticket_co", covariant=True)


class Seqlock(Protocol[Ticket]):
    """Surrounds every commit. All methods are called in the store's writing thread.

    A ticket stands for one write. The store only passes it on; it tells the caches what they may
    keep.
    """

    def lock(self) -> AbstractContextManager[object]:
        """The write lock, shared by all processes on the database; held around a transaction."""

    def begin_write(self, keys: Collection[str] | None) -> Ticket:
        """These keys (None: any key) are about to change. Called before COMMIT, lock held."""

    def commit(self, ticket: Ticket) -> None:
        """The transaction was committed. Lock still held."""

    def roll_back(self, ticket: Ticket) -> None:
        """The transaction was rolled back, for certain. Lock still held."""


class PendingWrite(Protocol):
    """A transaction that may be withdrawn until the store starts it."""

    @property
    def transaction(self) -> Transaction: ...

    def try_start(self) -> bool:
        """Called once by the store before it applies the transaction: False if withdrawn."""


class GroupResult(msgspec.Struct, Generic[Ticket_co], frozen=True):
    """The result of a group.

    Attributes:
        outcomes: for each transaction, in order, what its commands did, or why it failed; None for
            one that was withdrawn.
        ticket: the write that was committed on the seqlock; None when nothing changed.
        waited: how long the group waited for a checkpoint to end, in nanoseconds.
    """

    outcomes: list[tuple[Applied, ...] | TenantbaseError | None]
    ticket: Ticket_co | None
    waited: int = 0


class ServerState(msgspec.Struct, frozen=True):
    """What the operator of a database server watches.

    Attributes:
        primary: its address.
        standby: the name of the synchronous standby; None without one.
        standby_present: it is connected to the primary.
        standby_lag_bytes: how much of the write-ahead log it has yet to apply; None: unknown.
        oldest_xid_age: of all databases of the server, the age of the oldest transaction id that is
            not frozen. Before it reaches two billion, the server refuses writes.
    """

    primary: str
    standby: str | None
    standby_present: bool
    standby_lag_bytes: int | None
    oldest_xid_age: int


class StoreSize(msgspec.Struct, frozen=True):
    """The size of a database.

    Attributes:
        entries, bytes: the usage of all tenants; bytes are those of keys and values.
        database_bytes: the size of its file.
        log_bytes: the size of its write-ahead log.
        free_bytes: the free space on its disk; None: unknown.
        server: of the server that several machines share; None: the database is a file.
    """

    entries: int
    bytes: int
    database_bytes: int
    log_bytes: int
    free_bytes: int | None
    server: ServerState | None = None


class Store(Protocol):
    """A table of entries. ``now`` is Unix seconds; entries that have expired by then are absent.

    How a group of writes is committed depends on who shares the table: the processes of one machine
    (``LocalStore``), or several machines (``shared_store.py``).
    """

    @property
    def secret(self) -> bytes:
        """32 random bytes, made with the database: the root of keyed hashes and MACs."""

    @property
    def troubles(self) -> Sequence[Trouble]:
        """Current problems of the database, while it still serves."""

    async def read(self, keys: Sequence[str], now: float) -> list[Entry | None | StoreError]:
        """The entries of these keys, in their order, from one snapshot.

        A key whose row is damaged has the error in its place. Beyond a total size, keys have
        ``LeftOut`` in their place, but never the first key.
        """

    async def scan(
        self,
        wanted: KeyRange,
        limit: int,
        max_bytes: int,
        now: float,
        render: Render | None = None,
    ) -> tuple[Sequence[Entry | Folded], bool]:
        """Entries of a range in order of keys, with folded keys among them.

        Stops at ``limit`` items or once the values reach ``max_bytes`` (at least one item).
        The second part is True when there may be more.

        Args:
            render: a store that reads in threads may call it there with entries that are all plain, and
                return them as ``PlainEntries`` that have its result.
        """

    async def scan_meta(
        self, wanted: KeyRange, limit: int, now: float
    ) -> tuple[list[EntryMeta | Folded], bool]:
        """The same without values."""

    async def count(
        self, wanted: KeyRange, limit: int, now: float
    ) -> tuple[int, int, ScopedKey | None]:
        """Count the first entries of a range in ascending order, at most ``limit``.

        Returns: how many; the bytes of their scoped keys and values; the last one's key if there
            may be more, otherwise None. The range's order and delimiter do not matter.
        """

    def counting(self, prefix: str, now: float) -> AbstractAsyncContextManager[None]:
        """Count what is under a prefix that is deleted in the block, so that other writes wait less for
        the deletion.

        It may take long, and may be cancelled.
        """

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        """The change log after a version, oldest first.

        The second part is False when the log no longer reaches back to ``after``.
        """

    async def last_version(self) -> int:
        """The newest version assigned."""

    async def access(self, known: int | None) -> Access | None:
        """Tenants and tokens; None if their version is still ``known``, which is cheap to find out."""

    async def size(self) -> StoreSize:
        """The size of the database. Notes a lack of space in ``troubles``."""

    async def check(self) -> None:
        """Check that the store can serve reads and writes.

        Raises:
            StoreError: it cannot; the text says why.
        """

    async def close(self) -> None:
        """Finish what is in flight and close every file."""


class LocalStore(Store, Protocol):
    """A store of one machine."""

    async def write(
        self, group: Sequence[PendingWrite], now: float, seqlock: Seqlock[Ticket]
    ) -> GroupResult[Ticket]:
        """Commit a group of transactions as one; returns when it is on disk.

        An error of the whole group is the outcome of each of its members. After an
        OutcomeUnknown the store takes no more writes.
        """
