"""The Protocol of a database that several machines share, as the policy needs it.

Every group of writes gets a *position*, above those of all groups before it. The *term* says which
primary server gave it. An answer counts only if it is *confirmed*: at some moment after the
call, the server that gave it was the only one that could acknowledge writes, and what the answer
shows survives that server. The methods below return only what is confirmed, or raise StoreError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from tenantbase.entry import Entry
from tenantbase.errors import StoreError
from tenantbase.interfaces.store import GroupResult, PendingWrite, Store

NameHash = Callable[[str], int]
"""The first 32 bits of a scoped key's name in memcached."""


class Term(msgspec.Struct, frozen=True):
    """The time during which one server was the primary.

    Attributes:
        epoch: 16 random bytes that identify it.
        inherited: the position that it began with. Of what an older term cached, only copies up to
            here are true.
    """

    epoch: bytes
    inherited: int


class Stamp(NamedTuple):
    """The moment at which values are true: a position of a term."""

    epoch: bytes
    position: int


class Commit(NamedTuple):
    """A group that was committed.

    Attributes:
        hashes: the name hashes of the keys it changed; None: it may have changed any key.
    """

    position: int
    hashes: Sequence[int] | None


class Index(msgspec.Struct, frozen=True):
    """The answer to a question: which commits there are after a position.

    Attributes:
        terms: of the database, newest first.
        position: of the last commit.
        trimmed: commits up to this position are no longer listed.
        now: the database's time, in Unix seconds; never decreases.
        commits: those after the requested position, oldest first.
        complete: False if there are more of them, after the last one listed.
    """

    terms: Sequence[Term]
    position: int
    trimmed: int
    now: float
    commits: Sequence[Commit]
    complete: bool


class Committed(Protocol):
    """The ticket of a group that was committed; see ``coherence.authority.WriteTags``."""

    def tag(self, bucket: int) -> Stamp:
        """The stamp of the group, whatever the bucket."""


class SharedStore(Store, Protocol):
    """A table of entries on a server. Times are the database's: ``now`` of a method is ignored.

    ``changes`` does not reach back to a change that a failover has lost.
    """

    async def ask(self, after: int) -> Index:
        """The commits after a position, at most 1,000 of them, as of a moment after this call.

        Nothing that was acknowledged before the call is missing.
        """

    async def read_stamped(
        self, keys: Sequence[str], bulk: bool = False
    ) -> tuple[list[Entry | None | StoreError], Stamp]:
        """Like ``read``, with the stamp of the snapshot that the entries are from.

        Args:
            bulk: for requests of many keys, which must not hold up those of one.
        """

    async def commit(
        self, group: Sequence[PendingWrite], name_hash: NameHash
    ) -> GroupResult[Committed]:
        """Commit a group of transactions as one; returns when its outcome is known.

        An outcome that stays in doubt beyond the write timeout is OutcomeUnknown; later groups are
        taken all the same.
        """
