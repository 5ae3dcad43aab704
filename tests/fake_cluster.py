"""A database that several machines share, in memory, with failovers; it passes the stores' contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from tenantbase.entry import Entry
from tenantbase.errors import StoreError, StoreUnavailable
from tenantbase.events import ChangeEvent, EventKind
from tenantbase.interfaces.shared_store import Commit, Index, NameHash, Stamp, Term
from tenantbase.interfaces.store import GroupResult, PendingWrite, Seqlock, Ticket
from tests.fakes import FakeStore, Tables

TERM_GAP: Final = 1 << 20
"""A new term's positions are so far above those of the last one."""

_EPOCHS: Final = count(1)


def _new_term(inherited: int) -> Term:
    return Term(next(_EPOCHS).to_bytes(16, "big"), inherited)


@dataclass
class FakeCluster:
    """A primary and its standby, as all nodes see them.

    Attributes:
        now: the database's time, in Unix seconds.
        terms: newest first.
        commits: oldest first; those up to ``trimmed`` are gone.
        states: the tables after each commit that a failover may lose.
        page: how many commits an answer lists at most.
    """

    now: float = 1_000.0
    tables: Tables = field(default_factory=Tables)
    terms: list[Term] = field(default_factory=lambda: [_new_term(0)])
    commits: list[Commit] = field(default_factory=list)
    trimmed: int = 0
    states: list[Tables] = field(default_factory=list)
    page: int = 1_000

    @property
    def position(self) -> int:
        """Of the last change."""
        return self.tables.version

    def fail_over(self, lose: int = 0) -> None:
        """Promote the standby, which lacks the last commits if ``lose`` is above 0."""
        for _ in range(lose):
            self.commits.pop()
            self.tables.__dict__.update(self.states.pop().__dict__)
        self.states.clear()
        self.terms.insert(0, _new_term(self.position))
        self.tables.version += TERM_GAP

    def trim(self, kept: int = 0) -> None:
        """Remove the oldest commits."""
        gone = self.commits[: len(self.commits) - kept]
        if gone:
            self.trimmed = gone[-1].position
            del self.commits[: len(gone)]

    def index(self, after: int) -> Index:
        """The answer to a question."""
        commits = [commit for commit in self.commits if commit.position > after]
        page = commits[: self.page]
        complete = len(page) == len(commits)
        terms = tuple(self.terms)
        return Index(terms, self.position, self.trimmed, self.now, page, complete)


class Committed:
    """The ticket of a group."""

    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp

    def tag(self, bucket: int) -> Stamp:
        return self._stamp


async def _at_once() -> None:
    pass


class FakeSharedStore(FakeStore):
    """A node's connection to a ``FakeCluster``.

    Attributes:
        asked: the positions that questions named.
        selected: the keys of each read.
        before_ask, before_commit: awaited before the answer is worked out.
        after_ask, after_select, after_commit: awaited before it is delivered.
    """

    def __init__(
        self, cluster: FakeCluster, *, change_log_size: int = 65_536, one_by_one: int = 1_000
    ) -> None:
        super().__init__(cluster.tables, change_log_size=change_log_size, one_by_one=one_by_one)
        self.cluster = cluster
        self.asked: list[int] = []
        self.selected: list[list[str]] = []
        self.before_ask: Callable[[], Awaitable[object]] = _at_once
        self.after_ask: Callable[[], Awaitable[object]] = _at_once
        self.after_select: Callable[[], Awaitable[object]] = _at_once
        self.before_commit: Callable[[], Awaitable[object]] = _at_once
        self.after_commit: Callable[[], Awaitable[object]] = _at_once

    async def ask(self, after: int) -> Index:
        self._living(0.0)
        self.asked.append(after)
        await self.before_ask()
        index = self.cluster.index(after)
        await self.after_ask()
        return index

    async def read(self, keys: Sequence[str], now: float) -> list[Entry | None | StoreError]:
        entries, _ = await self.read_stamped(keys)
        return entries

    async def read_stamped(
        self, keys: Sequence[str], bulk: bool = False
    ) -> tuple[list[Entry | None | StoreError], Stamp]:
        self.selected.append(list(keys))
        entries = self._living(self.cluster.now)
        read: list[Entry | None | StoreError] = [entries.get(key) for key in keys]
        stamp = self._stamp()
        await self.after_select()
        return read, stamp

    async def commit(
        self, group: Sequence[PendingWrite], name_hash: NameHash
    ) -> GroupResult[Committed]:
        await self.before_commit()
        if not self._open:
            self.write_error = StoreUnavailable("closed")
        if self.write_error is not None:
            return GroupResult([self.write_error for _ in group], None)
        tables, outcomes, events = self._apply_group(group, self.cluster.now)
        ticket = None
        if events:
            cluster = self.cluster
            cluster.states.append(self._tables.copy())
            everything = any(event.kind is EventKind.RESET for event in events)
            hashes = None if everything else [name_hash(event.key) for event in events]
            cluster.commits.append(Commit(tables.version, hashes))
        self._tables.__dict__.update(tables.__dict__)
        if events:
            ticket = Committed(self._stamp())
        await self.after_commit()
        return GroupResult(outcomes, ticket)

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        for term in self.cluster.terms[:-1]:
            if term.inherited < after < term.inherited + TERM_GAP:
                return [], False
        return await super().changes(after, limit)

    def _living(self, now: float) -> dict[str, Entry]:
        return super()._living(self.cluster.now)

    def _stamp(self) -> Stamp:
        return Stamp(self.cluster.terms[0].epoch, self.cluster.position)


class ContractStore(FakeSharedStore):
    """Takes the time from its callers, and writes as a local store, as the contract's tests do."""

    async def write(
        self, group: Sequence[PendingWrite], now: float, seqlock: Seqlock[Ticket]
    ) -> GroupResult[Ticket]:
        self.cluster.now = now
        changed: set[str] = set()

        def note(key: str) -> int:
            changed.add(key)
            return 0

        with seqlock.lock():
            written = await self.commit(group, note)
            ticket = None
            if written.ticket is not None:
                ticket = seqlock.begin_write(changed or None)
                seqlock.commit(ticket)
        return GroupResult(written.outcomes, ticket)

    async def read(self, keys: Sequence[str], now: float) -> list[Entry | None | StoreError]:
        self.cluster.now = now
        return await super().read(keys, now)

    def _living(self, now: float) -> dict[str, Entry]:
        self.cluster.now = now or self.cluster.now
        return super()._living(now)
