"""Applies a group of transactions to the tables. Plain code, run in the writing thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Final, cast

from tenantbase.commands import (
    AdminCommand,
    DeletePrefix,
    InPlaceCommand,
    Sweep,
    Transaction,
)
from tenantbase.errors import (
    Damaged,
    InvalidRequest,
    StoreUnavailable,
    TenantbaseError,
)
from tenantbase.interfaces.planning.named import (
    NamedTransaction,
    Outcome,
    apply_named,
    stands_alone,
)
from tenantbase.interfaces.sqlite.access import administer, remove_expired_tokens
from tenantbase.interfaces.sqlite.change_log import SqliteChangeLog
from tenantbase.interfaces.sqlite.driver_errors import concerns_a_row, unavailable
from tenantbase.interfaces.sqlite.in_place import apply_in_place
from tenantbase.interfaces.sqlite.plain_sets import create_plain
from tenantbase.interfaces.sqlite.prefix_counts import NONE_COUNTED, Counts
from tenantbase.interfaces.sqlite.rows import Rows
from tenantbase.interfaces.sqlite.sweep import delete_prefix, sweep
from tenantbase.interfaces.sqlite.usage import Usage
from tenantbase.plain_sets import PlainSets

# A damaged row can be hidden, but SQLite can neither remove nor replace it. A copy omits it.
_REPAIR: Final = (
    "delete the damaged keys, which tenantbase check names, then make a backup and restore it"
)


def apply(
    connection: sqlite3.Connection,
    change_log: SqliteChangeLog,
    transactions: Iterable[Transaction],
    change_log_size: int,
    now: float,
    damaged: Collection[int] = (),
    counts: Counts = NONE_COUNTED,
) -> list[Outcome]:
    """Apply transactions in order, inside one SQLite transaction.

    Each sees the effects of those before it. Consecutive ones that name their keys are worked out
    together; any other command separates them.

    Args:
        damaged: rows, by ``created``, that cannot be removed: sweeps pass over them, and deleting
            their keys hides them.
        counts: of prefixes that are deleted.
    """
    usage = Usage(connection)
    outcomes: list[Outcome] = []
    for alone, group in groupby(transactions, stands_alone):
        if alone:
            outcomes.extend(
                _apply_alone(
                    connection, change_log, usage, each, change_log_size, now, damaged, counts
                )
                for each in group
            )
        else:
            run = cast(
                "list[NamedTransaction]", list(group)
            )  # the type checker does not see groupby's key
            outcomes.extend(_apply_run(connection, change_log, usage, run, now, damaged))
    change_log.write()
    usage.settle()
    return outcomes


def find_damage(
    connection: sqlite3.Connection,
    transactions: Sequence[Transaction],
    change_log_size: int,
    now: float,
    damaged: Collection[int] = (),
) -> list[StoreUnavailable | None]:
    """Which members of a group to leave out because of damage: the error for each of those, None
    for the others, which can be applied together. Members that meet damage by themselves are found
    first. The rest may still meet some together, such as two that fill a page whose neighbour is
    damaged. So, repeatedly, the first member that meets damage after those before it is left out,
    until none does.

    Each attempt is a transaction that is rolled back. Savepoints within one won't do: after an
    error of this kind and a ROLLBACK TO, SQLite finds damage in sound pages as well, until the
    whole transaction is rolled back.
    """

    def attempt(members: Sequence[int]) -> StoreUnavailable | None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            group = [transactions[at] for at in members]
            apply(connection, SqliteChangeLog(connection), group, change_log_size, now, damaged)
        except sqlite3.Error as error:
            if not concerns_a_row(error):
                raise
            met = unavailable(error, "the database cannot be written")
            return Damaged(f"{met}; {_REPAIR}") if isinstance(met, Damaged) else met
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return None

    found = [attempt([at]) for at in range(len(transactions))]
    while (sound := [at for at, met in enumerate(found) if met is None]) and (
        error := attempt(sound)
    ) is not None:
        # Find the shortest run from the first member on that meets damage: its last member is the
        # culprit.
        fine, failing = 0, len(sound)
        while failing - fine > 1:
            middle = (fine + failing) // 2
            met = attempt(sound[:middle])
            if met is None:
                fine = middle
            else:
                failing, error = middle, met
        found[sound[failing - 1]] = error
    return found


def _apply_alone(
    connection: sqlite3.Connection,
    change_log: SqliteChangeLog,
    usage: Usage,
    transaction: Transaction,
    change_log_size: int,
    now: float,
    damaged: Collection[int],
    counts: Counts,
) -> Outcome:
    match transaction:
        case (DeletePrefix(prefix=prefix),):
            return (delete_prefix(connection, change_log, usage, prefix, now, counts),)
        case (Sweep(limit=limit),):
            remove_expired_tokens(connection, now)
            return (sweep(connection, change_log, usage, change_log_size, limit, now, damaged),)
        case (command,) if isinstance(command, InPlaceCommand):
            try:
                return (apply_in_place(connection, change_log, usage, command, now),)
            except TenantbaseError as error:
                return error.with_traceback(None)
        case (command,) if isinstance(command, AdminCommand):
            usage.settle()
            try:
                return (administer(connection, change_log, command),)
            except TenantbaseError as error:
                return error.with_traceback(None)
    return InvalidRequest("this command is a transaction of its own")


def _apply_run(
    connection: sqlite3.Connection,
    change_log: SqliteChangeLog,
    usage: Usage,
    transactions: Sequence[NamedTransaction],
    now: float,
    damaged: Collection[int],
) -> list[Outcome]:
    if len(transactions) == 1 and isinstance(transactions[0], PlainSets):
        if create_plain(connection, change_log, usage, transactions[0]):
            return [()]
    commands = [command for each in transactions for command in each]
    rows = Rows(connection, now, commands, usage, damaged)
    outcomes = apply_named(change_log, rows, transactions)
    rows.write()
    return outcomes
