"""The read index: the authority of a database that several machines share.

A node remembers the last change of each bucket (``change_table.py``). A batch of reads asks the
database one question, whatever the number of keys: which commits are there after the last known
one? The answer is as of a moment after the question was sent, and the question is sent after all
reads of the batch have begun, so afterwards the table has every change that they must see. (etcd
calls this a read index.) No clock is compared, and no other node is involved.

A read that arrives while a question is in flight waits for the next one: the answer may be older
than the read.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Final

from tenantbase.coherence.authority import Answer
from tenantbase.coherence.batcher import Batcher
from tenantbase.coherence.change_table import ChangeTable
from tenantbase.figures import (
    QUESTION_DURATION,
    QUESTION_READS,
    SECOND,
    STORE_CONFIRMED_AT,
    STORE_POSITION,
    STORE_TERM,
    private_cells,
)
from tenantbase.interfaces.shared_store import Index

_PARALLEL: Final = 2  # questions in flight, as many as the store has connections for them
_BATCHES: Final = 256  # answered by one question
# Of 1,000 commits each. A node that is further behind drops its older copies instead, so that no read
# waits for longer than this takes.
_PAGES: Final = 100
_POLL_SECONDS: Final = 0.02  # an answer to a question that was sent since makes a poll unnecessary


class ReadIndex:
    """See ``Authority``. Belongs to one event loop.

    Args:
        ask: see ``SharedStore.ask``.
        figures: the worker's cells; None: private ones.
        monotonic: the clock that measures how long ago an answer was.
    """

    parallel = _PARALLEL

    def __init__(
        self,
        ask: Callable[[int], Awaitable[Index]],
        *,
        figures: memoryview | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._figures = private_cells() if figures is None else figures
        self._monotonic = monotonic
        self._table = ChangeTable()
        self._numbers = count(1)
        # Of the last answer: its question and when that was sent; its time and when it came.
        self._question = 0
        self._sent_at = -math.inf
        self._now_at = monotonic()
        self._now = time.time()  # until the first answer
        self._questions = Batcher[Sequence[int], Answer](
            self._answer, limit=_BATCHES, parallel=_PARALLEL
        )
        self.accepts = self._table.accepts

    @property
    def commits(self) -> int:
        """The position up to which the node knows every change."""
        return self._table.position

    def now(self) -> float:
        """The database's time, in Unix seconds: that of the last answer, and what passed since."""
        return self._now + self._monotonic() - self._now_at

    def tags(self, buckets: Sequence[int]) -> asyncio.Future[Answer]:
        """The tags of these buckets, after a question of which every read so far is a part."""
        return self._questions.submit(buckets)

    def remembered(self, buckets: Sequence[int], max_age: float) -> Answer | None:
        """The tags as of the last answer, if its question was sent so recently."""
        if self._monotonic() - self._sent_at > max_age:
            return None
        return Answer(self._table.tags(buckets), self.now(), self._question)

    async def poll(self) -> None:
        """Ask, unless reads have just done so."""
        if self._monotonic() - self._sent_at > _POLL_SECONDS:
            await self._questions.submit(())

    async def drained(self) -> None:
        """Wait for the questions in flight."""
        await self._questions.drained()

    async def _answer(self, batches: Sequence[Sequence[int]]) -> list[Answer]:
        number = next(self._numbers)
        began = time.monotonic_ns()
        index = await self._confirm(number)
        figures = self._figures
        QUESTION_DURATION.add(figures, time.monotonic_ns() - began)
        figures[QUESTION_READS] += sum(map(len, batches))
        table = self._table
        # No await since the table was completed: the tags are those of this answer, or later ones.
        return [Answer(table.tags(buckets), index.now, number) for buckets in batches]

    async def _confirm(self, number: int) -> Index:
        """Ask until the table has every change up to the answer's position."""
        table = self._table
        complete, pages = False, 0
        while not complete:
            sent_at, after = self._monotonic(), table.position
            index = await self._ask(after)
            pages += 1
            complete = table.enter(index, after, shorten=pages >= _PAGES)
        if sent_at >= self._sent_at:  # otherwise a later question was answered before this one
            self._note(index, number, sent_at)
        return index

    def _note(self, index: Index, number: int, sent_at: float) -> None:
        self._question, self._sent_at = number, sent_at
        self._now, self._now_at = index.now, self._monotonic()
        figures = self._figures
        figures[STORE_POSITION] = self._table.position
        figures[STORE_TERM] = len(self._table.terms)
        figures[STORE_CONFIRMED_AT] = round(sent_at * SECOND)
