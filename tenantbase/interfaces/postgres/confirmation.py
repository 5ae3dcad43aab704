"""Confirmation: whether an answer came from the only server that can acknowledge writes.

After a promotion, the deposed primary still answers plain queries, with old values, and says that it is
not in recovery. It also shows commits that its standby never received. So an answer counts only if, at
some moment after the question, the synchronous standby had everything that the answer shows, and was
still a standby: only that standby may be promoted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from tenantbase.figures import SessionLoss
from tenantbase.interfaces.postgres.connection import Connection
from tenantbase.interfaces.postgres.driver_errors import SessionLost, WrongTerm
from tenantbase.interfaces.postgres.session import Session

_WITNESS_TRIES: Final = 3  # the standby applies what it has received a moment later


class Confirm(StrEnum):
    """How answers are confirmed.

    COMMIT: the question is a tiny transaction, whose COMMIT waits for the synchronous standby.
    STANDBY: that standby is asked at the same time. If it lags, the question is asked by COMMIT.
    NONE: they are not. Something else guarantees that there is only one primary.
    """

    COMMIT = "commit"
    STANDBY = "standby"
    NONE = "none"


class Head(NamedTuple):
    """What every answer begins with.

    Attributes:
        position: of the last change that it shows.
        now: the database's time in Unix seconds.
        access: the version of tenants, limits and tokens.
        prefixes: the position of the last deletion of a large prefix.
    """

    position: int
    now: float
    access: int
    prefixes: int
    trimmed: int


_HEAD: Final = """
    WITH head AS MATERIALIZED (
        SELECT position, greatest(at, present(), $1::double precision) AS now, access, prefixes,
            trimmed, epoch, current_setting('synchronous_standby_names') AS names, {} AS confirming
        FROM clock
    )
"""
_HEAD_COLUMNS: Final = (
    "position",
    "now",
    "access",
    "prefixes",
    "trimmed",
    "epoch",
    "names",
    "confirming",
)
_COMMITTING: Final = "pg_logical_emit_message(true, 'tenantbase', '')::text"


class Question(NamedTuple):
    """A statement, plain and as a tiny transaction. Its first parameter is a time that has passed.

    Rows begin with the columns of the head.
    """

    plain: str
    committing: str

    @classmethod
    def make(cls, columns: str, joined: str = "") -> Question:
        """A question from its columns, and what is joined with ``head``, which has one row."""
        head = ", ".join(f"head.{name}" for name in _HEAD_COLUMNS)
        listed = f"{head}, {columns}" if columns else head
        statement = f"{{}} SELECT {listed} FROM head {joined}"
        return cls(*(statement.format(_HEAD.format(each)) for each in ("''", _COMMITTING)))


NOTHING: Final = Question.make("")
_WITNESS: Final = "SELECT pg_is_in_recovery(), epoch, position FROM clock"
_NAME: Final = r'(?:"(?:[^"]|"")+"|[^\s",()*]+)'
_CANDIDATE: Final = re.compile(
    rf"\s*(?:(?:(?:FIRST|ANY)\s+)?1\s*\(\s*({_NAME})\s*\)|({_NAME}))\s*", re.IGNORECASE
)


def candidate(names: str) -> str | None:
    """The name of the only standby in ``synchronous_standby_names``.

    None: there is none, or there are several, or any will do. With several, one of them may be promoted
    while the deposed primary goes on committing with another.
    """
    found = _CANDIDATE.fullmatch(names)
    if found is None:
        return None
    name = found[1] or found[2]
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


class Confirmer:
    """Asks questions whose answers are confirmed.

    Args:
        mode: how.
        replicated: there must be a synchronous standby.
    """

    def __init__(self, mode: Confirm, *, replicated: bool) -> None:
        self.replicated: Final = replicated
        # Without a standby there is none to ask, and nothing to wait for.
        self.mode: Final = mode if replicated or mode is Confirm.COMMIT else Confirm.NONE
        self.latest = 0.0
        """The latest time that any answer had. A new primary's clock may be slow."""

    async def ask(
        self, session: Session, connection: Connection, question: Question, *args: object
    ) -> tuple[Head, Sequence[Any]]:
        """The answer to a question, confirmed: its head, and its rows after the head's columns.

        Raises:
            StoreUnavailable: it cannot be confirmed.
            SessionLost, WrongTerm: nor can any other answer of this session.
        """
        if self.mode is Confirm.STANDBY and session.witnesses is not None:
            answer, confirmed = await self._ask_both(session, connection, question, *args)
            if confirmed:
                return answer
        if self.mode is Confirm.NONE:
            return await self.look(session, connection, question, *args)
        return self._answer(
            session, connection, await connection.fetch(question.committing, self.latest, *args)
        )

    async def look(
        self, session: Session, connection: Connection, question: Question, *args: object
    ) -> tuple[Head, Sequence[Any]]:
        """As ``ask``, not confirmed."""
        return self._answer(
            session, connection, await connection.fetch(question.plain, self.latest, *args)
        )

    async def confirm(self, session: Session, connection: Connection) -> None:
        """Confirm everything that was read on this session before. Raises as ``ask``."""
        await self.ask(session, connection, NOTHING)

    async def _ask_both(
        self, session: Session, connection: Connection, question: Question, *args: object
    ) -> tuple[tuple[Head, Sequence[Any]], bool]:
        assert session.witnesses is not None
        async with session.witnesses.take() as witness:
            # Both have ended before an error is raised: a connection runs one statement at a time.
            asking = asyncio.ensure_future(connection.fetch(question.plain, self.latest, *args))
            witnessing = asyncio.ensure_future(witness.fetch(_WITNESS))
            await asyncio.wait([asking, witnessing])
            witnessing.exception()  # if both have failed, asyncio would report the one that is not raised
            rows, seen = asking.result(), witnessing.result()
            answer = self._answer(session, connection, rows)
            for _ in range(_WITNESS_TRIES):
                (in_recovery, epoch, position), *_ = seen
                if not in_recovery or epoch != session.epoch:
                    raise WrongTerm("the standby was promoted")
                if position >= answer[0].position:
                    return answer, True
                seen = await witness.fetch(_WITNESS)
            return answer, False

    def _answer(
        self, session: Session, connection: Connection, rows: Sequence[Any]
    ) -> tuple[Head, Sequence[Any]]:
        *head, epoch, names, _ = rows[0][: len(_HEAD_COLUMNS)]
        if epoch != session.epoch:
            raise WrongTerm("another database server is the primary now")
        if self.replicated and candidate(names) != session.standby:
            # Whose word counts must be known before the question is asked.
            why = f"synchronous_standby_names has changed from {session.standby!r} to {names!r}"
            session.abandon(why, SessionLoss.STANDBY, where=str(connection.host))
            raise SessionLost(why)
        made = Head(*head)
        self.latest = max(self.latest, made.now)
        return made, [row[len(_HEAD_COLUMNS) :] for row in rows]
