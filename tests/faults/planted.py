"""Planted bugs: the torture test proves nothing unless it finds them.

Each breaks one rule: of the coherence protocol (named as in ``tests/model.py``), of the validity of
sealed items, of remembered lists, or of durability. They replace parts of the product at run time;
the product has no switch for them.
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
from tenantbase.coherence.authority import Tag, Tags
from tenantbase.coherence.filler import Fill, Filler
from tenantbase.coherence.reading import ReadThrough
from tenantbase.coherence.sealed_item import (
    REJECTED,
    ItemSealer,
    Remembered,
    Slot,
    Verdict,
    bucket_of,
)
from tenantbase.coherence.tag_file import TagFile
from tenantbase.coherence.tag_seqlock import TagSeqlock, TagTicket, WriteLock
from tenantbase.coherence.writing import WriteThrough
from tenantbase.commands import DeletePrefix, Sweep
from tenantbase.entry import Entry
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.lookup import Lookup
from tests.faults.planted_durability import Deaf, Early, Unsynced
from tests.faults.planted_lists import LateVersion, Unforgotten
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
    """Rolling back makes a sequence even that an earlier writer had left odd."""

    def roll_back(self, ticket: TagTicket) -> None:
        ticket.in_doubt = set()
        super().roll_back(ticket)


class _NoLock(TagSeqlock):
    """Only SQLite serialises the writes of two processes."""

    def __init__(
        self, tags: TagFile, write_lock: WriteLock, bucket_of: Callable[[str], int]
    ) -> None:
        super().__init__(tags, write_lock, bucket_of)

        @contextmanager
        def lock() -> Iterator[None]:
            yield

        self.lock = lock


class _OddIsFine(TagFile):
    """A reader ignores that a sequence is odd."""

    def tags(self, buckets: Sequence[int]) -> Tags:
        return [self.tag(bucket) for bucket in buckets]


class _Remembering(TagFile):
    """A reader caches sequences for a while."""

    def tags(self, buckets: Sequence[int]) -> Tags:
        memory: dict[int, tuple[float, Tag | None]] = self.__dict__.setdefault("memory", {})
        now = time.monotonic()
        for bucket, tag in zip(buckets, super().tags(buckets), strict=True):
            if now - memory.get(bucket, (-1.0, tag))[0] > 0.3:
                memory[bucket] = now, tag
        return [memory[bucket][1] for bucket in buckets]


class _SameEpoch(TagFile):
    """A rewritten tag file keeps the old epoch."""

    @classmethod
    def open(cls, path: Path, like: Path | None = None) -> TagFile:
        random, tags_module.os = tags_module.os, _Predictable()  # type: ignore[attr-defined,assignment]
        try:
            return super().open(path, like)
        finally:
            tags_module.os = random  # type: ignore[attr-defined]


class _Predictable:
    """The module ``os`` with a constant source of randomness."""

    def __getattr__(self, name: str) -> Any:
        import os

        return getattr(os, name)

    def urandom(self, size: int) -> bytes:
        return b"e" * size


class _NoComparison(ItemSealer):
    """A sealed item is accepted under any tag, whether memcached sends it or it is remembered."""

    def unseal(self, data: bytes, slot: Slot, tag: Tag) -> Lookup | Verdict:
        epoch, sequence = data[20:36], int.from_bytes(data[36:44], "little")
        return super().unseal(data, slot, (epoch, sequence))

    def reopen(self, slot: Slot, remembered: Remembered, tag: Tag) -> Lookup | Verdict:
        return remembered.lookup


class _LateTag(ReadThrough):
    """A reader fills memcached under the tag from after its SELECT."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        assert isinstance(self._authority, TagFile)
        loader = self._loader
        loader._filler = _LateFiller(loader._filler, self._authority)  # type: ignore[assignment]


class _LateFiller:
    """A filler that looks the tags up itself."""

    def __init__(self, filler: Filler, tags: TagFile) -> None:
        self._filler = filler
        self._tags = tags
        self.store = filler.store

    def offer(
        self, fills: list[Fill], name: bytes, tag: Tag, entry: Entry | None, now: float
    ) -> None:
        self._filler.offer(fills, name, self._tags.tag(bucket_of(name)), entry, now)


class _FoundTag(TagSeqlock):
    """A writer fills memcached under the tag that it finds in the tag file afterwards."""

    def begin_write(self, keys: Collection[str] | None) -> TagTicket:
        ticket = super().begin_write(keys)
        return _FoundTicket(ticket, self._tags)


class _FoundTicket(TagTicket):
    """A ticket that reads its tags from the file."""

    def __init__(self, ticket: TagTicket, tags: TagFile) -> None:
        super().__init__(ticket.epoch, ticket.after, ticket.in_doubt)
        self._tags = tags

    def tag(self, bucket: int) -> Tag:
        return self._tags.tag(bucket)


class _NoMac(ItemSealer):
    """The MAC of a sealed item is not checked."""

    def unseal(self, data: bytes, slot: Slot, tag: Tag) -> Lookup | Verdict:
        state = self._mac.copy()
        state.update(data[16:])
        try:
            return super().unseal(state.digest() + data[16:], slot, tag)
        except UnicodeDecodeError:
            return REJECTED


class _AnyOwner(ItemSealer):
    """A sealed item is accepted for any key."""

    def unseal(self, data: bytes, slot: Slot, tag: Tag) -> Lookup | Verdict:
        return super().unseal(data, Slot(slot.key, data[44:76], slot.bucket), tag)


class _Eternal(ItemSealer):
    """The expiry in a sealed item is ignored."""

    def seal(self, name: bytes, tag: Tag, entry: Entry | None) -> bytes:
        if entry is not None:
            entry = msgspec.structs.replace(entry, expires_at=None)
        return super().seal(name, tag, entry)


class _WholeGroup(WriteThrough):
    """Every state that a key had within a group is stored in memcached, the first one last."""

    def _last_states(
        self, group: Sequence[Any], outcomes: Sequence[Any]
    ) -> list[tuple[str, Entry | None]]:
        states = super()._last_states(group, outcomes)
        for pending, outcome in reversed(list(zip(group, outcomes, strict=True))):
            if outcome is None or isinstance(outcome, Exception):
                continue
            for command, applied in zip(pending.transaction, outcome, strict=True):
                if not isinstance(command, DeletePrefix | Sweep) and applied.entry is not None:
                    states.append((command.key, applied.entry))
        return states


class _Loads(dict[tuple[bytes, Tag, int], Any]):
    """Loads in flight, found by key alone."""

    def __getitem__(self, token: tuple[bytes, Tag, int]) -> Any:
        return super().__getitem__((token[0], (b"", 0), 0))

    def __setitem__(self, token: tuple[bytes, Tag, int], load: Any) -> None:
        super().__setitem__((token[0], (b"", 0), 0), load)

    def get(self, token: tuple[bytes, Tag, int], default: Any = None) -> Any:
        return super().get((token[0], (b"", 0), 0), default)

    def pop(self, token: tuple[bytes, Tag, int], *default: Any) -> Any:
        return super().pop((token[0], (b"", 0), 0), *default)


class _JoinAny(ReadThrough):
    """A reader joins another's load, even if that began under another tag."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._loader._in_flight = _Loads()


BUGS: Final[dict[str, dict[str, type]]] = {
    "odd-before-commit": {"seqlock": _NotOddBefore},
    "even-after-commit": {"seqlock": _EvenBefore},
    "doubt-stays-odd": {"seqlock": _EvenInDoubt},
    "one-lock": {"seqlock": _NoLock},
    "skip-when-odd": {"tags": _OddIsFine},
    "compare": {"sealer": _NoComparison},
    "fresh-sequence": {"tags": _Remembering},
    "load-before-select": {"reading": _LateTag},
    "new-epoch": {"tags": _SameEpoch},
    "last-of-group": {"writing": _WholeGroup},
    "join-same-tag": {"reading": _JoinAny},
    "own-tag": {"seqlock": _FoundTag},
    "checked-mac": {"sealer": _NoMac},
    "own-key": {"sealer": _AnyOwner},
    "own-expiry": {"sealer": _Eternal},
    "forget-pages": {"pages": Unforgotten},
    "version-before-page": {"pages": LateVersion},
    "synchronous-off": {"store": Unsynced},
    "early-acknowledgement": {"store": Early},
    "deaf-to-sync-errors": {"store": Deaf},
}


def plant(parts: Parts, bug: str | None) -> Parts:
    """The parts, with or without a bug."""
    return replace(parts, **BUGS[bug]) if bug else parts


def store_class(bug: str | None) -> type[SqliteStore]:
    """The store class for these parts."""
    return plant(Parts(), bug).store
