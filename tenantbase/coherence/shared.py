"""The policy over a database that several machines share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tenantbase.coherence.loading import Loaded
from tenantbase.coherence.pending import PendingWrite
from tenantbase.coherence.policy import Cache
from tenantbase.coherence.read_index import ReadIndex
from tenantbase.coherence.sealed_item import ItemSealer, hash_of
from tenantbase.interfaces.cache import Memcache
from tenantbase.interfaces.shared_store import Committed, SharedStore, Stamp
from tenantbase.interfaces.store import GroupResult


def shared_cache(store: SharedStore, memcache: Memcache | None, **settings: Any) -> Cache:
    """The policy of one node.

    Its authority is a read index. Times are the database's: every node has the same idea of when
    an entry expires.

    Args:
        settings: of ``Cache``, except the clock.
    """
    index = ReadIndex(store.ask, figures=settings.get("figures"))
    sealer = ItemSealer(store.secret, index.accepts)

    def name_hash(key: str) -> int:
        return hash_of(sealer.slot(key).name)

    async def load(keys: Sequence[str], now: float, bulk: bool) -> tuple[Sequence[Loaded], Stamp]:
        return await store.read_stamped(keys, bulk)

    async def commit(group: Sequence[PendingWrite], now: float) -> GroupResult[Committed]:
        return await store.commit(group, name_hash)

    return Cache(store, index, commit, sealer, memcache, clock=index.now, load=load, **settings)
