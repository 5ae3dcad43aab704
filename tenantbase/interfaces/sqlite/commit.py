"""Commits a group, and decides what its members are told if that fails. Runs in the writing thread.

An error before COMMIT means that nothing was done. An error of COMMIT itself means so only if
SQLite cannot have written the whole transaction. After any other error of COMMIT the transaction
may be on disk, and reappear when the write-ahead log is next recovered. Nothing is retried then:
once an fsync has failed, the kernel may have dropped the pages, and the next fsync would succeed
without having written them. So the connection takes no more commits and makes no more checkpoints.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Final, Never

from tenantbase.commands import Delete, Removal, Sweep, Transaction
from tenantbase.errors import OutcomeUnknown, StoreError, StoreFull, StoreUnavailable
from tenantbase.figures import COMMIT_DURATION, COMMIT_WRITES
from tenantbase.interfaces.planning.named import Outcome
from tenantbase.interfaces.sqlite.apply import apply, find_damage
from tenantbase.interfaces.sqlite.change_log import SqliteChangeLog
from tenantbase.interfaces.sqlite.checkpoints import PAGE_BYTES, Checkpoints
from tenantbase.interfaces.sqlite.driver_errors import concerns_a_row, error_code, unavailable
from tenantbase.interfaces.sqlite.opening import identity
from tenantbase.interfaces.sqlite.prefix_counts import Counts
from tenantbase.interfaces.sqlite.reserve import Reserve
from tenantbase.interfaces.sqlite.salvage import begin_rebuilding
from tenantbase.interfaces.sqlite.schema import EXPIRY_INDEX
from tenantbase.interfaces.sqlite.sweep import find_damaged, find_damaged_keys
from tenantbase.interfaces.store import GroupResult, PendingWrite, Seqlock, Ticket

log = logging.getLogger("tenantbase")

WriteLock = Callable[[], AbstractContextManager[object]]

_MOST_PAGES: Final = 1_073_741_823  # SQLite's own limit; it ignores a higher one
_INDEX_LOOK_SECONDS: Final = 600.0
_MOST_DAMAGED_ROWS: Final = 10_000  # the most damaged rows remembered; with more, sweeping stops

# Errors of COMMIT after which the transaction is certainly not in the database. Its last WAL frame,
# with a checksum over all frames, makes it valid. That frame is written last, so it is missing if a
# write failed (wal.c, walWriteOneFrame). SQLite calls a full disk FULL, and a quota or a limit on
# file sizes IOERR_WRITE.
_NOT_COMMITTED: Final = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
}
_SYNC_FAILED: Final = {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC}


class Committer:
    """Commits groups on one connection for as long as that is safe.

    On a full disk, deletions are committed in the space reserved for them. While part of the reserve
    is missing, the database grows only into space beyond it: other writes would use up what the
    next deletion needs.

    Attributes:
        failure: why it takes no more writes, in one sentence; None while it takes them.
    """

    def __init__(
        self,
        path: str,
        opened: tuple[int, int],
        lock: WriteLock,
        change_log_size: int,
        counts: Counts,
        figures: memoryview,
    ) -> None:
        self.path: Final = path
        self._figures = figures
        self._opened = opened
        self._lock = lock
        self._change_log_size = change_log_size
        self._counts = counts
        self._reserve = Reserve(path)
        self._checkpoints = Checkpoints(self._reserve, figures)
        self._tight = False  # whether part of the reserve is missing
        self._was_full = False  # whether the disk has just refused the group
        self._refused_full = False  # whether it did, and no room was made since
        self._damaged: set[int] = set()  # rows that cannot be removed, by ``created``
        self._next_look_at_index = 0.0  # by the monotonic clock
        self.failure: str | None = None

    @property
    def wants_checkpoint(self) -> bool:
        return self.failure is None and self._checkpoints.due(self._tight)

    def keep_room(self, connection: sqlite3.Connection) -> None:
        """Take the reserve, or as much of it as the disk allows. Called with the lock held."""
        self._tight = not self._reserve.hold()
        pages = _MOST_PAGES
        if self._tight:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            with suppress(OSError):
                size = os.stat(self.path).st_size + self._reserve.free_bytes()
                pages = max(pages, size // PAGE_BYTES)
        connection.execute(f"PRAGMA max_page_count = {pages}")

    def commit(
        self,
        connection: sqlite3.Connection,
        group: Sequence[PendingWrite],
        now: float,
        seqlock: Seqlock[Ticket],
    ) -> GroupResult[Ticket]:
        """See ``Store.write``."""
        began = time.monotonic_ns()
        with ExitStack() as stack:
            try:
                stack.enter_context(seqlock.lock())
            except OSError:
                return _none_made(
                    [True] * len(group), StoreUnavailable, "the write lock cannot be taken"
                )
            trouble = self.trouble()
            if trouble is not None:
                return _none_made([True] * len(group), StoreUnavailable, trouble)
            try:
                if self._tight:
                    self.keep_room(connection)
                self._was_full = False
                taken = [pending.try_start() for pending in group]
                written = self._commit(connection, group, taken, now, seqlock)
                if self._was_full:
                    written = self._commit_deletions(
                        connection, group, taken, written, now, seqlock
                    )
                if written.ticket is not None:
                    COMMIT_DURATION.add(self._figures, time.monotonic_ns() - began)
                    COMMIT_WRITES.add(self._figures, sum(taken))
                return written
            finally:
                self._roll_back(connection)  # a bug of ours may have left it open

    def checkpoint(self, connection: sqlite3.Connection, *, wait: bool = False) -> bool:
        """Copy the write-ahead log into the database, as far as readers allow.

        Args:
            wait: in any case, wait a little for readers, so that the log begins again. Otherwise only
                if it is long.

        Returns:
            Whether another checkpoint may be made, such as by closing the last connection.
        """
        try:
            with self._lock():
                if self.trouble() is None:
                    full, self._refused_full = self._refused_full, False
                    mode = self._checkpoints.restarting if wait else None
                    if full or not self._checkpoint(connection, mode):
                        self._make_room(connection)
        except OSError:
            return False  # never checkpoint without the lock
        return self.failure is None

    def close(self, connection: sqlite3.Connection) -> None:
        """Close the connection with the lock held: closing the last one makes a checkpoint."""
        with self._lock():
            connection.close()
            if not os.path.exists(f"{os.path.realpath(self.path)}-wal"):
                self._reserve.remove()  # it was the last one

    def trouble(self) -> str | None:
        """Why no write can be accepted now, in one sentence; None if one can."""
        if self.failure is None:
            try:
                replaced = identity(self.path) != self._opened
            except FileNotFoundError:
                replaced = True
            except OSError:
                return "the database file cannot be reached"
            if replaced:
                self.failure = "the database file was replaced or removed"
        return self.failure

    def _make_room(self, connection: sqlite3.Connection) -> None:
        """Copy the write-ahead log into the database within the reserve, and have it begin again.

        Its file then has room for writes into freed pages. The log's file shrinks by as much as the
        database grows.
        """
        with self.in_reserve(connection):
            self._checkpoint(connection, "TRUNCATE")

    @contextmanager
    def in_reserve(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Release the reserve for the block, which must end by truncating the log."""
        size = self._reserve.log_size()
        self._reserve.release()
        try:
            connection.execute(f"PRAGMA max_page_count = {_MOST_PAGES}")
            yield
            self._reserve.give_to_log(size)
        finally:
            self.keep_room(connection)

    def _commit_deletions(
        self,
        connection: sqlite3.Connection,
        group: Sequence[PendingWrite],
        taken: Sequence[bool],
        refused: GroupResult[Ticket],
        now: float,
        seqlock: Seqlock[Ticket],
    ) -> GroupResult[Ticket]:
        """Of a group that a full disk refused, commit the deletions, in the reserve."""
        deletions = [
            mine and _only_deletes(pending.transaction)
            for pending, mine in zip(group, taken, strict=True)
        ]
        if not any(deletions):
            return refused
        with self.in_reserve(connection):
            # After it the write-ahead log is written from its beginning again.
            self._checkpoint(connection, "RESTART")
            written = self._commit(connection, group, deletions, now, seqlock)
            self._checkpoint(connection, "TRUNCATE")
        outcomes = [
            new if deletion else old
            for new, old, deletion in zip(
                written.outcomes, refused.outcomes, deletions, strict=True
            )
        ]
        return GroupResult(outcomes, written.ticket)

    def _commit(
        self,
        connection: sqlite3.Connection,
        group: Sequence[PendingWrite],
        taken: Sequence[bool],
        now: float,
        seqlock: Seqlock[Ticket],
    ) -> GroupResult[Ticket]:
        transactions = [
            pending.transaction for pending, mine in zip(group, taken, strict=True) if mine
        ]
        before = connection.total_changes
        try:
            connection.execute("BEGIN IMMEDIATE")
            change_log = SqliteChangeLog(connection)
            results = iter(
                apply(
                    connection,
                    change_log,
                    transactions,
                    self._change_log_size,
                    now,
                    self._damaged,
                    self._counts,
                )
            )
        except sqlite3.Error as error:
            if not self._roll_back(connection) or not concerns_a_row(error):
                return self._refused(taken, error)
            try:
                self._rebuild_index(connection, seqlock)
                self._remember_damage(connection, transactions, now)
                damage = find_damage(
                    connection, transactions, self._change_log_size, now, self._damaged
                )
                sound = [
                    each for each, met in zip(transactions, damage, strict=True) if met is None
                ]
                before = connection.total_changes  # it counts what was rolled back too
                connection.execute("BEGIN IMMEDIATE")
                change_log = SqliteChangeLog(connection)
                made = iter(
                    apply(connection, change_log, sound, self._change_log_size, now, self._damaged)
                )
                results = iter([next(made) if met is None else met for met in damage])
            except sqlite3.Error as again:
                self._roll_back(connection)
                return self._refused(taken, again)
        outcomes: list[Outcome | None] = [next(results) if mine else None for mine in taken]
        rows = connection.total_changes - before
        if not rows:
            self._roll_back(connection)
            return GroupResult(outcomes, None)
        # A sweep may change no key: what it removed had already gone for all readers.
        ticket = seqlock.begin_write(change_log.keys) if change_log.changed else None
        try:
            connection.execute("COMMIT")
        except (sqlite3.Error, MemoryError) as error:
            if not _is_definite(error):
                # The write stays begun on the seqlock: the newest value is not known.
                self.failure = "a commit failed in the disk; no more writes are taken"
                if ticket is None:
                    seqlock.begin_write(None)  # tells the next process to open the database
                return _none_made(
                    taken, OutcomeUnknown, "the disk failed while the write was committed"
                )
            if self._roll_back(connection) and ticket is not None:
                seqlock.roll_back(ticket)
            return self._refused(taken, error)
        if ticket is not None:
            seqlock.commit(ticket)
        self._checkpoints.wrote(rows + change_log.value_bytes // PAGE_BYTES)
        return GroupResult(outcomes, ticket)

    def _rebuild_index(self, connection: sqlite3.Connection, seqlock: Seqlock[Ticket]) -> None:
        """Rebuild the expiry index if it is damaged. Checked seldom, because checking is slow."""
        if time.monotonic() < self._next_look_at_index:
            return
        self._next_look_at_index = time.monotonic() + _INDEX_LOOK_SECONDS
        if not begin_rebuilding(connection, EXPIRY_INDEX, concerns_a_row):
            return
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if not _is_definite(error):
                self.failure = "a commit failed in the disk; no more writes are taken"
                seqlock.begin_write(None)
            raise
        log.error("the index of expiry times was damaged, and has been rebuilt")

    def _remember_damage(
        self, connection: sqlite3.Connection, transactions: Sequence[Transaction], now: float
    ) -> None:
        """Find rows that cannot be removed, so that sweeps pass over them and deletes hide them."""
        for transaction in transactions:
            if len(self._damaged) >= _MOST_DAMAGED_ROWS:
                return
            match transaction:
                case (Sweep(limit=limit),):
                    self._damaged.update(find_damaged(connection, limit, now, self._damaged))
                case _:
                    keys = {each.key for each in transaction if isinstance(each, Delete)}
                    self._damaged.update(find_damaged_keys(connection, keys, self._damaged))

    def _checkpoint(self, connection: sqlite3.Connection, mode: str | None) -> bool:
        """See ``Checkpoints.make``. Returns: False if the disk is too full for it."""
        try:
            self._checkpoints.make(connection, mode, self._tight)
        except sqlite3.Error as error:
            if not _is_definite(error):
                self.failure = "the disk failed while the database was written"
            return not isinstance(unavailable(error, ""), StoreFull)
        return True

    def _refused(self, taken: Sequence[bool], error: Exception) -> GroupResult[Never]:
        """The result for a group that was not carried out."""
        if error_code(error) in _SYNC_FAILED:
            self.failure = "the disk failed; no more writes are taken"
        refusal = unavailable(error, "the database cannot be written")
        if not isinstance(refusal, StoreFull):
            return _none_made(taken, type(refusal), str(refusal))
        # After a checkpoint the write-ahead log is written from its beginning again, in no new space.
        self._checkpoints.hurry()
        self._was_full = self._refused_full = True
        return _none_made(taken, StoreFull, str(refusal))

    def _roll_back(self, connection: sqlite3.Connection) -> bool:
        """End the transaction if SQLite has not done so itself; False if that fails."""
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                self.failure = "a transaction cannot be ended; no more writes are taken"
                return False
        return True


def _is_definite(error: Exception) -> bool:
    code = error_code(error)
    return code in _NOT_COMMITTED or code & 0xFF in _NOT_COMMITTED


def _only_deletes(transaction: Transaction) -> bool:
    return all(isinstance(command, Removal) for command in transaction)


def _none_made(taken: Sequence[bool], kind: type[StoreError], text: str) -> GroupResult[Never]:
    # One error each: a shared one would collect the tracebacks of all that raise it.
    return GroupResult([kind(text) if mine else None for mine in taken], None)
