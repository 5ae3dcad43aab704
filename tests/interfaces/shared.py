"""A shared store that passes for a store of one machine, so that both pass the same tests."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Self

import asyncpg

from tenantbase.access import Access
from tenantbase.entry import Entry
from tenantbase.errors import StoreError
from tenantbase.events import ChangeEvent
from tenantbase.interfaces.postgres.address import DatabaseAddress
from tenantbase.interfaces.postgres.confirmation import Confirm
from tenantbase.interfaces.postgres.joining import Sizes
from tenantbase.interfaces.postgres.store import PostgresStore
from tenantbase.interfaces.store import GroupResult, PendingWrite, Seqlock, StoreSize, Ticket
from tenantbase.listing import EntryMeta, Folded, KeyRange
from tenantbase.plain_entries import Render
from tenantbase.scope import ScopedKey
from tenantbase.troubles import Trouble

SMALL = Sizes(askers=1, readers=1, listers=1)
_EMPTY = """
    TRUNCATE tenantbase.terms, tenantbase.commits, tenantbase.changes, tenantbase.entries,
        tenantbase.deleted_prefixes, tenantbase.tenants, tenantbase.tokens;
    INSERT INTO tenantbase.tenants (name, entries, bytes) VALUES ('default', 0, 0);
    UPDATE tenantbase.clock SET position = 0, at = 0, trimmed = 0, prefixes = 0, access = 1,
        closed = false, groups = 0, epoch = NULL;
"""
_SET_CLOCK = """
    CREATE TABLE IF NOT EXISTS tenantbase.test_clock AS SELECT 0::double precision AS seconds;
    CREATE OR REPLACE FUNCTION tenantbase.present() RETURNS double precision LANGUAGE sql VOLATILE
        AS 'SELECT seconds FROM tenantbase.test_clock';
"""


def name_hash(key: str) -> int:
    """32 bits of a key."""
    return zlib.crc32(key.encode())


async def open_postgres(
    url: str, *, change_log_size: int = 65_536, figures: memoryview | None = None
) -> PostgresStore:
    """A store on a single server without a standby."""
    return await PostgresStore.open(
        DatabaseAddress.parse(url),
        confirm=Confirm.NONE,
        replicated=False,
        change_log_size=change_log_size,
        sizes=SMALL,
        timeout=30.0,
        write_timeout=30.0,
        read_timeout=30.0,
        figures=figures,
    )


class OneMachine:
    """A PostgresStore whose time is that of each call, and which begins and ends writes on a seqlock.

    The keys that a write tells the seqlock are those of the commits that the store lists afterwards.
    """

    def __init__(self, store: PostgresStore, admin: asyncpg.Connection) -> None:
        self.store = store
        self._admin = admin
        self._keys: dict[int, str] = {}
        self._now: float | None = None
        self._setting = asyncio.Lock()

    @classmethod
    async def open(cls, url: str, *, change_log_size: int = 65_536) -> Self:
        store = await open_postgres(url, change_log_size=change_log_size)
        admin = await asyncpg.connect(url)
        await admin.execute(_SET_CLOCK)
        return cls(store, admin)

    @staticmethod
    async def empty(url: str) -> None:
        """Make a database like new, faster than another one could be made."""
        admin = await asyncpg.connect(url)
        if await admin.fetchval("SELECT to_regnamespace('tenantbase') IS NOT NULL"):
            await admin.execute(_EMPTY)
        await admin.close()

    @property
    def secret(self) -> bytes:
        return self.store.secret

    @property
    def troubles(self) -> Sequence[Trouble]:
        return self.store.troubles

    async def read(self, keys: Sequence[str], now: float) -> list[Entry | None | StoreError]:
        await self._set_clock(now)
        return await self.store.read(keys, now)

    async def scan(
        self,
        wanted: KeyRange,
        limit: int,
        max_bytes: int,
        now: float,
        render: Render | None = None,
    ) -> tuple[list[Entry | Folded], bool]:
        await self._set_clock(now)
        return await self.store.scan(wanted, limit, max_bytes, now, render)

    async def scan_meta(
        self, wanted: KeyRange, limit: int, now: float
    ) -> tuple[list[EntryMeta | Folded], bool]:
        await self._set_clock(now)
        return await self.store.scan_meta(wanted, limit, now)

    async def count(
        self, wanted: KeyRange, limit: int, now: float
    ) -> tuple[int, int, ScopedKey | None]:
        await self._set_clock(now)
        return await self.store.count(wanted, limit, now)

    def counting(self, prefix: str, now: float) -> AbstractAsyncContextManager[None]:
        return self.store.counting(prefix, now)

    async def write(
        self, group: Sequence[PendingWrite], now: float, seqlock: Seqlock[Ticket]
    ) -> GroupResult[Ticket]:
        await self._set_clock(now)
        closed = self._admin.is_closed()
        before = 0 if closed else await self.store.last_version()
        made = await self.store.commit(group, self._hash)
        if closed:
            return GroupResult(made.outcomes, None)
        commits = (await self.store.ask(before)).commits
        with seqlock.lock():
            if made.ticket is None:
                assert not commits
                return GroupResult(made.outcomes, None)
            (commit,) = commits
            assert made.ticket.tag(0).position == commit.position
            everything = commit.hashes is None
            ticket = seqlock.begin_write(
                None if everything else {self._keys[each] for each in commit.hashes or ()}
            )
            seqlock.commit(ticket)
            return GroupResult(made.outcomes, ticket)

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        return await self.store.changes(after, limit)

    async def last_version(self) -> int:
        return await self.store.last_version()

    async def access(self, known: int | None) -> Access | None:
        return await self.store.access(known)

    async def size(self) -> StoreSize:
        return await self.store.size()

    async def check(self) -> None:
        await self.store.check()

    async def close(self) -> None:
        await self.store.close()
        await self._admin.close()

    def _hash(self, key: str) -> int:
        hashed = name_hash(key)
        self._keys[hashed] = key
        return hashed

    async def _set_clock(self, now: float) -> None:
        async with self._setting:
            if self._now != now and not self._admin.is_closed():
                await self._admin.execute("UPDATE tenantbase.test_clock SET seconds = $1", now)
                self._now = now
