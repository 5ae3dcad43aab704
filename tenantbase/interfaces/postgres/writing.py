"""Commits groups, and finds out what became of those whose COMMIT was not answered.

A group whose transactions all name their keys is worked out from rows that were read without a lock, and
committed by one call, which checks that they are still the same. If others were faster twice, or a
transaction stands alone, the group takes the lock first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import groupby
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

from tenantbase.commands import Set, Sweep, Transaction
from tenantbase.errors import Damaged, StoreError, StoreUnavailable
from tenantbase.figures import (
    COMMIT_DURATION,
    COMMIT_WRITES,
    LOCK_WAIT,
    SECOND,
)
from tenantbase.interfaces.planning.named import Outcome, stands_alone
from tenantbase.interfaces.planning.usage import TenantUsage
from tenantbase.interfaces.postgres import queries
from tenantbase.interfaces.postgres.access import KnownTenants, read_usage
from tenantbase.interfaces.postgres.alone import Upkeep, apply_alone, expired_rows, prepare
from tenantbase.interfaces.postgres.confirmation import Confirmer, Head
from tenantbase.interfaces.postgres.driver_errors import (
    Defeated,
    Retry,
    SessionLost,
    WrongTerm,
)
from tenantbase.interfaces.postgres.plan import (
    ExpiredNeeded,
    Plan,
    PlannedRows,
    depends_on_base,
    keys_of,
)
from tenantbase.interfaces.postgres.prefixes import NONE_COUNTED, Counts, LargePrefix, counting
from tenantbase.interfaces.postgres.session import Session
from tenantbase.interfaces.postgres.sessions import Sessions
from tenantbase.interfaces.postgres.settling import Doubt, Made, Settler
from tenantbase.interfaces.postgres.transaction import Transaction as LockedTransaction
from tenantbase.interfaces.shared_store import Committed, NameHash, Stamp
from tenantbase.interfaces.store import COUNTING_PART, GroupResult, PendingWrite
from tenantbase.scope import tenant_of

log = logging.getLogger("tenantbase")

_COMMIT: Final = f"SELECT * FROM commit_group({', '.join(f'${number}' for number in range(1, 32))})"
_MOST_DEFEATS: Final = 2
_SLOW_BYTES_PER_SECOND: Final = 4 << 20  # the slowest that a large group may be committed


class _LockNeeded(Exception):
    """The group cannot be decided without the lock."""


class Ticket(NamedTuple):
    """See ``Committed``."""

    stamp: Stamp

    def tag(self, bucket: int) -> Stamp:
        return self.stamp


class Committer:
    """Commits groups, one at a time.

    Args:
        timeout: seconds for the database to answer, before the session is given up.
        write_timeout: seconds until a group's outcome is told in any case.
        change_log_size: how many changes the change log keeps.
        settler: finds out what became of groups in doubt.
        figures: the worker's cells.
    """

    def __init__(
        self,
        sessions: Sessions,
        confirmer: Confirmer,
        timeout: float,
        write_timeout: float,
        change_log_size: int,
        settler: Settler,
        figures: memoryview,
    ) -> None:
        self._sessions = sessions
        self._confirmer = confirmer
        self._timeout = timeout
        self._write_timeout = write_timeout
        self._change_log_size = change_log_size
        self._settler = settler
        self._figures = figures
        self._tenants = KnownTenants()
        self._turn = asyncio.Lock()

    async def commit(
        self, group: Sequence[PendingWrite], name_hash: NameHash
    ) -> GroupResult[Committed]:
        """See ``SharedStore.commit``."""
        began = time.monotonic_ns()
        async with self._turn:
            deadline = asyncio.get_running_loop().time() + self._write_timeout
            try:
                await self._sessions.current(deadline)
            except StoreUnavailable as error:
                return _refused([True] * len(group), error)
            taken = [pending.try_start() for pending in group]
            transactions = [
                pending.transaction for pending, mine in zip(group, taken, strict=True) if mine
            ]
            try:
                made, epoch = await self._make(transactions, name_hash, deadline)
            except Damaged as error:
                if len(transactions) == 1:
                    return _refused(taken, error)
                return await self._make_apart(taken, transactions, name_hash, deadline)
            except StoreError as error:
                return _refused(taken, error)
            results = iter(made.outcomes)
            outcomes = [next(results) if mine else None for mine in taken]
            if made.position is None:
                return GroupResult(outcomes, None)
            COMMIT_DURATION.add(self._figures, time.monotonic_ns() - began)
            COMMIT_WRITES.add(self._figures, len(transactions))
            return GroupResult(outcomes, Ticket(Stamp(epoch, made.position)))

    async def _make_apart(
        self,
        taken: Sequence[bool],
        transactions: Sequence[Transaction],
        name_hash: NameHash,
        deadline: float,
    ) -> GroupResult[Committed]:
        """Make each transaction a group of its own, because a row that one of them needs is damaged.

        Nothing is cached: no stamp is right for all of them.
        """
        outcomes: list[Outcome] = []
        for each in transactions:
            try:
                made, _ = await self._make([each], name_hash, deadline)
                outcomes += made.outcomes
            except StoreError as error:
                outcomes.append(error.with_traceback(None))
        results = iter(outcomes)
        return GroupResult([next(results) if mine else None for mine in taken], None)

    async def _make(
        self, transactions: Sequence[Transaction], name_hash: NameHash, deadline: float
    ) -> tuple[Made, bytes]:
        """Make a group, trying again in later sessions. Returns also the epoch of the one that made it.

        Raises:
            StoreUnavailable: nothing was done.
            Unsettled: it may have been made.
        """
        loop = asyncio.get_running_loop()
        seconds = self._timeout + _value_bytes(transactions) / _SLOW_BYTES_PER_SECOND
        large = False
        while True:
            session = await self._sessions.current(deadline)
            token = uuid4()
            try:
                async with AsyncExitStack() as stack:
                    counts = NONE_COUNTED
                    if large:
                        left = max(deadline - loop.time(), 0.0) * COUNTING_PART
                        counts = await stack.enter_async_context(
                            counting(session, transactions, left)
                        )
                    stack.enter_context(
                        session.within(min(seconds, max(deadline - loop.time(), 0.0)))
                    )
                    made = await self._attempt(session, transactions, token, name_hash, counts)
                return made, session.epoch
            except LargePrefix:
                large = True
                if loop.time() >= deadline:
                    raise StoreUnavailable("the keys under the prefix change too fast") from None
            except Doubt as doubt:
                session.abandon(str(doubt))
                return await self._settler.settle_doubt(token, doubt, deadline), session.epoch
            except (SessionLost, WrongTerm, Retry) as error:
                if not isinstance(error, Retry):
                    session.abandon_after(error)
                if loop.time() >= deadline:
                    raise StoreUnavailable(str(error)) from error

    async def _attempt(
        self,
        session: Session,
        transactions: Sequence[Transaction],
        token: UUID,
        name_hash: NameHash,
        counts: Counts,
    ) -> Made:
        if not any(map(stands_alone, transactions)):
            for _ in range(_MOST_DEFEATS):
                try:
                    return await self._optimistic(session, transactions, token, name_hash)
                except Defeated:
                    continue
                except _LockNeeded:
                    break
        return await self._locked(session, transactions, token, name_hash, counts)

    async def _optimistic(
        self,
        session: Session,
        transactions: Sequence[Transaction],
        token: UUID,
        name_hash: NameHash,
    ) -> Made:
        writer = session.writer
        keys, counters, returned = keys_of(transactions)
        head, rows, tenants = await self._look_up(session, keys, counters, returned)
        try:
            planned = PlannedRows(head.now, rows, tenants, returned, {})
            plan = Plan(transactions, planned, head.position)
        except ExpiredNeeded:
            raise _LockNeeded from None
        effects = plan.effects
        limited = [each for each in tenants.values() if each is not None and each.limited]
        if not effects.lines:
            if limited:
                raise _LockNeeded  # the usage is of another snapshot than the rows
            await self._confirmer.confirm(session, writer)
            return Made(plan.outcomes, None)
        try:
            ((base, waited),) = await writer.fetch(
                _COMMIT,
                session.epoch,
                session.timeline,
                self._confirmer.replicated,
                head.now,
                token,
                queries.packed(sorted({name_hash(line[2]) for line in effects.lines})),
                head.position if depends_on_base(transactions) else None,
                head.prefixes,
                head.access,
                planned.alive_until(),
                keys,
                [planned.versions.get(key, 0) for key in keys],
                [each.name for each in limited],
                [each.stored[0] for each in limited],
                [each.stored[1] for each in limited],
                *effects.arguments(),
            )
        except SessionLost as error:
            raise Doubt(plan.outcomes_from, len(effects.lines), str(error)) from error
        LOCK_WAIT.add(self._figures, round(waited * SECOND))
        return Made(plan.outcomes_from(base), base + len(effects.lines))

    async def _look_up(
        self, session: Session, keys: list[str], counters: list[str], returned: list[str]
    ) -> tuple[Head, Sequence[Any], dict[str, TenantUsage | None]]:
        """What a group is planned from: the rows of its keys, and its tenants."""
        writer = session.writer
        names = {tenant_of(key) for key in keys}
        while True:
            head, rows = await self._confirmer.look(
                session, writer, queries.LOOK_UP, keys, counters, returned
            )
            if head.access == self._tenants.version:
                break
            await self._tenants.read(writer)
        limits = {name: self._tenants.limited(name) for name in names}
        tenants: dict[str, TenantUsage | None] = {
            name: None if limited is None else TenantUsage(name, 0, 0, None, None)
            for name, limited in limits.items()
        }
        if any(limits.values()):
            tenants |= await read_usage(writer, [name for name in names if limits[name]])
        return head, rows, tenants

    async def _locked(
        self,
        session: Session,
        transactions: Sequence[Transaction],
        token: UUID,
        name_hash: NameHash,
        counts: Counts,
    ) -> Made:
        writer = session.writer
        upkeep = Upkeep(None)
        if any(isinstance(command, Sweep) for each in transactions for command in each):
            upkeep = await prepare(writer, self._change_log_size)
        transaction = await LockedTransaction.begin(
            session,
            writer,
            replicated=self._confirmer.replicated,
            latest=self._confirmer.latest,
        )
        LOCK_WAIT.add(self._figures, round(transaction.waited * SECOND))
        outcomes: list[Outcome] = []
        try:
            for alone, run in groupby(transactions, stands_alone):
                if alone:
                    for each in run:
                        outcomes.append(await apply_alone(transaction, each, upkeep, counts))
                else:
                    outcomes += await _apply_run(transaction, list(run))
        except BaseException:
            await transaction.roll_back()
            raise
        if not transaction.has_changes:
            await transaction.roll_back()
            await self._confirmer.confirm(session, writer)
            return Made(outcomes, None)
        changes = transaction.position - transaction.base
        try:
            await transaction.commit(token, name_hash)
        except SessionLost as error:
            raise Doubt(lambda base: outcomes, changes, str(error)) from error
        except BaseException:
            await transaction.roll_back()
            raise
        return Made(outcomes, transaction.position if changes else None)


async def _apply_run(transaction: LockedTransaction, run: Sequence[Transaction]) -> list[Outcome]:
    """Work out a run of transactions that name their keys, with the lock held, and write it."""
    keys, counters, returned = keys_of(run)
    rows = await transaction.fetch(
        queries.LOCKED_LOOK_UP, transaction.now, transaction.prefixes, keys, counters, returned
    )
    names = sorted({tenant_of(key) for key in keys})
    tenants = await read_usage(transaction, names)
    expired: dict[str, tuple[int, int]] = {}
    while True:
        try:
            planned = PlannedRows(transaction.now, rows, tenants, returned, expired)
            plan = Plan(run, planned, transaction.position)
            break
        except ExpiredNeeded as needed:
            expired[needed.tenant] = await expired_rows(transaction, needed.tenant)
            tenants = await read_usage(transaction, names)
    await transaction.write(plan.effects)
    return plan.outcomes


def _value_bytes(transactions: Sequence[Transaction]) -> int:
    return sum(
        len(command.value) for each in transactions for command in each if isinstance(command, Set)
    )


def _refused(taken: Sequence[bool], error: StoreError) -> GroupResult[Committed]:
    # One error each: a shared one would collect the tracebacks of all that raise it.
    kind, text = type(error), str(error)
    return GroupResult([kind(text) if mine else None for mine in taken], None)
