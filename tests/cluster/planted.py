"""Planted bugs: tests prove nothing unless they find them, by chance or with a staged race.

Each breaks one rule of the read index, named as in ``tests/cluster_model/state.py``, in a node under
test. They replace parts of the product at run time; the product has no switch for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec

from tenantbase.coherence.authority import Answer, Tag
from tenantbase.coherence.change_table import ChangeTable
from tenantbase.coherence.read_index import ReadIndex
from tenantbase.errors import StoreUnavailable
from tenantbase.interfaces.postgres import joining, queries
from tenantbase.interfaces.postgres.confirmation import Confirmer, Question
from tenantbase.interfaces.postgres.connection import Connection
from tenantbase.interfaces.postgres.session import Session
from tenantbase.interfaces.postgres.settling import Settler
from tenantbase.interfaces.postgres.store import PostgresStore
from tenantbase.interfaces.postgres.writing import Committer, Ticket
from tenantbase.interfaces.shared_store import Index, Stamp, Term

_LATE_SECONDS: Final = 0.02


def _never_ask() -> None:
    """Reads trust the position that the node remembers; a question now and then updates it."""
    ask = ReadIndex.tags

    def tags(self: ReadIndex, buckets: Sequence[int]) -> Any:
        remembered = self.remembered(buckets, max_age=1.0)
        return ask(self, buckets) if remembered is None else remembered.tags

    ReadIndex.tags = tags  # type: ignore[method-assign]


def _join_questions() -> None:
    """A read joins a question that was sent before it began."""
    ask = PostgresStore.ask
    running: list[asyncio.Future[Index]] = []

    async def joined(self: PostgresStore, after: int) -> Index:
        if running:
            return await asyncio.shield(running[0])
        asking = asyncio.ensure_future(ask(self, after))
        running.append(asking)
        try:
            return await asking
        finally:
            running.clear()

    PostgresStore.ask = joined  # type: ignore[method-assign]


def _unconfirmed(*questions: Question) -> Callable[[], None]:
    """Answers to these questions are not confirmed."""

    def plant() -> None:
        confirmed = Confirmer.ask

        async def ask(
            self: Confirmer,
            session: Session,
            connection: Connection,
            question: Question,
            *args: object,
        ) -> Any:
            if question in questions:
                return await self.look(session, connection, question, *args)
            return await confirmed(self, session, connection, question, *args)

        Confirmer.ask = ask  # type: ignore[method-assign]

    return plant


def _do_not_compare() -> None:
    def accepts(self: ChangeTable, sealed: Tag, current: Tag) -> bool:
        return bool(sealed[0] == current[0])

    ChangeTable.accepts = accepts  # type: ignore[method-assign]


def _alter_answers(alter: Callable[[ChangeTable, Index], Index]) -> None:
    enter = ChangeTable.enter

    def altered(self: ChangeTable, index: Index, after: int, *, shorten: bool = False) -> bool:
        return enter(self, alter(self, index), after, shorten=shorten)

    ChangeTable.enter = altered  # type: ignore[method-assign]


def _forget_prefixes() -> None:
    """A commit that may have changed any key changes none."""

    def alter(table: ChangeTable, index: Index) -> Index:
        known = [commit for commit in index.commits if commit.hashes is not None]
        return msgspec.structs.replace(index, commits=known, complete=True)

    _alter_answers(alter)


def _join_without_floor() -> None:
    """A node that starts believes items from before, without knowing what has changed since."""

    def alter(table: ChangeTable, index: Index) -> Index:
        if table.position == 0:
            return msgspec.structs.replace(index, commits=[], trimmed=0, complete=True)
        return index

    _alter_answers(alter)


def _position_afterwards() -> None:
    """The item's position is asked for after the row was read."""
    read = PostgresStore.read_stamped

    async def read_stamped(self: PostgresStore, keys: Sequence[str], bulk: bool = False) -> Any:
        entries, _ = await read(self, keys, bulk)
        await asyncio.sleep(_LATE_SECONDS)
        _, later = await read(self, [])
        return entries, later

    PostgresStore.read_stamped = read_stamped  # type: ignore[method-assign]


def _foreign_position() -> None:
    """A writer publishes under a position that it has not written."""

    def tag(self: Ticket, bucket: int) -> Stamp:
        return self.stamp._replace(position=self.stamp.position + 5)

    Ticket.tag = tag  # type: ignore[method-assign]


def _acknowledge_alone() -> None:
    """COMMIT does not wait for the standby."""
    attempt = Committer._attempt

    async def alone(self: Committer, session: Session, *args: Any) -> Any:
        await session.writer.execute("SET synchronous_commit = local")
        return await attempt(self, session, *args)

    Committer._attempt = alone  # type: ignore[method-assign, assignment]


def _ignore_warnings() -> None:
    """A COMMIT whose wait was cancelled counts."""
    Connection._hear = lambda self, driver, message: None  # type: ignore[method-assign]


def _leave_no_mark() -> None:
    """Whether a group was made is only looked up: a COMMIT on its way may come later."""

    async def settle(self: Settler, token: Any, seconds: float) -> tuple[bool, int | None]:
        async def look(session: Session, connection: Connection) -> tuple[bool, int | None]:
            _, ((made, position),) = await self._confirmer.ask(
                session, connection, queries.SETTLED, token
            )
            return bool(made), position

        seconds = max(seconds, 0.0)
        return await self._sessions.use(
            attrgetter("readers"), look, seconds=seconds, answer=seconds
        )

    Settler.settle = settle  # type: ignore[method-assign]


def _doubt_is_failure() -> None:
    """A COMMIT without an answer counts as not made."""

    async def settle_doubt(self: Settler, token: Any, doubt: Any, deadline: float) -> Any:
        raise StoreUnavailable("the write was not made")

    Settler.settle_doubt = settle_doubt  # type: ignore[method-assign]


def _begin_at_one_distance() -> None:
    """All terms begin equally far above what they inherited."""

    def begins_after(term: Term) -> int:
        return term.inherited + (1 << 20)

    joining.begins_after = begins_after


def _judge_by_an_old_time() -> None:
    """A copy's expiry is judged by the time in the node's first answer."""
    answer = ReadIndex._answer

    async def answered(self: ReadIndex, batches: Sequence[Sequence[int]]) -> list[Answer]:
        answers = await answer(self, batches)
        first = vars(self).setdefault("first_now", answers[0].now)
        return [each._replace(now=first) for each in answers]

    ReadIndex._answer = answered  # type: ignore[method-assign]


BUGS: Final[dict[str, Callable[[], None]]] = {
    "ask": _never_ask,
    "ask-after-begin": _join_questions,
    "confirm-index": _unconfirmed(queries.ASK),
    "confirm-row": _unconfirmed(queries.READ),
    "compare": _do_not_compare,
    "any-key": _forget_prefixes,
    "snapshot-position": _position_afterwards,
    "own-position": _foreign_position,
    "ack-after-standby": _acknowledge_alone,
    "warning-is-no-ack": _ignore_warnings,
    "token": _leave_no_mark,
    "doubt-is-failure": _doubt_is_failure,
    "outcome-confirmed": _unconfirmed(queries.SETTLED),
    "join-floor": _join_without_floor,
    "term-distance": _begin_at_one_distance,
    "expiry-now": _judge_by_an_old_time,
}
