"""Write-through: first to the store, then to memcached, under the tags that the write was given.

Writes that wait are committed in groups. A commit invalidates the copies of the keys that change; on
one machine, a write on the seqlock surrounds it. Its ticket has the tags of what it wrote. Storing
the new values in memcached is a second step: the next group does not wait for it. memcached can
fail in any way, which only costs misses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from functools import partial
from time import monotonic_ns
from typing import Final

from tenantbase.coherence.authority import WriteTags
from tenantbase.coherence.batcher import Batcher, Receiver, Unfinished
from tenantbase.coherence.filler import Fill, Filler
from tenantbase.coherence.pending import PendingWrite, give_up, least_weight
from tenantbase.coherence.sealed_item import ItemSealer
from tenantbase.coherence.write_queue import WriteQueue
from tenantbase.commands import (
    Applied,
    Command,
    DeletePrefix,
    InPlaceCommand,
    KeyCommand,
    Transaction,
)
from tenantbase.entry import Entry
from tenantbase.errors import Overloaded
from tenantbase.figures import COMMITS
from tenantbase.interfaces.store import GroupResult
from tenantbase.lanes import LaneOf
from tenantbase.plain_sets import PlainSets
from tenantbase.shared_timer import SharedTimer
from tenantbase.stages import Stage
from tenantbase.switching import switching_fast
from tenantbase.waits import BatchCall, note, note_write

Commit = Callable[[Sequence[PendingWrite], float], Awaitable[GroupResult[WriteTags]]]
"""Commits a group of transactions as one, at this time in Unix seconds. The group's ticket has the
tags of what it wrote. Every error is the outcome of a transaction."""

_WRITE_THROUGHS: Final = 7
"""How many groups may be on their way to memcached while the next one is committed."""
_FILLS_AT_ONCE: Final = 256  # of a large group, in one turn of the event loop
_NAMED: Final = (KeyCommand, InPlaceCommand)


class WriteThrough:
    """Commits transactions, in groups.

    Args:
        commit: commits a group to the store.
        filler: stores in memcached what was written.
        timeout: seconds until a write that waits is given up.
        max_queue, max_queue_bytes: writes waiting at most, and what they may hold in memory, of
            large ones and of small ones each, in a single lane; more are refused.
        lane_of: gives the lane of a write's first key or prefix.
    """

    def __init__(
        self,
        commit: Commit,
        sealer: ItemSealer,
        filler: Filler,
        figures: memoryview,
        clock: Callable[[], float],
        timeout: float,
        max_queue: int,
        max_queue_bytes: int,
        lane_of: LaneOf,
    ) -> None:
        self._commit = commit
        self._sealer = sealer
        self._filler = filler
        self._figures = figures
        self._clock = clock
        self._lane_of = lane_of
        self.queue = WriteQueue[PendingWrite, Receiver[tuple[Applied, ...]]](
            max_queue, max_queue_bytes
        )
        self._writes = Batcher(
            self._write_group, queue=self.queue, parallel=1, finishing=_WRITE_THROUGHS
        )
        self._timeouts = SharedTimer(timeout, give_up)

    def write(self, commands: Transaction) -> asyncio.Future[tuple[Applied, ...]]:
        """See ``Cache.write``."""
        pending = self._prepared(commands)
        if pending is None:
            refused = asyncio.get_running_loop().create_future()
            refused.set_exception(_overloaded())
            return refused
        committed = self._writes.submit(pending)
        self._timeouts.watch(committed, pending)
        return committed

    def write_then(self, command: Command, receive: Receiver[tuple[Applied, ...]]) -> None:
        """See ``Cache.write_then``."""
        pending = self._prepared((command,))
        if pending is None:
            asyncio.get_running_loop().call_soon(receive, _overloaded())
            return
        call = BatchCall(receive)
        self._writes.submit_then(pending, call.settle)
        self._timeouts.watch(call, pending)

    def _prepared(self, commands: Transaction) -> PendingWrite | None:
        """The transaction, ready to wait; None if there is no room for it."""
        first = commands[0]
        lane = ""  # of housekeeping
        if isinstance(first, _NAMED):
            lane = self._lane_of(first.key)
        elif isinstance(first, DeletePrefix):
            lane = self._lane_of(first.prefix)
        pending = PendingWrite(commands, lane)
        return pending if self.queue.has_room(lane, pending.large, pending.bytes) else None

    def check_room(self, prefix: str, rows: int) -> None:
        """See ``Cache.check_room``."""
        large, least = least_weight(rows)
        if not self.queue.has_room(self._lane_of(prefix), large, least):
            raise _overloaded()

    async def drained(self) -> None:
        """Wait for every write in flight, and for what it stores in memcached."""
        await self._writes.drained()

    async def _write_group(
        self, group: Sequence[PendingWrite]
    ) -> Sequence[tuple[Applied, ...] | Exception] | Unfinished[tuple[Applied, ...]]:
        began = monotonic_ns()
        large = any(pending.large for pending in group)
        with switching_fast() if large else nullcontext():
            result = await self._commit(group, self._clock())
        note_write(began, result.waited)
        for pending in group:
            pending.settled = True
        # None: withdrawn, and no caller waits for the answer.
        outcomes: list[tuple[Applied, ...] | Exception] = [
            () if outcome is None else outcome for outcome in result.outcomes
        ]
        if result.ticket is None:
            return outcomes
        self._figures[COMMITS] += 1
        if not self._filler.available:
            return outcomes
        # The whole group has one tag for each bucket, so only the last state of a key may be cached
        # under it: an earlier one would pass for the newest.
        last = self._last_states(group, result.outcomes)
        if large:
            return Unfinished(None, partial(self._store_many, last, result.ticket, outcomes))
        fills = self._fills(last, result.ticket)
        if not fills:
            return outcomes
        # Acknowledged after memcached has it, so that the next reader finds it there.
        return Unfinished(None, partial(self._store_fills, fills, outcomes))

    async def _store_fills(
        self, fills: list[Fill], outcomes: list[tuple[Applied, ...] | Exception]
    ) -> list[tuple[Applied, ...] | Exception]:
        began = monotonic_ns()
        await self._filler.store(fills)
        note(Stage.MEMCACHED, began)
        return outcomes

    async def _store_many(
        self,
        last: list[tuple[str, Entry | None]],
        ticket: WriteTags,
        outcomes: list[tuple[Applied, ...] | Exception],
    ) -> list[tuple[Applied, ...] | Exception]:
        """Store what a large group wrote, without holding up the next commit or other work."""
        fills: list[Fill] = []
        for at in range(0, len(last), _FILLS_AT_ONCE):
            fills += self._fills(last[at : at + _FILLS_AT_ONCE], ticket)
            await asyncio.sleep(0)
        return await self._store_fills(fills, outcomes)

    def _last_states(
        self,
        group: Sequence[PendingWrite],
        outcomes: Sequence[tuple[Applied, ...] | Exception | None],
    ) -> list[tuple[str, Entry | None]]:
        """The keys that a group changed, each with its state afterwards."""
        last: dict[str, Entry | None] = {}
        for pending, outcome in zip(group, outcomes, strict=True):
            if outcome is None or isinstance(outcome, Exception):
                continue
            if isinstance(pending.transaction, PlainSets):  # too many to be read again soon
                for key in pending.transaction.keys:
                    last.pop(key, None)
                continue
            for command, applied in zip(pending.transaction, outcome, strict=True):
                if not isinstance(command, KeyCommand):
                    last.clear()  # it may have removed any of the group's keys
                elif applied.entry is not None or applied.removed:
                    last[command.key] = applied.entry
        return list(last.items())

    def _fills(self, states: Sequence[tuple[str, Entry | None]], ticket: WriteTags) -> list[Fill]:
        """What to store in memcached for these keys."""
        now = self._clock()
        fills: list[Fill] = []
        for key, entry in states:
            slot = self._sealer.slot(key)
            self._filler.offer(fills, slot.name, ticket.tag(slot.bucket), entry, now)
        return fills


def _overloaded() -> Overloaded:
    return Overloaded("too many writes are waiting; try again soon")
