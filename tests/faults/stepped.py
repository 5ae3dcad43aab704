"""The product's parts, with a step of the torture's control at every step of the protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace

from tenantbase.process import wiring
from tenantbase.coherence.policy import Cache
from tenantbase.entry import Entry
from tenantbase.errors import StoreError
from tenantbase.coherence.tag_seqlock import TagFence, TagTicket, WriteLock
from tenantbase.coherence.sealed_item import FrameCodec
from tenantbase.interfaces.memcached import client as memcache_interface
from tenantbase.interfaces.cache import Item
from tenantbase.interfaces.memcached.client import MemcacheClient
from tenantbase.interfaces.sqlite.store import SqlStore
from tenantbase.interfaces.store import Claim, Fence, Ticket, Written
from tenantbase.coherence.tag_file import TagFile
from tests.faults.control import Control


@dataclass(frozen=True)
class Parts:
    """The classes that ``wiring.py`` puts together."""

    tags: type[TagFile] = TagFile
    fence: type[TagFence] = TagFence
    store: type[SqlStore] = SqlStore
    codec: type[FrameCodec] = FrameCodec
    memcache: type[MemcacheClient] = MemcacheClient
    cache: type[Cache] = Cache

    @contextmanager
    def installed(self, control: Control) -> Iterator[None]:
        """Inside the block the product is made of these, also in processes forked from this."""
        with ExitStack() as stack:
            for module, name, part in (
                (wiring, "TagFile", self.tags),
                (wiring, "TagFence", self.fence),
                (wiring, "SqlStore", self.store),
                (wiring, "FrameCodec", self.codec),
                (wiring, "Cache", self.cache),
                (wiring, "time", _Clock(control)),
                (memcache_interface, "MemcacheClient", self.memcache),
            ):
                stack.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, part)
            yield


class _Clock:
    """Stands for the module ``time`` where the product asks for the present."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def time(self) -> float:
        return time.time() + self._control.clock_error


def stepped(parts: Parts, control: Control) -> Parts:
    """The same parts, coming to a step of the control at every step of the protocol."""

    class Fence_(parts.fence):  # type: ignore[misc,name-defined]
        def __init__(
            self, tags: TagFile, write_lock: WriteLock, bucket_of: Callable[[str], int]
        ) -> None:
            super().__init__(tags, write_lock, bucket_of)
            # Not write_lock.held: a planted bug may have put another in its place.
            self.lock = _entered(vars(self)["lock"], control)

        def raise_(self, keys: Collection[str] | None) -> TagTicket:
            control.reach("applied")
            ticket: TagTicket = super().raise_(keys)
            control.reach("odd")
            return ticket

        def lower(self, ticket: Ticket) -> None:
            control.reach("committed")
            super().lower(ticket)
            control.reach("even")

    class Store_(parts.store):  # type: ignore[misc,name-defined]
        async def read(self, keys: Sequence[str], now: float) -> list[Entry | None | StoreError]:
            rows: list[Entry | None | StoreError] = await super().read(keys, now)
            await control.reach_async("selected")
            return rows

        async def write(self, group: Sequence[Claim], now: float, fence: Fence) -> Written:
            written: Written = await super().write(group, now, fence)
            await control.reach_async("unlocked")
            return written

    class Memcache_(parts.memcache):  # type: ignore[misc,name-defined]
        async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
            found: dict[bytes, bytes] = await super().get_many(keys)
            await control.reach_async("asked")
            return found

        async def set_many(self, items: Sequence[Item]) -> None:
            await control.reach_async("publishing")
            await super().set_many(items)

    return replace(parts, fence=Fence_, store=Store_, memcache=Memcache_)


def _entered(
    lock: Callable[[], AbstractContextManager[None]], control: Control
) -> Callable[[], AbstractContextManager[None]]:
    """A lock whose holder has come to the step ``locked``."""

    @contextmanager
    def held() -> Iterator[None]:
        with lock():
            control.reach("locked")
            yield

    return held
