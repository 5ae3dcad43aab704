"""A session: the connections to the primary of one term, and to its standby.

It is used only while everything about it is certain. After an error of a connection, a deadline, an
answer of another term or a warning, all of its connections are closed, and the store joins again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Final

from tenantbase.errors import StoreError, StoreUnavailable
from tenantbase.figures import SessionLoss
from tenantbase.interfaces.postgres.connection import Connection
from tenantbase.interfaces.postgres.driver_errors import WrongTerm
from tenantbase.interfaces.shared_store import Term
from tenantbase.lanes import Lanes


class Pool:
    """Connections for concurrent calls: one call at a time on each.

    Calls that wait for one get equal shares by lane.
    """

    def __init__(self, connections: Sequence[Connection]) -> None:
        self.connections: Final = connections
        self._free = list(connections)
        self._waiting: Lanes[asyncio.Future[Connection]] = Lanes()

    @asynccontextmanager
    async def take(
        self, deadline: float | None = None, lane: str = ""
    ) -> AsyncIterator[Connection]:
        """A connection, for the block. Once the session is abandoned, every call on it fails.

        Args:
            deadline: by the event loop's clock; until then it waits for one. None: as long as needed.

        Raises:
            StoreUnavailable: all of them are in use.
        """
        connection = self._free.pop() if self._free else await self._wait(deadline, lane)
        try:
            yield connection
        finally:
            self._give_back(connection)

    async def _wait(self, deadline: float | None, lane: str) -> Connection:
        turn: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiting.append(lane, turn)
        try:
            async with asyncio.timeout_at(deadline):
                return await turn
        except TimeoutError:
            if turn.done() and not turn.cancelled():  # it came at the same moment
                self._give_back(turn.result())
            raise StoreUnavailable("the database is busy with other requests") from None

    def _give_back(self, connection: Connection) -> None:
        while self._waiting:
            turn = self._waiting.take()
            if not turn.done():  # otherwise it was given up
                turn.set_result(connection)
                return
        self._free.append(connection)


class Session:
    """What was found out about a primary when joining, and the connections to it.

    Args:
        system, timeline: identify the server's history.
        secret: of the database.
        terms: of the database, newest first; the first is this primary's.
        standby: the name of the synchronous standby; empty without one.
        writer: for the one group that is being committed, and for settling its outcome.
        askers: for questions.
        readers: for everything else that is small.
        listers: for lists and bulk reads, so that they do not hold up the others.
        witnesses: connections to the synchronous standby; None: it is not asked.
    """

    def __init__(
        self,
        *,
        system: int,
        timeline: int,
        secret: bytes,
        terms: Sequence[Term],
        standby: str,
        writer: Connection,
        askers: Sequence[Connection],
        readers: Sequence[Connection],
        listers: Sequence[Connection],
        witnesses: Sequence[Connection],
    ) -> None:
        self.system: Final = system
        self.timeline: Final = timeline
        self.secret: Final = secret
        self.terms: Final = terms
        self.standby: Final = standby
        self.writer: Final = writer
        self.askers: Final = Pool(askers)
        self.readers: Final = Pool(readers)
        self.listers: Final = Pool(listers)
        self.witnesses: Final = Pool(witnesses) if witnesses else None
        self.ended = ""
        """Why it was abandoned; empty while it is used."""
        self.where = ""
        """The server that this is about, for the log; empty if it is about several."""
        self.loss = SessionLoss.CONNECTION
        """The same, as it is counted."""
        self.all: Final = [writer, *askers, *readers, *listers, *witnesses]
        for connection in self.all:
            connection.on_end = partial(self.abandon, where=str(connection.host))

    @property
    def epoch(self) -> bytes:
        return self.terms[0].epoch

    def abandon(
        self, why: str, loss: SessionLoss = SessionLoss.CONNECTION, *, where: str = ""
    ) -> None:
        """Close all connections at once. Every call in flight on them fails with SessionLost.

        Args:
            why: in words that clients may see.
            where: the server that it is about.
        """
        if not self.ended:
            self.ended, self.loss, self.where = why, loss, where
            for connection in self.all:
                connection.terminate(why)

    def abandon_after(self, error: StoreError) -> None:
        """Abandon it because of an error that every further call would meet, too."""
        promoted = isinstance(error, WrongTerm)
        self.abandon(str(error), SessionLoss.TERM if promoted else SessionLoss.CONNECTION)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Abandon the session if the block takes longer."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds, self._abandon_late, seconds)
        try:
            yield
        finally:
            timer.cancel()

    def _abandon_late(self, seconds: float) -> None:
        """Abandon it because of an answer that did not come in time."""
        primary = self.writer.host
        waiting = [connection.host for connection in self.all if connection.calls]
        why = f"no answer within {seconds:.1f} s"
        if self.standby and primary in waiting:  # its COMMIT may wait for the standby
            why = f"{why}, or no confirmation by the synchronous standby {self.standby!r}"
        elif waiting and primary not in waiting:
            why = f"{why} from the synchronous standby {self.standby!r}"
        where = waiting[0] if waiting and primary not in waiting else primary
        self.abandon(why, SessionLoss.TIMEOUT, where=str(where))
