"""PostgreSQL behind the ``SharedStore`` Protocol.

Every call runs in a task of its own, to its end or to its deadline: a cancelled call would leave its
connection in the middle of a statement. Sessions are in ``sessions.py``, confirmed answers in
``confirmation.py``, statements in ``queries.py``, groups of writes in ``writing.py``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self, TypeVar
from uuid import UUID

from tenantbase.access import Access
from tenantbase.background import ended
from tenantbase.entry import Entry
from tenantbase.errors import Damaged, StoreError
from tenantbase.events import ChangeEvent
from tenantbase.figures import (
    DOUBTS,
    SESSIONS_LOST,
    STORE_REPLICATED,
    DoubtEnd,
    private_cells,
)
from tenantbase.interfaces.postgres import queries
from tenantbase.interfaces.postgres.access import read_access
from tenantbase.interfaces.postgres.address import DatabaseAddress
from tenantbase.interfaces.postgres.confirmation import NOTHING, Confirm, Confirmer, Head, Question
from tenantbase.interfaces.postgres.connection import SNAPSHOT, Connection
from tenantbase.interfaces.postgres.damage import read_apart
from tenantbase.interfaces.postgres.joining import DEFAULT_SIZES, Joiner, Sizes, begins_after
from tenantbase.interfaces.postgres.session import Pool, Session
from tenantbase.interfaces.postgres.sessions import PoolOf, Sessions, Work
from tenantbase.interfaces.postgres.settling import Settler
from tenantbase.interfaces.postgres.state import read_state
from tenantbase.interfaces.postgres.writing import Committer
from tenantbase.interfaces.shared_store import Committed, Index, NameHash, Stamp
from tenantbase.interfaces.store import GroupResult, PendingWrite, StoreSize
from tenantbase.listing import EntryMeta, Folded, KeyRange
from tenantbase.plain_entries import Render
from tenantbase.scope import ScopedKey, tenant_of
from tenantbase.troubles import Trouble, Troubles

Result = TypeVar("Result")

_MOST_POSITION: Final = (1 << 63) - 1
_CHECK_SECONDS: Final = 2.0
# The server's share of the time for a read; the rest is for the wait for a connection. A slow
# statement's own timeout ends it first.
_ANSWER_PART: Final = 0.6


def _askers(session: Session) -> Pool:
    return session.askers


def _readers(session: Session) -> Pool:
    return session.readers


def _listers(session: Session) -> Pool:
    return session.listers


class PostgresStore:
    """The entries of a database on PostgreSQL, which several nodes share. Made with ``open``."""

    def __init__(
        self,
        sessions: Sessions,
        confirmer: Confirmer,
        secret: bytes,
        *,
        timeout: float,
        write_timeout: float,
        read_timeout: float,
        change_log_size: int,
        figures: memoryview,
        troubles: Troubles,
    ) -> None:
        self._sessions = sessions
        self._confirmer = confirmer
        self._secret = secret
        self._timeout = timeout
        self._figures = figures
        self._troubles = troubles
        self._read_timeout = read_timeout
        self._tasks: set[asyncio.Task[Any]] = set()
        self._settler = Settler(sessions, confirmer, timeout, self._start, figures)
        self._committer = Committer(
            sessions, confirmer, timeout, write_timeout, change_log_size, self._settler, figures
        )

    @classmethod
    async def open(
        cls,
        address: DatabaseAddress,
        *,
        confirm: Confirm = Confirm.STANDBY,
        replicated: bool = True,
        timeout: float = 2.0,
        write_timeout: float = 5.0,
        read_timeout: float = 5.0,
        change_log_size: int = 65_536,
        sizes: Sizes = DEFAULT_SIZES,
        figures: memoryview | None = None,
    ) -> Self:
        """Connect to the primary, creating or upgrading the tables as needed.

        Args:
            address: of all the servers that may be the primary.
            confirm: how answers are confirmed.
            replicated: there must be a synchronous standby. Without one, what was acknowledged can be
                lost with the server.
            timeout: seconds for the database to answer; then another server is looked for.
            write_timeout: seconds until the outcome of a write is told in any case.
            read_timeout: seconds that a read or a list may take.
            change_log_size: how many changes the change log keeps.
            sizes: how many connections there are.
            figures: the worker's cells (``figures.py``); None: private ones.

        Raises:
            CannotOpen: one line that names the servers and says why.
        """
        confirmer = Confirmer(confirm, replicated=replicated)
        joiner = Joiner(
            address,
            confirmer.mode,
            replicated=replicated,
            timeout=timeout,
            write_timeout=write_timeout,
            read_timeout=read_timeout,
            sizes=sizes,
        )
        opening = asyncio.ensure_future(joiner.join())
        try:
            session = await asyncio.shield(opening)
        except asyncio.CancelledError:
            await asyncio.wait([opening])
            if opening.exception() is None:
                opening.result().abandon("opening was cancelled")
            raise
        figures = private_cells() if figures is None else figures
        figures[STORE_REPLICATED] = replicated
        troubles = Troubles(time.monotonic)
        return cls(
            Sessions(joiner, session, figures, troubles),
            confirmer,
            session.secret,
            timeout=timeout,
            write_timeout=write_timeout,
            read_timeout=read_timeout,
            change_log_size=change_log_size,
            figures=figures,
            troubles=troubles,
        )

    @property
    def secret(self) -> bytes:
        return self._secret

    @property
    def troubles(self) -> list[Trouble]:
        return self._troubles.lasting

    @property
    def sessions_lost(self) -> int:
        """How many sessions were given up, as its cells count them."""
        return sum(self._figures[cell] for cell in SESSIONS_LOST.values())

    @property
    def doubts(self) -> dict[DoubtEnd, int]:
        """How many groups of writes were in doubt, and how that ended, as its cells count them."""
        return {end: self._figures[cell] for end, cell in DOUBTS.items()}

    async def ask(self, after: int) -> Index:
        async def ask(session: Session, connection: Connection) -> Index:
            head, rows = await self._confirmer.ask(session, connection, queries.ASK, after)
            return queries.index_of(session.terms, head.position, head.trimmed, head.now, rows)

        return await self._use(_askers, ask, answer=self._timeout)

    async def read(self, keys: Sequence[str], now: float) -> list[Entry | None | StoreError]:
        entries, _ = await self.read_stamped(keys)
        return entries

    async def read_stamped(
        self, keys: Sequence[str], bulk: bool = False
    ) -> tuple[list[Entry | None | StoreError], Stamp]:
        wanted = list(dict.fromkeys(keys))
        largest = queries.READ_BYTES // max(len(wanted), 1)

        async def read(
            session: Session, connection: Connection
        ) -> tuple[list[Entry | None | StoreError], Stamp]:
            head, rows = await self._confirmer.ask(
                session, connection, queries.READ, wanted, largest
            )
            if queries.has_left_out(rows):
                head, rows = await self._confirmer.ask(
                    session, connection, queries.READ_IN_ORDER, wanted, queries.READ_BYTES
                )
            return queries.entries_of(keys, rows), Stamp(session.epoch, head.position)

        async def apart(
            session: Session, connection: Connection
        ) -> tuple[list[Entry | None | StoreError], Stamp]:
            head, found = await read_apart(self._confirmer, session, connection, wanted)
            return [found[key] for key in keys], Stamp(session.epoch, head.position)

        pool_of = _listers if bulk else _readers
        try:
            return await self._use(pool_of, read)
        except Damaged:
            return await self._use(pool_of, apart)

    async def scan(
        self,
        wanted: KeyRange,
        limit: int,
        max_bytes: int,
        now: float,
        render: Render | None = None,
    ) -> tuple[list[Entry | Folded], bool]:
        items = queries.listed(await self._list(wanted, limit, max_bytes, values=True))
        size = sum(len(item.value) for item in items[:limit] if isinstance(item, Entry))
        return items[:limit], len(items) > limit or size >= max_bytes

    async def scan_meta(
        self, wanted: KeyRange, limit: int, now: float
    ) -> tuple[list[EntryMeta | Folded], bool]:
        items = queries.listed_meta(await self._list(wanted, limit, _MOST_POSITION, values=False))
        return items[:limit], len(items) > limit

    async def count(
        self, wanted: KeyRange, limit: int, now: float
    ) -> tuple[int, int, ScopedKey | None]:
        _, ((entries, size, last),) = await self._ask(
            _listers, queries.COUNT, *queries.bounds(wanted), limit, lane=tenant_of(wanted.prefix)
        )
        return entries, size, ScopedKey(last) if entries == limit and last is not None else None

    @asynccontextmanager
    async def counting(self, prefix: str, now: float) -> AsyncIterator[None]:
        yield  # the commit counts, before it takes the lock

    async def commit(
        self, group: Sequence[PendingWrite], name_hash: NameHash
    ) -> GroupResult[Committed]:
        made = await asyncio.shield(self._start(self._committer.commit(group, name_hash)))
        for each in made.outcomes:
            self._notice(each)
        return made

    async def settle(self, token: UUID, seconds: float) -> tuple[bool, int | None]:
        """See ``Settler.settle``."""
        return await asyncio.shield(self._start(self._settler.settle(token, seconds)))

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        within = 0 <= after <= _MOST_POSITION

        async def read(session: Session, connection: Connection) -> tuple[list[ChangeEvent], bool]:
            head, rows = await self._confirmer.ask(
                session, connection, queries.CHANGES, after if within else 0, limit
            )
            first = (rows[0][0] or 1) - 1
            if not (within and first <= after <= head.position) or _lost(session, after):
                return [], False
            return queries.events_of(rows), True

        return await self._use(_readers, read)

    async def last_version(self) -> int:
        head, _ = await self._ask(_readers, NOTHING)
        return head.position

    async def access(self, known: int | None) -> Access | None:
        async def read(session: Session, connection: Connection) -> Access | None:
            head, _ = await self._confirmer.ask(session, connection, NOTHING)
            if head.access == known:
                return None
            async with connection.transaction(SNAPSHOT):
                found = await read_access(connection)
            await self._confirmer.confirm(session, connection)
            return found

        return await self._use(_readers, read)

    async def size(self) -> StoreSize:
        size, troubles = await self._use(_readers, read_state)
        for trouble, detail in troubles.items():
            if detail is None:
                self._troubles.over(trouble)
            else:
                self._troubles.met(trouble, detail)
        return size

    async def check(self) -> None:
        await self._ask(_askers, NOTHING, seconds=_CHECK_SECONDS)

    async def close(self) -> None:
        await ended(self._start(self._close()))

    async def _close(self) -> None:
        self._sessions.end()
        others = self._tasks - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)
        await self._sessions.close()

    async def _list(
        self, wanted: KeyRange, limit: int, max_bytes: int, *, values: bool
    ) -> Sequence[Any]:
        low, high = queries.bounds(wanted)
        _, rows = await self._ask(
            _listers,
            queries.LIST,
            low,
            high,
            len(wanted.prefix),
            wanted.delimiter,
            wanted.descending,
            limit + 1,
            max_bytes,
            values,
            lane=tenant_of(wanted.prefix),
        )
        return rows

    async def _ask(
        self,
        pool_of: PoolOf,
        question: Question,
        *args: object,
        seconds: float = 0.0,
        lane: str = "",
    ) -> tuple[Head, Sequence[Any]]:
        async def ask(session: Session, connection: Connection) -> tuple[Head, Sequence[Any]]:
            return await self._confirmer.ask(session, connection, question, *args)

        return await self._use(pool_of, ask, seconds=seconds, lane=lane)

    async def _use(
        self,
        pool_of: PoolOf,
        work: Work[Result],
        *,
        seconds: float = 0.0,
        answer: float = 0.0,
        lane: str = "",
    ) -> Result:
        seconds = seconds or self._read_timeout
        answer = min(answer or seconds * _ANSWER_PART, seconds)
        using = self._sessions.use(pool_of, work, seconds=seconds, answer=answer, lane=lane)
        try:
            return await asyncio.shield(self._start(using))
        except StoreError as error:
            self._notice(error)
            raise

    def _notice(self, outcome: object) -> None:
        """Note the trouble behind an error. That one is over is noticed when the size is read next."""
        if isinstance(outcome, StoreError) and outcome.trouble is not None:
            self._troubles.met(outcome.trouble, str(outcome))

    def _start(self, work: Coroutine[None, None, Result]) -> asyncio.Task[Result]:
        """Run a coroutine to its end, even if its caller is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _lost(session: Session, position: int) -> bool:
    """Whether a position was given out by a deposed primary, in a history that was lost."""
    return any(term.inherited < position < begins_after(term) for term in session.terms[:-1])
