"""What memcached's answers to a batch of reads are worth: hits, misses, and items to be rejected."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from tenantbase.coherence.authority import Tag
from tenantbase.coherence.filler import HEAVY_BYTES
from tenantbase.coherence.loading import Missed
from tenantbase.coherence.sealed_item import REJECTED, ItemSealer, Remembered, Slot, Verdict
from tenantbase.figures import REJECTED_ITEMS
from tenantbase.interfaces.cache import ABSENT, AWAY, LEFT_OUT, UNCHANGED, Answer, Fetched
from tenantbase.lookup import CacheStatus, Lookup

NO_QUESTION: Final = 0
"""The number of no question; see ``authority.Answer``."""

_LARGE_ITEM_BYTES: Final = 8 << 10  # opening smaller ones is faster than passing them to a thread
_NONE_OPENED: Final[Mapping[bytes, Lookup | Verdict]] = {}


class Asked(NamedTuple):
    """The results of asking memcached for a batch of keys, and what is left to be loaded.

    Attributes:
        found: the hits.
        missed: keys of which memcached has no valid copy, with the tags to load them under.
        direct: keys that have to bypass memcached.
        left_out: keys that memcached has, but whose items did not fit; they are requested again.
        now: the time by which expiry is judged.
        question: see ``authority.Answer``.
    """

    found: dict[str, Lookup]
    missed: dict[str, Missed]
    direct: list[str]
    left_out: set[str]
    now: float
    question: int = NO_QUESTION

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to do."""
        return not (self.missed or self.direct or self.left_out)


class Opener:
    """Opens the items that memcached returns.

    Args:
        figures: the worker's cells (``figures.py``).
    """

    def __init__(self, sealer: ItemSealer, figures: memoryview) -> None:
        self._sealer = sealer
        self._figures = figures

    async def sort(
        self,
        slots: Sequence[Slot],
        tags: Sequence[Tag | None],
        known: Sequence[Remembered | None],
        answers: Sequence[Answer] | None,
        asked: Asked,
        hit: CacheStatus,
    ) -> None:
        """Sort the requested keys by whether memcached has a valid copy, into ``asked``.

        Args:
            slots: those that memcached was asked for.
            tags: their buckets' tags; None: a write is in flight, so no copy is valid.
            known: what memcached was told to be known.
            answers: its answers, in the same order; None: it could not be asked.
            hit: what to call hits.
        """
        found, missed, direct, left_out, now, _ = asked
        if answers is None:
            direct += [slot.key for slot in slots]
            return
        open_item, reopen, fresh = self._sealer.open, self._sealer.reopen, hit is CacheStatus.HIT
        opened = await self._open_large(slots, tags, answers)
        for slot, tag, last, answer in zip(slots, tags, known, answers, strict=True):
            if answer is UNCHANGED and fresh:
                assert last is not None
                if last.tag == tag and last.expires_at > now:  # nearly always
                    found[slot.key] = last.lookup
                    continue
            if tag is None or answer is AWAY:
                direct.append(slot.key)
                continue
            if answer is ABSENT:
                missed[slot.key] = slot.name, tag
                continue
            if answer is LEFT_OUT:
                left_out.add(slot.key)
                continue
            if answer is UNCHANGED:
                assert last is not None
                lookup = reopen(slot, last, tag)
                if lookup is REJECTED and slot.remembered is last:
                    # Ask for the whole item next time. It may be a new one: without CAS values in memcached,
                    # every item looks unchanged.
                    slot.remembered = None
            elif slot.name in opened:
                lookup = opened[slot.name]
                if lookup is not REJECTED:
                    self._sealer.remember(slot, answer, tag, lookup)
            else:
                lookup = open_item(answer, slot, tag)
            if lookup is REJECTED:
                missed[slot.key] = slot.name, tag
                self._figures[REJECTED_ITEMS] += 1
                continue
            entry = lookup.entry
            if entry is None or entry.expires_at is None or entry.alive(now):
                found[slot.key] = lookup if fresh else Lookup(entry, hit)
            else:
                found[slot.key] = Lookup(None, hit)

    async def _open_large(
        self, slots: Sequence[Slot], tags: Sequence[Tag | None], answers: Sequence[Answer]
    ) -> Mapping[bytes, Lookup | Verdict]:
        """Open the large items in a thread, if they are heavy together.

        Returns: the results, by their slots' names.
        """
        sizes = [len(answer.data) for answer in answers if type(answer) is Fetched]
        if sum(sizes) <= HEAVY_BYTES:
            return _NONE_OPENED
        large = [
            (slot, answer.data, tag)
            for slot, tag, answer in zip(slots, tags, answers, strict=True)
            if isinstance(answer, Fetched)
            and len(answer.data) >= _LARGE_ITEM_BYTES
            and tag is not None
        ]
        return await asyncio.to_thread(self._sealer.unseal_many, large) if large else _NONE_OPENED
