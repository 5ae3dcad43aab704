"""The last change of each bucket, as a node of a shared database knows it.

The table is complete up to a *position*: it has every change up to there that was not lost. It grows
by the answers to questions, which list the commits after a position. A copy is valid if its
position is not below that of its bucket's last change, and its term's history reaches that far:
copies of an older term count only up to the position with which the next one began.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Final

from tenantbase.coherence.authority import BUCKETS, Tag, Tags
from tenantbase.coherence.sealed_item import HASH_BUCKET_SHIFT
from tenantbase.interfaces.shared_store import Index, Term

_NO_EPOCH: Final = b""
_NO_BOUND: Final = 1 << 64  # above every position
_NOT_OF_THIS_HISTORY: Final = -1


class ChangeTable:
    """Belongs to the event loop, except ``accepts``.

    Attributes:
        position: every change up to here is in the table.
        terms: of the database, newest first; empty until the first answer.
    """

    def __init__(self) -> None:
        self.position = 0
        self.terms: Sequence[Term] = ()
        self._floor = 0  # copies below it are not valid, whatever their bucket
        self._last = array("Q", bytes(8 * BUCKETS))
        # The newest epoch, and the last position up to which copies of each epoch count. They
        # change together, and other threads read them.
        self._judged: tuple[bytes, Mapping[bytes, int]] = (_NO_EPOCH, {})

    def tags(self, buckets: Sequence[int]) -> Tags:
        """The current tag of each bucket: the newest epoch, and the bucket's last change."""
        epoch, floor, last = self._judged[0], self._floor, self._last
        return [(epoch, max(floor, last[bucket])) for bucket in buckets]

    def accepts(self, sealed: Tag, current: Tag) -> bool:
        """Whether a copy sealed under a tag is valid while its bucket has the second one.

        A pure function of the two, unless there is a newer term: then it is False. So a verdict
        may be remembered for as long as the current tag stays the same.
        """
        newest, bounds = self._judged
        epoch, position = sealed
        bound = bounds.get(epoch, _NOT_OF_THIS_HISTORY)
        return current[1] <= position <= bound and current[0] == newest

    def enter(self, index: Index, after: int, *, shorten: bool = False) -> bool:
        """Enter the answer to the question for the commits after a position.

        Args:
            after: the position that the question named.
            shorten: do not insist on the commits that an incomplete answer leaves out: let no
                copy from before its position count instead.

        Returns: False if the table does not reach the answer's position yet. The next question is
            for the commits after ``position``.
        """
        if index.terms[0].epoch != self._judged[0] and not self._begin_term(index.terms):
            return False  # of an older term: the server has been deposed meanwhile
        if after > self.position:
            return False  # the table was emptied meanwhile, and lacks what is before that
        if index.trimmed > self.position:
            self._floor = self.position = index.trimmed
        last = self._last
        for commit in index.commits:
            if commit.hashes is None:
                self._floor = max(self._floor, commit.position)
                continue
            for each in commit.hashes:
                bucket = each >> HASH_BUCKET_SHIFT
                last[bucket] = max(last[bucket], commit.position)
        if index.complete or shorten:
            if not index.complete:
                self._floor = max(self._floor, index.position)
            self.position = max(self.position, index.position)
            return True
        self.position = max(self.position, index.commits[-1].position)
        return False

    def _begin_term(self, terms: Sequence[Term]) -> bool:
        """Adopt the terms of an answer; False if they are older than the known ones."""
        if any(term.epoch == terms[0].epoch for term in self.terms):
            return False
        bounds: dict[bytes, int] = {}
        bound = _NO_BOUND
        for term in terms:
            bounds[term.epoch] = bound
            bound = min(bound, term.inherited)
        if self.position > bounds.get(self._judged[0], _NOT_OF_THIS_HISTORY):
            # It has changes that the new term lacks, or is of another database's history.
            self.position = self._floor = 0
            self._last = array("Q", bytes(8 * BUCKETS))
        self.terms = terms
        self._judged = terms[0].epoch, bounds
        return True
