"""The Protocol of a database, as the policy needs it.

A write is a *transaction*: a tuple of commands, all carried out or none. The store takes many
transactions at a time and commits them as one group. Each has its own outcome: one whose
condition fails does not affect its neighbours. Before a change can be seen the store begins a
write on the *seqlock*, naming the keys, and afterwards ends it: that is how caches learn of writes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeVar

import msgspec

from tenantbase.entry import Entry
from tenantbase.errors import StoreError, TenantbaseError
from tenantbase.events import ChangeEvent
from tenantbase.troubles import Trouble

Ticket = TypeVar("Ticket")
Ticket_co = TypeVar("Ticket_co", covariant=True)


class Condition(msgspec.Struct, frozen=True, gc=False):
    """A condition on a key. The command is carried out only if everything given holds.

    Attributes:
        absent: the key does not exist (``if_absent``, ``If-None-Match: *``).
        exists: the key exists (``If-Match: *``).
        versions: the entry's version is one of these (``if_version``, ``If-Match: "7"``).
        not_versions: the entry is absent or its version is none of these
            (``If-None-Match: "7"``).
    """

    absent: bool = False
    exists: bool = False
    versions: frozenset[int] | None = None
    not_versions: frozenset[int] | None = None

    def holds(self, version: int | None) -> bool:
        """Whether it holds for an entry of this version; None: the entry is absent."""
        if self.absent and version is not None:
            return False
        if self.exists and version is None:
            return False
        if self.versions is not None and version not in self.versions:
            return False
        return self.not_versions is None or version not in self.not_versions


class Set(msgspec.Struct, frozen=True, gc=False):
    """Store a value. A new key gets a new id; a living one keeps its id."""

    key: str
    value: bytes
    content_type: str
    expires_at: float | None = None
    condition: Condition | None = None


class Delete(msgspec.Struct, frozen=True, gc=False):
    """Remove a key. Removing an absent one changes nothing."""

    key: str
    condition: Condition | None = None


class Increment(msgspec.Struct, frozen=True, gc=False):
    """Add ``by`` to the JSON integer stored at ``key``; an absent key counts as ``initial``.

    ``expires_at`` None leaves a living counter's expiry as it is.
    """

    key: str
    by: int
    initial: int
    expires_at: float | None = None
    condition: Condition | None = None


class DeletePrefix(msgspec.Struct, frozen=True, gc=False):
    """Remove every key that begins with ``prefix`` (literal text; empty: all keys)."""

    prefix: str


class Sweep(msgspec.Struct, frozen=True, gc=False):
    """Housekeeping: remove at most ``limit`` rows that have expired or no longer count."""

    limit: int


Command = Set | Delete | Increment | DeletePrefix | Sweep
Transaction = tuple[Command, ...]


class Applied(msgspec.Struct, frozen=True, gc=False):
    """The result of one command.

    Attributes:
        entry: the entry as it is now; None after a removal or when there is none.
        created: the key did not exist before.
        removed: the number of removed entries (for a Sweep: rows).
    """

    entry: Entry | None = None
    created: bool = False
    removed: int = 0


class Seqlock(Protocol[Ticket]):
    """Surrounds every commit. All methods are called in the store's writing thread.

    A ticket stands for one write. The store only passes it on; the caches learn from it what they
    may keep.
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
        outcomes: for each transaction, in order, what its commands did, or why it was not made;
            None for one that was withdrawn.
        ticket: the write that was committed on the seqlock; None when nothing changed.
    """

    outcomes: list[tuple[Applied, ...] | TenantbaseError | None]
    ticket: Ticket_co | None


class Store(Protocol):
    """A table of entries. ``now`` is Unix seconds; what has expired by then is absent."""

    @property
    def secret(self) -> bytes:
        """32 random bytes, made with the database: the root of keyed hashes and MACs."""

    @property
    def troubles(self) -> Sequence[Trouble]:
        """Problems of a database that still serves."""

    async def read(self, keys: Sequence[str], now: float) -> list[Entry | None | StoreError]:
        """The entries of these keys, in their order, from one snapshot.

        A key whose row is damaged has the error in its place. Beyond a size in all, keys have
        ``LeftOut`` in their place; never the first.
        """

    async def scan(
        self, prefix: str, after: str, limit: int, max_bytes: int, now: float
    ) -> tuple[list[Entry], bool]:
        """Entries whose key begins with ``prefix`` and is greater than ``after``, in byte order.

        Stops at ``limit`` entries or once the values reach ``max_bytes`` (at least one entry).
        The second part is True when there may be more.
        """

    async def scan_keys(
        self, prefix: str, after: str, limit: int, now: float
    ) -> tuple[list[Entry], bool]:
        """The same without values: each entry's ``value`` is empty."""

    async def write(
        self, group: Sequence[PendingWrite], now: float, seqlock: Seqlock[Ticket]
    ) -> GroupResult[Ticket]:
        """Commit a group of transactions as one; returns when it is on disk.

        An error of the whole group is the outcome of each of its members. After an
        OutcomeUnknown the store takes no more writes.
        """

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        """The change log after a version, oldest first.

        The second part is False when the log no longer reaches back to ``after``.
        """

    async def last_version(self) -> int:
        """The newest version given out."""

    async def check(self) -> None:
        """Return if the store can serve reads and writes.

        Raises:
            StoreError: it cannot; the text says why.
        """

    async def close(self) -> None:
        """Finish what is in flight and close every file."""
