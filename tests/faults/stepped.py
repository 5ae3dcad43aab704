"""The product's parts, instrumented to call the control at every step of the protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tenantbase.coherence import policy
from tenantbase.coherence.reading import ReadThrough
from tenantbase.coherence.sealed_item import ItemSealer
from tenantbase.coherence.tag_file import TagFile
from tenantbase.coherence.tag_seqlock import TagSeqlock, TagTicket, WriteLock
from tenantbase.coherence.writing import WriteThrough
from tenantbase.entry import Entry
from tenantbase.errors import StoreError
from tenantbase.interfaces.cache import Answer, Item
from tenantbase.interfaces.memcached import client as memcached_client
from tenantbase.interfaces.memcached.client import MemcacheClient
from tenantbase.interfaces.sqlite import store as sqlite_store
from tenantbase.interfaces.sqlite.remembered_pages import RememberedPages
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.interfaces.store import GroupResult, PendingWrite, Seqlock, Ticket
from tenantbase.process import wiring
from tests.faults.control import Control


@dataclass(frozen=True)
class Parts:
    """The classes that ``wiring.py``, ``policy.py`` and SQLite's ``store.py`` put together."""

    tags: type[TagFile] = TagFile
    seqlock: type[TagSeqlock] = TagSeqlock
    store: type[SqliteStore] = SqliteStore
    pages: type[RememberedPages] = RememberedPages
    sealer: type[ItemSealer] = ItemSealer
    memcache: type[MemcacheClient] = MemcacheClient
    reading: type[ReadThrough] = ReadThrough
    writing: type[WriteThrough] = WriteThrough

    @contextmanager
    def installed(self, control: Control) -> Iterator[None]:
        """Inside the block, the product uses these classes, in forked processes, too."""
        with ExitStack() as stack:
            for module, name, part in (
                (wiring, "TagFile", self.tags),
                (wiring, "TagSeqlock", self.seqlock),
                (wiring, "SqliteStore", self.store),
                (sqlite_store, "RememberedPages", self.pages),
                (wiring, "ItemSealer", self.sealer),
                (policy, "ReadThrough", self.reading),
                (policy, "WriteThrough", self.writing),
                (wiring, "time", _Clock(control)),
                (memcached_client, "MemcacheClient", self.memcache),
            ):
                stack.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, part)
            yield


class _Clock:
    """Replaces the module ``time`` in the product's modules that read the clock."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def time(self) -> float:
        return time.time() + self._control.clock_error


def stepped(parts: Parts, control: Control) -> Parts:
    """The same parts, which call the control at every step of the protocol."""

    class Fence_(parts.seqlock):  # type: ignore[misc,name-defined]
        def __init__(
            self, tags: TagFile, write_lock: WriteLock, bucket_of: Callable[[str], int]
        ) -> None:
            super().__init__(tags, write_lock, bucket_of)
            # Don't use write_lock.held, which a planted bug may have replaced.
            self.lock = _entered(vars(self)["lock"], control)

        def begin_write(self, keys: Collection[str] | None) -> TagTicket:
            control.reach("applied")
            ticket: TagTicket = super().begin_write(keys)
            control.reach("odd")
            return ticket

        def commit(self, ticket: TagTicket) -> None:
            control.reach("committed")
            super().commit(ticket)
            control.reach("even")

    class Store_(parts.store):  # type: ignore[misc,name-defined]
        async def read(self, keys: Sequence[str], now: float) -> list[Entry | None | StoreError]:
            rows: list[Entry | None | StoreError] = await super().read(keys, now)
            await control.reach_async("selected")
            return rows

        async def write(
            self, group: Sequence[PendingWrite], now: float, seqlock: Seqlock[Ticket]
        ) -> GroupResult[Ticket]:
            written: GroupResult[Ticket] = await super().write(group, now, seqlock)
            await control.reach_async("unlocked")
            return written

    class Pages_(parts.pages):  # type: ignore[misc,name-defined]
        def _note(self, asked: Hashable, page: Any) -> None:
            control.reach("listed")
            super()._note(asked, page)

    class Memcache_(parts.memcache):  # type: ignore[misc,name-defined]
        async def get_many(
            self, names: Sequence[bytes], known: Sequence[bytes | None]
        ) -> Sequence[Answer]:
            found: Sequence[Answer] = await super().get_many(names, known)
            await control.reach_async("asked")
            return found

        async def set_many(self, items: Sequence[Item]) -> None:
            await control.reach_async("publishing")
            await super().set_many(items)

    return replace(parts, seqlock=Fence_, store=Store_, pages=Pages_, memcache=Memcache_)


def _entered(
    lock: Callable[[], AbstractContextManager[None]], control: Control
) -> Callable[[], AbstractContextManager[None]]:
    """A lock whose holder has reached the step ``locked``."""

    @contextmanager
    def held() -> Iterator[None]:
        with lock():
            control.reach("locked")
            yield

    return held
