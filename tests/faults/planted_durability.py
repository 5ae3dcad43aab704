"""Stores that break a promise of durability, for the torture to find."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any, Final, Self

from tenantbase.interfaces.sqlite.commit import WriteLock
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.interfaces.store import GroupResult, PendingWrite, Seqlock, Ticket

_LATE: Final = 0.05


class Unsynced(SqliteStore):
    """Commits are not flushed to the disk."""

    @classmethod
    async def open(cls, path: str | os.PathLike[str], lock: WriteLock, **settings: Any) -> Self:
        store = await super().open(path, lock, **settings)
        await store._writer.run(lambda connection: connection.execute("PRAGMA synchronous = OFF"))
        return store


class Early(SqliteStore):
    """A write is acknowledged a moment before its commit."""

    async def _write(
        self, group: Sequence[PendingWrite], now: float, seqlock: Seqlock[Ticket]
    ) -> GroupResult[Ticket]:
        await self._writing.acquire()
        written: GroupResult[Ticket] = await self._writer.run(self._prepare, group, now, seqlock)
        self._start(self._commit_late())
        return written

    def _prepare(
        self,
        connection: sqlite3.Connection,
        group: Sequence[PendingWrite],
        now: float,
        seqlock: Seqlock[Ticket],
    ) -> GroupResult[Ticket]:
        return self._committer.commit(_Postponing(connection), group, now, seqlock)  # type: ignore[arg-type]

    async def _commit_late(self) -> None:
        try:
            await asyncio.sleep(_LATE)
            await self._writer.run(_commit)
        finally:
            self._writing.release()


class Deaf(SqliteStore):
    """A disk's failure to make a commit last is not heard of."""

    async def _write(
        self, group: Sequence[PendingWrite], now: float, seqlock: Seqlock[Ticket]
    ) -> GroupResult[Ticket]:
        async with self._writing:
            return await self._writer.run(self._commit_deaf, group, now, seqlock)

    def _commit_deaf(
        self,
        connection: sqlite3.Connection,
        group: Sequence[PendingWrite],
        now: float,
        seqlock: Seqlock[Ticket],
    ) -> GroupResult[Ticket]:
        return self._committer.commit(_Deaf(connection), group, now, seqlock)  # type: ignore[arg-type]


class _Deaf:
    """A connection whose commits succeed, whatever happens."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *args: Any) -> sqlite3.Cursor | None:
        with suppress(sqlite3.OperationalError) if statement == "COMMIT" else nullcontext():
            return self._connection.execute(statement, *args)
        return None


class _Postponing:
    """A connection that says it has committed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._postponed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction and not self._postponed

    def execute(self, statement: str, *args: Any) -> sqlite3.Cursor | None:
        if statement == "COMMIT":
            self._postponed = True
            return None
        return self._connection.execute(statement, *args)


def _commit(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("COMMIT")
