"""Keeps a session open: joins again whenever the last one was abandoned."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from tenantbase.errors import CannotOpen, StoreUnavailable
from tenantbase.figures import SESSIONS_LOST
from tenantbase.interfaces.postgres.connection import Connection
from tenantbase.interfaces.postgres.driver_errors import Retry, SessionLost, WrongTerm
from tenantbase.interfaces.postgres.joining import Joiner
from tenantbase.interfaces.postgres.session import Pool, Session
from tenantbase.troubles import Trouble, Troubles

log = logging.getLogger("tenantbase")

Result = TypeVar("Result")
PoolOf = Callable[[Session], Pool]
Work = Callable[[Session, Connection], Awaitable[Result]]

_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0
_CLOSED: Final = "the database is closed"
_NO_PRIMARY: Final = "no primary server can be used"


class Sessions:
    """The current session, and those that follow it.

    Args:
        joiner: opens sessions.
        first: the first one.
        figures: the worker's cells, for the sessions that were given up.
        troubles: notes that the standby does not confirm, until there is a session again.
    """

    def __init__(
        self, joiner: Joiner, first: Session, figures: memoryview, troubles: Troubles
    ) -> None:
        self._joiner = joiner
        self._current = first
        self._joining: asyncio.Task[None] | None = None
        self._troubles = troubles
        self._why = ""
        self._closed = False
        self._figures = figures

    async def current(self, deadline: float) -> Session:
        """The current session; waits for one until ``deadline``, by the event loop's clock.

        Raises:
            StoreUnavailable: there is none, and why.
        """
        if self._closed:
            raise StoreUnavailable(_CLOSED)
        if not self._current.ended:
            return self._current
        loop = asyncio.get_running_loop()
        if self._joining is None:
            self._figures[SESSIONS_LOST[self._current.loss]] += 1
            lost = self._current
            self._why = lost.ended
            where = f"{lost.where}: " if lost.where else ""
            log.warning("the session with the database was lost: %s%s", where, lost.ended)
            self._joining = loop.create_task(self._join())
        await asyncio.wait([self._joining], timeout=max(0.0, deadline - loop.time()))
        if self._closed:
            raise StoreUnavailable(_CLOSED)
        if self._current.ended:
            raise StoreUnavailable(f"the database is not available: {self._why}")
        return self._current

    async def use(
        self,
        pool_of: PoolOf,
        work: Work[Result],
        *,
        seconds: float,
        answer: float,
        lane: str = "",
    ) -> Result:
        """Do something that may be repeated on a connection, in several sessions if need be.

        Args:
            pool_of: which of a session's connections.
            seconds: until it is given up.
            answer: seconds that the server may take, before the session is given up. The wait for
                a connection is not a part of them: what is busy is not lost.
            lane: calls that wait for a connection get equal shares by lane.

        Raises:
            StoreUnavailable: it could not be done.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            session = await self.current(deadline)
            try:
                async with pool_of(session).take(deadline - answer, lane) as connection:
                    with session.within(min(answer, max(deadline - loop.time(), 0.0))):
                        return await work(session, connection)
            except (SessionLost, WrongTerm, Retry) as error:
                if not isinstance(error, Retry):
                    session.abandon_after(error)
                if loop.time() >= deadline:
                    raise StoreUnavailable(str(error)) from error

    def end(self) -> None:
        """Give no more sessions. The current one stays open for what is in flight."""
        self._closed = True

    async def close(self) -> None:
        """Close the session."""
        self._current.abandon(_CLOSED)
        if self._joining is not None:
            await self._joining

    async def _join(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        said = ""
        try:
            while not self._closed:
                try:
                    session = await self._joiner.join()
                except CannotOpen as error:
                    # Clients are told the reason, but no addresses.
                    self._why = _NO_PRIMARY if error.trouble is None else str(error.trouble)
                    if error.trouble is not None:
                        self._troubles.met(error.trouble, str(error))
                    elif str(error) != said:
                        said = str(error)
                        log.warning("%s", said)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                else:
                    self._current = session
                    if self._closed:
                        session.abandon(_CLOSED)
                    self._troubles.over(Trouble.NOT_CONFIRMED)
                    log.warning(
                        "joined the database again, at %s on timeline %d",
                        session.writer.host,
                        session.timeline,
                    )
                    return
        finally:
            self._joining = None
