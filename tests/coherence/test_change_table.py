"""The table of last changes: single rules, and random histories compared with a naive judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tenantbase.coherence.authority import Tag
from tenantbase.coherence.change_table import ChangeTable
from tenantbase.coherence.sealed_item import HASH_BUCKET_SHIFT, bucket_of, hash_of
from tenantbase.interfaces.shared_store import Commit, Index, Term
from tests.fake_cluster import TERM_GAP, FakeCluster

A: Final = Term(b"a" * 16, 0)
BUCKETS: Final = (0, 1, 65_535)


def hash_in(bucket: int) -> int:
    return bucket << HASH_BUCKET_SHIFT | 7


def answer(
    position: int,
    *commits: Commit,
    terms: Sequence[Term] = (A,),
    trimmed: int = 0,
    complete: bool = True,
) -> Index:
    return Index(terms, position, trimmed, 1.0, commits, complete)


def valid(table: ChangeTable, bucket: int, position: int, term: Term = A) -> bool:
    """Whether the table accepts a copy of this stamp."""
    (tag,) = table.tags([bucket])
    assert tag is not None
    return table.accepts((term.epoch, position), tag)


def test_hash_of_a_name_has_its_bucket() -> None:
    name = b"0123456789abcdef0123456789abcdef"
    assert hash_of(name) == 0x01234567
    assert hash_of(name) >> HASH_BUCKET_SHIFT == bucket_of(name)


def test_copy_is_valid_from_the_last_change_of_its_bucket() -> None:
    table = ChangeTable()
    assert table.enter(answer(9, Commit(3, [hash_in(1)]), Commit(7, [hash_in(1)])), 0)
    assert table.position == 9
    assert [valid(table, 1, at) for at in (6, 7, 8, 12)] == [False, True, True, True]
    assert valid(table, 0, 0), "of another bucket"


def test_commit_of_unknown_keys_concerns_every_bucket() -> None:
    table = ChangeTable()
    assert table.enter(answer(7, Commit(7, None)), 0)
    assert [valid(table, bucket, 6) for bucket in BUCKETS] == [False] * 3
    assert [valid(table, bucket, 7) for bucket in BUCKETS] == [True] * 3


def test_answer_with_more_to_come_is_not_enough() -> None:
    table = ChangeTable()
    assert not table.enter(answer(9, Commit(3, [hash_in(1)]), complete=False), 0)
    assert table.position == 3, "the next question is for the commits after it"
    assert table.enter(answer(9, Commit(9, [hash_in(1)])), 3)
    assert not valid(table, 1, 3)


def test_shortened_answer_lets_nothing_older_count() -> None:
    table = ChangeTable()
    assert table.enter(answer(9, Commit(3, [hash_in(1)]), complete=False), 0, shorten=True)
    assert table.position == 9
    assert [valid(table, bucket, 8) for bucket in BUCKETS] == [False] * 3
    assert [valid(table, bucket, 9) for bucket in BUCKETS] == [True] * 3


def test_what_was_trimmed_before_it_was_read_may_have_changed_anything() -> None:
    table = ChangeTable()
    assert table.enter(answer(2), 0)
    assert table.enter(answer(9, Commit(8, [hash_in(1)]), trimmed=5), 2)
    assert [valid(table, 0, at) for at in (4, 5)] == [False, True]
    assert [valid(table, 1, at) for at in (5, 8)] == [False, True]


def test_trimming_what_is_known_costs_nothing() -> None:
    table = ChangeTable()
    assert table.enter(answer(7, Commit(7, [hash_in(1)])), 0)
    assert table.enter(answer(7, trimmed=7), 7)
    assert valid(table, 0, 0)


def test_answers_may_come_in_any_order() -> None:
    table = ChangeTable()
    first, second = Commit(3, [hash_in(1)]), Commit(5, [hash_in(1)])
    assert table.enter(answer(5, first, second), 0)
    assert table.enter(answer(3, first), 0)
    assert table.position == 5
    assert not table.enter(answer(9, first, complete=False), 0)
    assert table.position == 5, "a late page of it does not set the table back"
    assert not valid(table, 1, 3)


def test_copies_of_an_older_term_count_as_far_as_they_were_inherited() -> None:
    table = ChangeTable()
    assert table.enter(answer(5), 0)
    b, c = Term(b"b" * 16, 5), Term(b"c" * 16, 5 + TERM_GAP)
    assert table.enter(answer(5 + 2 * TERM_GAP, terms=(c, b, A)), 5)
    assert [valid(table, 1, at) for at in (5, 6)] == [True, False]
    assert [valid(table, 1, at, b) for at in (5 + TERM_GAP, 6 + TERM_GAP)] == [True, False]
    assert valid(table, 1, 9 + 2 * TERM_GAP, c)
    assert not valid(table, 1, 5, Term(b"x" * 16, 0)), "of another database"


def test_term_in_between_bounds_the_copies_of_all_older_ones() -> None:
    """The second promotion inherits positions of the first one's term, but not of the one before."""
    table = ChangeTable()
    b, c = Term(b"b" * 16, 5), Term(b"c" * 16, 5 + TERM_GAP)
    assert table.enter(answer(5 + 2 * TERM_GAP, terms=(c, b, A)), 0)
    assert not valid(table, 1, 6, A)


def test_table_with_more_than_a_term_inherited_is_made_anew() -> None:
    table = ChangeTable()
    assert table.enter(answer(9, Commit(9, [hash_in(1)])), 0)
    b = Term(b"b" * 16, 8)
    after_loss = answer(8 + TERM_GAP, terms=(b, A))
    assert not table.enter(after_loss, 9), "what it lists begins after what was lost"
    assert table.position == 0
    assert table.enter(after_loss, 0)
    assert valid(table, 1, 8), "the change at 9 is gone"


def test_table_that_is_made_anew_forgets_what_concerned_every_bucket() -> None:
    table = ChangeTable()
    assert table.enter(answer(9, Commit(9, None)), 0)
    after_loss = answer(8 + TERM_GAP, terms=(Term(b"b" * 16, 8), A))
    assert not table.enter(after_loss, 9)
    assert table.enter(after_loss, 0)
    assert [valid(table, bucket, 8) for bucket in BUCKETS] == [True] * 3, "9 is gone"


def test_answer_of_a_deposed_server_is_not_entered() -> None:
    table = ChangeTable()
    b = Term(b"b" * 16, 5)
    assert table.enter(answer(5 + TERM_GAP, terms=(b, A)), 0)
    assert not table.enter(answer(9, Commit(9, None)), 0)
    assert valid(table, 1, 5)


def test_answer_from_before_the_table_was_made_anew_is_not_entered() -> None:
    table = ChangeTable()
    assert table.enter(answer(9, Commit(9, [hash_in(1)])), 0)
    b = Term(b"b" * 16, 8)
    later = answer(9 + TERM_GAP, Commit(9 + TERM_GAP, [hash_in(0)]), terms=(b, A))
    assert not table.enter(later, 9)
    assert not table.enter(later, 9)
    assert table.position == 0


def test_tag_of_an_older_term_accepts_nothing() -> None:
    """A verdict is remembered with the tag it was made for, so it must not change later."""
    table = ChangeTable()
    assert table.enter(answer(5), 0)
    (before,) = table.tags([1])
    assert before is not None and table.accepts((A.epoch, 5), before)
    assert table.enter(answer(5 + TERM_GAP, terms=(Term(b"b" * 16, 5), A)), 5)
    assert not table.accepts((A.epoch, 5), before)


class Question(NamedTuple):
    """A question in flight, with everything that is true at its moment."""

    after: int
    answer: Index
    log: list[Commit]


class Run:
    """A database, a node's table, and questions that are answered in any order."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.table = ChangeTable()
        self.log: list[Commit] = []
        self.trimmed = False
        self.stamps: list[Tag] = [self.stamp()]
        self.in_flight: list[Question] = []
        self.latest: Question | None = None

    def stamp(self) -> Tag:
        return self.cluster.terms[0].epoch, self.cluster.position

    def write(self, bucket: int | None) -> None:
        self.cluster.states.append(self.cluster.tables.copy())
        self.cluster.tables.version += 1
        hashes = None if bucket is None else [hash_in(bucket)]
        self.log.append(Commit(self.cluster.position, hashes))
        self.cluster.commits.append(self.log[-1])
        self.stamps.append(self.stamp())

    def fail_over(self, lose: int) -> None:
        lose = min(lose, len(self.cluster.states), len(self.cluster.commits))
        self.cluster.fail_over(lose)
        del self.log[len(self.log) - lose :]
        self.stamps.append(self.stamp())

    def trim(self, kept: int) -> None:
        self.trimmed = True
        self.cluster.trim(kept)

    def ask(self, page: int) -> None:
        self.cluster.page = page
        after = self.table.position
        self.in_flight.append(Question(after, self.cluster.index(after), list(self.log)))

    def receive(self, at: int) -> None:
        if not self.in_flight:
            return
        question = self.in_flight.pop(at % len(self.in_flight))
        if self.table.enter(question.answer, question.after):
            if self.latest is None or (
                question.answer.position > self.latest.answer.position
                or question.answer.terms != self.latest.answer.terms
            ):
                self.latest = question
            self.check(self.latest)

    def check(self, latest: Question) -> None:
        # A later answer that was incomplete may have taken the table further.
        assert self.table.position >= latest.answer.position
        for bucket in BUCKETS:
            accepted = {stamp for stamp in self.stamps if self.accepts(bucket, stamp)}
            true = {stamp for stamp in self.stamps if self.is_newest(latest, bucket, stamp)}
            assert accepted <= true
            if not self.trimmed and self.table.position == latest.answer.position:
                assert accepted == true

    def accepts(self, bucket: int, stamp: Tag) -> bool:
        return valid(self.table, bucket, stamp[1], Term(stamp[0], 0))

    @staticmethod
    def is_newest(latest: Question, bucket: int, stamp: Tag) -> bool:
        """Whether a copy of this stamp shows the bucket as it was when the question was asked, or later."""
        epoch, position = stamp
        epochs = [term.epoch for term in latest.answer.terms]
        if epoch not in epochs:
            return False
        later = latest.answer.terms[: epochs.index(epoch)]
        if any(position > term.inherited for term in later):
            return False
        changes = [
            commit.position
            for commit in latest.log
            if commit.hashes is None or hash_in(bucket) in commit.hashes
        ]
        return all(change <= position for change in changes)


STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(BUCKETS)),
    st.tuples(st.just("write"), st.sampled_from(BUCKETS)),
    st.tuples(st.just("write"), st.none()),
    st.tuples(st.just("ask"), st.sampled_from([1, 2, 1_000])),
    st.tuples(st.just("receive"), st.integers(0, 3)),
    st.tuples(st.just("fail_over"), st.integers(0, 3)),
    st.tuples(st.just("trim"), st.integers(0, 2)),
)


@settings(max_examples=300)
@given(st.lists(STEPS, max_size=40))
@example([("ask", 1), ("write", 0), ("write", 0), ("ask", 1), ("receive", 1), ("receive", 0)])
def test_random_histories(steps: list[tuple[str, int | None]]) -> None:
    run = Run()
    for name, argument in [*steps, ("ask", 1_000), ("receive", -1)]:
        getattr(run, name)(argument)
