"""Finds out what became of a group whose COMMIT was not answered, by its token."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from operator import attrgetter
from typing import Final, NamedTuple
from uuid import UUID

from tenantbase.errors import StoreUnavailable
from tenantbase.figures import DOUBTS, DoubtEnd
from tenantbase.interfaces.planning.named import Outcome
from tenantbase.interfaces.postgres import queries
from tenantbase.interfaces.postgres.confirmation import Confirmer
from tenantbase.interfaces.postgres.connection import Connection
from tenantbase.interfaces.postgres.driver_errors import Unsettled
from tenantbase.interfaces.postgres.session import Session
from tenantbase.interfaces.postgres.sessions import Sessions

log = logging.getLogger("tenantbase")

_MARK: Final = """
    INSERT INTO commits (token, made, number, at) VALUES ($1, false, 0, present())
    ON CONFLICT (token) DO NOTHING
"""
_RESOLVE_SECONDS: Final = 600.0
"""How long to look for an outcome in doubt. After that, the group can no longer be made."""


class Doubt(Exception):
    """A COMMIT was not answered.

    Attributes:
        outcomes: the group's, if it was made, given the position before it.
        changes: how many positions it would have taken.
    """

    def __init__(self, outcomes: Callable[[int], list[Outcome]], changes: int, why: str) -> None:
        super().__init__(why)
        self.outcomes = outcomes
        self.changes = changes


class Made(NamedTuple):
    """A group that was made. ``position``: its last change's; None: it changed no key."""

    outcomes: list[Outcome]
    position: int | None


class Settler:
    """Finds out what became of groups, by their tokens.

    Args:
        timeout: seconds for the database to answer, before the session is given up.
        start: runs something in the background, to its end.
        figures: the worker's cells.
    """

    def __init__(
        self,
        sessions: Sessions,
        confirmer: Confirmer,
        timeout: float,
        start: Callable[[Coroutine[None, None, None]], object],
        figures: memoryview,
    ) -> None:
        self._sessions = sessions
        self._confirmer = confirmer
        self._timeout = timeout
        self._start = start
        self._figures = figures

    async def settle_doubt(self, token: UUID, doubt: Doubt, deadline: float) -> Made:
        """What became of a group in doubt.

        Raises:
            StoreUnavailable: it was not made, and never will be.
            Unsettled: it cannot be found out in time.
        """
        left = deadline - asyncio.get_running_loop().time()
        try:
            made, position = await self.settle(token, left)
        except StoreUnavailable as error:
            self._figures[DOUBTS[DoubtEnd.UNKNOWN]] += 1
            self._start(self._resolve(token))
            raise Unsettled(f"it is not known whether the write was made: {error}") from error
        if not made:
            self._figures[DOUBTS[DoubtEnd.NOT_MADE]] += 1
            raise StoreUnavailable(f"the write was not made: {doubt}")
        self._figures[DOUBTS[DoubtEnd.MADE]] += 1
        return Made(doubt.outcomes((position or 0) - doubt.changes), position)

    async def settle(self, token: UUID, seconds: float) -> tuple[bool, int | None]:
        """Whether the group of a token was made, and the position of its last change.

        If it was not, it never will be: the token is marked.

        Raises:
            StoreUnavailable: it cannot be found out in time.
        """

        async def look(session: Session, connection: Connection) -> tuple[bool, int | None]:
            # This waits for a transaction that holds the token. The answer must be confirmed, too: its
            # row may be a mark that an earlier attempt left unconfirmed.
            await connection.fetch(_MARK, token)
            _, ((made, position),) = await self._confirmer.ask(
                session, connection, queries.SETTLED, token
            )
            return made, position

        return await self._sessions.use(
            attrgetter("readers"), look, seconds=max(seconds, 0.0), answer=self._timeout
        )

    async def _resolve(self, token: UUID) -> None:
        try:
            made, _ = await self.settle(token, _RESOLVE_SECONDS)
        except StoreUnavailable as error:
            log.error("the outcome of a group of writes could not be found out: %s", error)
        else:
            outcome = "was made" if made else "was not made"
            log.warning("a group of writes whose outcome was not known %s", outcome)
