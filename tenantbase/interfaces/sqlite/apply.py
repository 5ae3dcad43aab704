"""What a group of transactions does to the tables. Plain code, run in the writing thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import cast

from tenantbase.errors import ConditionFailed, InvalidRequest, StoreUnavailable, TenantbaseError
from tenantbase.interfaces.sqlite.change_log import Log
from tenantbase.interfaces.sqlite.queries import concerns_a_row
from tenantbase.interfaces.sqlite.rows import KeyCommand, Rows, outcome
from tenantbase.interfaces.sqlite.schema import unavailable
from tenantbase.interfaces.sqlite.sweep import delete_prefix, sweep
from tenantbase.interfaces.store import Applied, DeletePrefix, Sweep, Transaction
from tenantbase.scope import plain_key

Outcome = tuple[Applied, ...] | TenantbaseError
_Named = tuple[KeyCommand, ...]


def apply(
    connection: sqlite3.Connection,
    log: Log,
    transactions: Iterable[Transaction],
    log_size: int,
    now: float,
    damaged: Collection[int] = (),
) -> list[Outcome]:
    """Apply transactions in order, inside one of the connection's.

    Each sees those before it that were made. Consecutive ones that name their keys are worked
    out together; a prefix delete or a sweep parts them.

    Args:
        damaged: rows, by ``created``, that a sweep is to pass over.
    """
    outcomes: list[Outcome] = []
    for alone, run in groupby(transactions, _stands_alone):
        if alone:
            outcomes.extend(
                _apply_alone(connection, log, each, log_size, now, damaged) for each in run
            )
        else:
            outcomes.extend(_apply_run(connection, log, cast("list[_Named]", list(run)), now))
    log.write()
    return outcomes


def find_damage(
    connection: sqlite3.Connection,
    transactions: Iterable[Transaction],
    log_size: int,
    now: float,
    damaged: Collection[int] = (),
) -> list[StoreUnavailable | None]:
    """Which members of a group meet damaged rows: the error of each, None for sound ones.

    Each is tried in a transaction of its own that is rolled back. Savepoints within one do not do:
    after an error of this kind and a ROLLBACK TO, SQLite finds damage in sound pages as well,
    until the whole transaction is rolled back.
    """
    found: list[StoreUnavailable | None] = []
    for transaction in transactions:
        connection.execute("BEGIN IMMEDIATE")
        try:
            apply(connection, Log(connection), [transaction], log_size, now, damaged)
            found.append(None)
        except sqlite3.Error as error:
            if not concerns_a_row(error):
                raise
            found.append(unavailable(error, "the database cannot be written"))
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    return found


def _stands_alone(transaction: Transaction) -> bool:
    return any(isinstance(change, DeletePrefix | Sweep) for change in transaction)


def _apply_alone(
    connection: sqlite3.Connection,
    log: Log,
    transaction: Transaction,
    log_size: int,
    now: float,
    damaged: Collection[int],
) -> Outcome:
    match transaction:
        case (DeletePrefix(prefix=prefix),):
            return (delete_prefix(connection, log, prefix, now),)
        case (Sweep(limit=limit),):
            return (sweep(connection, log, log_size, limit, now, damaged),)
    return InvalidRequest("deleting a prefix is a transaction of its own", "prefix")


def _apply_run(
    connection: sqlite3.Connection, log: Log, transactions: Sequence[_Named], now: float
) -> list[Outcome]:
    rows = Rows(connection, now, [change for each in transactions for change in each])
    outcomes: list[Outcome] = []
    for transaction in transactions:
        length = len(log)
        try:
            outcomes.append(_apply_named(log, rows, transaction))
            rows.accept()
        except TenantbaseError as error:
            # Its traceback refers to this frame, and with that to the values of the whole group:
            # a cycle, which would keep them until the next garbage collection.
            outcomes.append(error.with_traceback(None))
            rows.reject()
            log.take_back(length)
    rows.write()
    return outcomes


def _apply_named(log: Log, rows: Rows, transaction: _Named) -> tuple[Applied, ...]:
    # Conditions speak of the state that the sender knew: the one before the transaction.
    for change in transaction:
        if change.condition is not None:
            entry = rows.get(change.key)
            version = None if entry is None else entry.version
            if not change.condition.holds(version):
                raise ConditionFailed(plain_key(change.key), version)
    results = []
    for change in transaction:
        applied = outcome(change, rows.get(change.key), log.next_version)
        if applied.entry is not None:
            log.record("set", change.key)
            rows.put(change.key, applied.entry)
        elif applied.removed:
            log.record("delete", change.key)
            rows.put(change.key, None)
        results.append(applied)
    return tuple(results)
