"""Bugs planted on purpose: what the torture must find, or it proves nothing.

Each breaks one rule: of the coherence protocol (named as in ``tests/model.py``), of what makes a frame
count, or of durability. They are made by replacing parts of the product from outside; the product
has no such switch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from tenantbase.coherence import tag_file as tags_module
from tenantbase.coherence.policy import Cache
from tenantbase.entry import Entry
from tenantbase.coherence.tag_seqlock import TagSeqlock, TagTicket, WriteLock
from tenantbase.coherence.filler import Fill
from tenantbase.coherence.sealed_item import REJECTED, ItemSealer, Slot, Verdict, bucket_of
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.interfaces.store import DeletePrefix, Store, Sweep, Ticket, Written
from tenantbase.coherence.tag_file import Tag, TagFile
from tests.faults.planted_durability import Deaf, Early, Unsynced
from tests.faults.stepped import Parts


class _NotOddBefore(TagSeqlock):
    """The sequence does not become odd."""

    def begin_write(self, keys: Collection[str] | None) -> TagTicket:
        before = list(self._tags.sequences)
        ticket = super().begin_write(keys)
        for bucket in ticket.after:
            self._tags.sequences[bucket] = before[bucket]
        return ticket


class _EvenBefore(TagSeqlock):
    """The sequence becomes even before COMMIT."""

    def begin_write(self, keys: Collection[str] | None) -> TagTicket:
        ticket = super().begin_write(keys)
        for bucket, even in ticket.after.items():
            self._tags.sequences[bucket] = even
        return ticket


class _EvenInDoubt(TagSeqlock):
    """A transaction that is rolled back makes even what an earlier writer had left odd."""

    def roll_back(self, ticket: Ticket) -> None:
        assert isinstance(ticket, TagTicket)
        ticket.in_doubt = set()
        super().roll_back(ticket)


class _NoLock(TagSeqlock):
    """Nothing keeps two processes' writes apart but SQLite."""

    def __init__(
        self, tags: TagFile, write_lock: WriteLock, bucket_of: Callable[[str], int]
    ) -> None:
        super().__init__(tags, write_lock, bucket_of)

        @contextmanager
        def lock() -> Iterator[None]:
            yield

        self.lock = lock


class _Even(int):
    """A number that denies being odd."""

    def __mod__(self, other: int) -> int:
        return 0


class _OddIsFine(TagFile):
    """A reader does not see that a sequence is odd."""

    def tags(self, buckets: Sequence[int]) -> list[Tag]:
        return [(epoch, _Even(sequence)) for epoch, sequence in super().tags(buckets)]


class _Remembering(TagFile):
    """A sequence is remembered for a while."""

    def tags(self, buckets: Sequence[int]) -> list[Tag]:
        memory: dict[int, tuple[float, Tag]] = self.__dict__.setdefault("memory", {})
        now = time.monotonic()
        for bucket, tag in zip(buckets, super().tags(buckets), strict=True):
            if now - memory.get(bucket, (-1.0, tag))[0] > 0.3:
                memory[bucket] = now, tag
        return [memory[bucket][1] for bucket in buckets]


class _SameEpoch(TagFile):
    """A new tag file has the epoch of the old one."""

    @classmethod
    def open(cls, path: Path, like: Path | None = None) -> TagFile:
        random, tags_module.os = tags_module.os, _Predictable()  # type: ignore[attr-defined,assignment]
        try:
            return super().open(path, like)
        finally:
            tags_module.os = random  # type: ignore[attr-defined]


class _Predictable:
    """The module ``os``, with a source of randomness that has run dry."""

    def __getattr__(self, name: str) -> Any:
        import os

        return getattr(os, name)

    def urandom(self, size: int) -> bytes:
        return b"e" * size


class _NoComparison(ItemSealer):
    """A frame counts under whatever tag it was made."""

    def decode(self, data: bytes, slot: Slot, tag: Tag) -> Entry | None | Verdict:
        epoch, sequence = data[20:36], int.from_bytes(data[36:44], "little")
        return super().decode(data, slot, (epoch, sequence))


class _LateTag(Cache):
    """What a reader stores is tagged as of the time after its SELECT."""

    writing = False

    def _write_through(self, *args: Any) -> list[Fill]:
        self.writing = True
        try:
            return super()._write_through(*args)
        finally:
            self.writing = False

    def _offer(
        self, items: list[Fill], name: bytes, tag: Tag, entry: Entry | None, now: float
    ) -> None:
        late = tag if self.writing else self._tags.tag(bucket_of(name))
        super()._offer(items, name, late, entry, now)


class _FoundTag(_LateTag):
    """What a writer stores is tagged with what the tag file says by then."""

    def _offer(
        self, items: list[Fill], name: bytes, tag: Tag, entry: Entry | None, now: float
    ) -> None:
        found = self._tags.tag(bucket_of(name)) if self.writing else tag
        Cache._offer(self, items, name, found, entry, now)


class _NoMac(ItemSealer):
    """The MAC of a frame is not looked at."""

    def decode(self, data: bytes, slot: Slot, tag: Tag) -> Entry | None | Verdict:
        state = self._mac.copy()
        state.update(data[16:])
        try:
            return super().decode(state.digest() + data[16:], slot, tag)
        except UnicodeDecodeError:
            return REJECTED


class _AnyOwner(ItemSealer):
    """A frame counts for whatever key it is found under."""

    def decode(self, data: bytes, slot: Slot, tag: Tag) -> Entry | None | Verdict:
        return super().decode(data, Slot(slot.key, data[44:76], slot.bucket), tag)


class _Eternal(ItemSealer):
    """A frame does not say when its entry expires."""

    def encode(self, name: bytes, tag: Tag, entry: Entry | None) -> bytes:
        if entry is not None:
            entry = msgspec.structs.replace(entry, expires_at=None)
        return super().encode(name, tag, entry)


class _WholeGroup(Cache):
    """Every state that a key went through in a group is stored, the first one last."""

    def _write_through(self, group: Sequence[Any], written: Written) -> list[Fill]:
        items = super()._write_through(group, written)
        for pending, outcome in reversed(list(zip(group, written.outcomes, strict=True))):
            if not items or outcome is None or isinstance(outcome, Exception):
                continue
            assert isinstance(written.ticket, TagTicket)
            for change, applied in zip(pending.transaction, outcome, strict=True):
                if not isinstance(change, DeletePrefix | Sweep) and applied.entry is not None:
                    name = self._sealer.name(change.key)
                    tag = written.ticket.tag(bucket_of(name))
                    self._offer(items, name, tag, applied.entry, self._clock())
        return items


class _Loads(dict[tuple[bytes, Tag], Any]):
    """Loads under way, found by key alone."""

    def __getitem__(self, token: tuple[bytes, Tag]) -> Any:
        return super().__getitem__((token[0], (b"", 0)))

    def __setitem__(self, token: tuple[bytes, Tag], load: Any) -> None:
        super().__setitem__((token[0], (b"", 0)), load)

    def get(self, token: tuple[bytes, Tag], default: Any = None) -> Any:
        return super().get((token[0], (b"", 0)), default)

    def pop(self, token: tuple[bytes, Tag], *default: Any) -> Any:
        return super().pop((token[0], (b"", 0)), *default)


class _JoinAny(Cache):
    """A reader joins another's load under whatever tag that was begun."""

    def __init__(self, store: Store, *args: Any, **settings: Any) -> None:
        super().__init__(store, *args, **settings)
        self._loads = _Loads()


BUGS: Final[dict[str, dict[str, type]]] = {
    "odd-before-commit": {"seqlock": _NotOddBefore},
    "even-after-commit": {"seqlock": _EvenBefore},
    "doubt-stays-odd": {"seqlock": _EvenInDoubt},
    "one-lock": {"seqlock": _NoLock},
    "skip-when-odd": {"tags": _OddIsFine},
    "compare": {"sealer": _NoComparison},
    "fresh-sequence": {"tags": _Remembering},
    "load-before-select": {"cache": _LateTag},
    "new-epoch": {"tags": _SameEpoch},
    "last-of-group": {"cache": _WholeGroup},
    "join-same-tag": {"cache": _JoinAny},
    "own-tag": {"cache": _FoundTag},
    "checked-mac": {"sealer": _NoMac},
    "own-key": {"sealer": _AnyOwner},
    "own-expiry": {"sealer": _Eternal},
    "synchronous-off": {"store": Unsynced},
    "early-acknowledgement": {"store": Early},
    "deaf-to-sync-errors": {"store": Deaf},
}


def plant(parts: Parts, bug: str | None) -> Parts:
    """The parts with a bug, or without."""
    return replace(parts, **BUGS[bug]) if bug else parts


def store_class(bug: str | None) -> type[SqliteStore]:
    """The store of these parts."""
    return plant(Parts(), bug).store
