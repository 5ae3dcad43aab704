"""Random schedules of several nodes on a shared database, checked; and bugs that they must find.

memcached answers with any item it was ever given, or with none, or claims that the one that was asked
about has not changed. The bugs are the rules of
``cluster_model`` that concern the policy, each broken.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, Final, NamedTuple

import pytest

from tenantbase.coherence.authority import Answer, Tag
from tenantbase.coherence.change_table import ChangeTable
from tenantbase.coherence.policy import Cache
from tenantbase.coherence.read_index import ReadIndex
from tenantbase.coherence.sealed_item import Remembered, Slot
from tenantbase.coherence.shared import shared_cache
from tenantbase.commands import DeletePrefix, Set
from tenantbase.entry import JSON, Entry
from tenantbase.errors import StoreError
from tenantbase.interfaces.cache import ABSENT, UNCHANGED, Fetched, Item, NotFetched
from tenantbase.interfaces.shared_store import Index, NameHash, Stamp
from tenantbase.interfaces.store import GroupResult, PendingWrite
from tenantbase.lookup import Lookup
from tests.fake_cluster import Committed, FakeCluster, FakeSharedStore

KEYS: Final = ("default/a", "default/b", "default/c")
ROUNDS: Final = 60  # schedules in which no violation may be found, and a bug has to be
ACTIONS: Final = 12  # of each client


class Violation(AssertionError):
    """A read returned something older than what was seen before it began."""


class Wild:
    """A memcached that answers with any item it was ever given."""

    available = True
    away = ()

    def __init__(self, run: Run) -> None:
        self._run = run
        self._items: dict[bytes, list[Fetched]] = {}
        self._numbers = count(1)

    async def get_many(
        self, names: Sequence[bytes], known: Sequence[bytes | None]
    ) -> Sequence[Fetched | NotFetched]:
        await self._run.pause()
        return [self._answer(*each) for each in zip(names, known, strict=True)]

    def _answer(self, name: bytes, known: bytes | None) -> Fetched | NotFetched:
        random = self._run.random
        if name not in self._items or random.random() >= 0.8:
            return ABSENT
        item = random.choice(self._items[name])
        if known is not None and (item.cas == known or random.random() < 0.3):
            return UNCHANGED
        return item

    async def set_many(self, items: Sequence[Item]) -> None:
        await self._run.pause()
        for name, data, _ in items:
            cas = b"%d" % next(self._numbers)
            self._items.setdefault(name, []).append(Fetched(data, cas))

    async def close(self) -> None:
        pass


class Run:
    """One random schedule.

    Attributes:
        seen: of each key, the newest version that was acknowledged or returned. A version below it
            may not be read any more.
        deleted: keys that may be absent, although they were written.
        lossy: whether a failover may lose commits. What was lost is forgotten, with all operations
            that it overlaps.
    """

    def __init__(self, seed: int, parts: Parts, lossy: bool) -> None:
        self.random = random.Random(seed)
        self.lossy = lossy
        self.cluster = FakeCluster()
        self.cluster.page = self.random.choice((1, 2, 1_000))
        self.memcached = Wild(self)
        self.seen = dict.fromkeys(KEYS, 0)
        self.deleted: set[str] = set()
        self.losses = 0
        self.nodes: list[Cache] = []
        for _ in range(2):
            self.start(parts)

    def start(self, parts: Parts) -> None:
        store = parts.store(self.cluster, one_by_one=0)
        for hook in ("before_ask", "after_ask", "after_select", "before_commit", "after_commit"):
            setattr(store, hook, self.pause)
        self.nodes.append(shared_cache(store, self.memcached))
        parts.install(self.nodes[-1])

    async def pause(self) -> None:
        for _ in range(self.random.choice((0, 0, 1, 3, 10, 40))):
            await asyncio.sleep(0)

    async def client(self, parts: Parts) -> None:
        for _ in range(ACTIONS):
            await self.pause()
            node = self.random.choice(self.nodes)
            key = self.random.choice(KEYS)
            act = self.random.random()
            if act < 0.55:
                await self.read(node, key)
            elif act < 0.85:
                await self.write(node, key)
            elif act < 0.90:
                await self.delete(node, key)
            elif act < 0.94:
                self.cluster.trim(self.random.randrange(3))
            elif act < 0.97:
                self.start(parts)
            else:
                self.fail_over()

    async def read(self, node: Cache, key: str) -> None:
        floor, losses = self.seen[key], self.losses
        found = await node.get(key)
        version = 0 if found.entry is None else found.entry.version
        if losses == self.losses:
            if version < floor and (version or key not in self.deleted):
                raise Violation(f"{key}: {version} was read, but {floor} had been seen")
            self.seen[key] = max(self.seen[key], version)

    async def write(self, node: Cache, key: str) -> None:
        losses = self.losses
        with suppress(StoreError):
            (applied,) = await node.write(Set(key, b"1", JSON))
            assert applied.entry is not None
            if losses == self.losses:
                self.seen[key] = max(self.seen[key], applied.entry.version)

    async def delete(self, node: Cache, key: str) -> None:
        """Delete a prefix, which may change any key as far as other nodes know."""
        before, losses = self.cluster.position, self.losses
        self.deleted.add(key)
        with suppress(StoreError):
            await node.write(DeletePrefix(key))
            if losses == self.losses:
                self.seen[key] = max(self.seen[key], before)

    def fail_over(self) -> None:
        lose = self.random.randrange(3) if self.lossy else 0
        self.cluster.fail_over(min(lose, len(self.cluster.states), len(self.cluster.commits)))
        if lose:
            self.losses += 1
            entries = self.cluster.tables.entries
            self.seen = {key: entries[key].version if key in entries else 0 for key in KEYS}


class Parts(NamedTuple):
    """The product with a bug, or without one.

    Attributes:
        store: with the glue between the database and the policy.
        install: changes a node.
        lossy: whether it takes lost commits to find the bug.
    """

    store: type[FakeSharedStore] = FakeSharedStore
    install: Callable[[Cache], object] = lambda cache: None
    lossy: bool = False


async def explore(seed: int, parts: Parts, lossy: bool) -> None:
    run = Run(seed, parts, lossy)
    async with asyncio.TaskGroup() as clients:
        for _ in range(4):
            clients.create_task(run.client(parts))
    for node in run.nodes:
        await node.drained()


@pytest.mark.parametrize("lossy", [False, True])
async def test_no_schedule_shows_an_older_version(lossy: bool) -> None:
    for seed in range(ROUNDS):
        await explore(seed, Parts(), lossy)


# The rules, each broken


def _index(cache: Cache) -> ReadIndex:
    index = cache._authority
    assert isinstance(index, ReadIndex)
    return index


def _no_question(cache: Cache) -> None:
    """Reads use what the node remembers, once it has anything."""
    index = _index(cache)
    ask = index.tags

    def tags(buckets: Sequence[int]) -> asyncio.Future[Answer]:
        if not index.commits:
            return ask(buckets)
        remembered = asyncio.get_running_loop().create_future()
        remembered.set_result(index.remembered(buckets, 1e9))
        return remembered

    index.tags = tags  # type: ignore[method-assign]


def _join_sent_question(cache: Cache) -> None:
    """A read joins a question that is in flight."""
    index = _index(cache)
    ask, in_flight = index._ask, dict[str, asyncio.Future[Index]]()

    async def joined(after: int) -> Index:
        if "question" not in in_flight:
            in_flight["question"] = asyncio.ensure_future(ask(after))
        question = in_flight["question"]
        try:
            return await question
        finally:
            in_flight.pop("question", None)

    index._ask = joined


def _patched(**methods: Any) -> Callable[[Cache], None]:
    """A node whose table has these methods. The policy's references to them are replaced, too."""

    def install(cache: Cache) -> None:
        index = _index(cache)
        table = type("Table", (ChangeTable,), methods)()
        index._table = table
        cache._reading._sealer._accepts = table.accepts

    return install


def _accept_any(self: ChangeTable, sealed: Tag, current: Tag) -> bool:
    newest, bounds = self._judged
    return sealed[1] <= bounds.get(sealed[0], -1)


def _accept_lost(self: ChangeTable, sealed: Tag, current: Tag) -> bool:
    return sealed[1] >= current[1]


def _changed(change: Callable[[Index], dict[str, object]]) -> Callable[..., bool]:
    """``enter`` of a changed answer."""

    def enter(self: ChangeTable, index: Index, after: int, *, shorten: bool = False) -> bool:
        fields = {name: getattr(index, name) for name in Index.__struct_fields__}
        changed = Index(**{**fields, **change(index)})
        return ChangeTable.enter(self, changed, after, shorten=shorten)

    return enter


def _without_unknown(index: Index) -> dict[str, object]:
    commits = [commit._replace(hashes=commit.hashes or []) for commit in index.commits]
    return {"commits": commits}


class _LateStamp(FakeSharedStore):
    """Rows are stamped with the position at the end of the read."""

    async def read_stamped(
        self, keys: Sequence[str], bulk: bool = False
    ) -> tuple[list[Entry | None | StoreError], Stamp]:
        entries, _ = await super().read_stamped(keys, bulk)
        return entries, self._stamp()


class _LatePosition(FakeSharedStore):
    """A write is stamped with the position once its answer has arrived."""

    async def commit(
        self, group: Sequence[PendingWrite], name_hash: NameHash
    ) -> GroupResult[Committed]:
        written = await super().commit(group, name_hash)
        ticket = written.ticket and Committed(self._stamp())
        return GroupResult(written.outcomes, ticket)


def _reopen_any(cache: Cache) -> None:
    """A remembered item counts under any tag, if memcached says that it has not changed."""
    sealer = cache._reading._sealer

    def reopen(slot: Slot, remembered: Remembered, tag: Tag) -> Lookup:
        return remembered.lookup

    sealer.reopen = reopen  # type: ignore[method-assign]


BUGS: Final = {
    "ask": Parts(install=_no_question),
    "ask-after-begin": Parts(install=_join_sent_question),
    "compare": Parts(install=_patched(accepts=_accept_any)),
    "term-frames": Parts(install=_patched(accepts=_accept_lost), lossy=True),
    "join-floor": Parts(install=_patched(enter=_changed(lambda index: {"trimmed": 0}))),
    "unknown-keys": Parts(install=_patched(enter=_changed(_without_unknown))),
    "every-page": Parts(install=_patched(enter=_changed(lambda index: {"complete": True}))),
    "snapshot-position": Parts(store=_LateStamp),
    "own-position": Parts(store=_LatePosition),
    "compare-remembered": Parts(install=_reopen_any),
}


@pytest.mark.parametrize("rule", BUGS)
async def test_a_broken_rule_is_found(rule: str) -> None:
    parts = BUGS[rule]
    with pytest.raises(ExceptionGroup) as found:
        for seed in range(10 * ROUNDS):
            await explore(seed, parts, parts.lossy)
    assert found.value.subgroup(Violation) is not None
