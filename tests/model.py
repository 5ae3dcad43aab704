"""An exhaustive model of the coherence protocol, for one key.

Two writers and three readers, each a process of its own, are interleaved in every possible way. A
writer commits a group of one or two versions of the key, may be killed at any step, and its
transaction may roll back. Its COMMIT may also fail with an unknown outcome (because an fsync
failed, say): what it wrote may then appear at any later time, until another commit takes its place
in the log. memcached is as bad as possible: at any time it may answer a get with any item that was
ever made, or with nothing. That covers late, lost, reordered, evicted, resurrected and swapped
items without modelling each.

Property (single-key linearizability; versions grow in commit order): a read never returns an
uncommitted version, nor one older than a version that was acknowledged, or returned by another
read, before it began.

Readers are alike, and so are writers: states that differ only in their order are one state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

RULES: Final = {
    "odd-before-commit": "the sequence becomes odd before COMMIT",
    "even-after-commit": "the sequence becomes even only after COMMIT or ROLLBACK",
    "doubt-stays-odd": "a rollback leaves a sequence odd that an earlier writer had left odd",
    "one-lock": "one lock covers going odd, COMMIT and going even",
    "skip-when-odd": "while the sequence is odd a reader neither trusts the cache nor fills it",
    "compare": "a hit counts only if its tag equals (epoch, sequence)",
    "fresh-sequence": "the sequence compared with is loaded during the read, not remembered",
    "load-before-select": "a filler tags with the sequence loaded before its SELECT",
    "new-epoch": "a new tag file has a new random epoch",
    "last-of-group": "of a group's versions of a key only the last is stored",
    "join-same-tag": "a reader joins another's load only under the tag it loaded itself",
}

Tag = tuple[int, int]
NOBODY: Final = -1
NO_TAG: Final = (-1, -1)


class Writer(NamedTuple):
    at: str = "idle"
    odd: int = 0  # the odd sequence it wrote
    found_odd: bool = False  # whether an earlier writer had left it odd
    first: int = 0  # the oldest version of its group
    last: int = 0  # the newest


class Reader(NamedTuple):
    at: str = "idle"
    floor: int = 0  # the newest version that any reader saw before it began
    tag: Tag = NO_TAG
    value: int = 0


class State(NamedTuple):
    database: int = 1
    doubt: bool = False  # one more version may reappear
    epoch: int = 0
    sequence: int = 0
    lock: int = NOBODY
    seen: int = 1
    items: frozenset[tuple[Tag, int]] = frozenset()
    writers: tuple[Writer, ...] = (Writer(), Writer())
    readers: tuple[Reader, ...] = (Reader(), Reader(), Reader())


class Violation(Exception):
    """A read returned a version that it must not."""


def _writer_steps(s: State, i: int, broken: str | None) -> Iterator[State]:
    w = s.writers[i]
    unlocked = NOBODY if s.lock == i else s.lock

    def move(new: Writer, **changed: object) -> State:
        writers = (new, s.writers[1]) if i == 0 else (s.writers[0], new)
        state = s._replace(writers=writers, **changed)  # type: ignore[arg-type]
        if writers[0] <= writers[1]:
            return state
        lock = state.lock if state.lock == NOBODY else 1 - state.lock
        return state._replace(writers=writers[::-1], lock=lock)

    def commit(at: str, group: int, **changed: object) -> State:
        new = Writer(at, w.odd, w.found_odd, s.database + 1, s.database + group)
        return move(new, database=s.database + group, doubt=False, **changed)

    if w.at == "idle" and (s.lock == NOBODY or broken == "one-lock"):
        yield move(Writer("locked"), lock=i)
    elif w.at == "locked":
        odd = s.sequence | 1  # already odd if a writer was killed there: this one repairs it
        sequence = s.sequence if broken == "odd-before-commit" else odd
        yield move(Writer("odd", odd, s.sequence % 2 == 1), sequence=sequence)
    elif w.at == "odd":
        if broken == "even-after-commit":
            yield move(Writer("even too early", w.odd), sequence=w.odd + 1)
        else:
            for group in (1, 2):
                yield commit("committed", group)
            yield move(Writer("rolled back", w.odd, w.found_odd))
            yield move(Writer("ended"), lock=unlocked, doubt=True)  # the outcome is unknown
    elif w.at == "even too early":
        yield commit("even", 1, lock=unlocked)
    elif w.at == "rolled back" and w.found_odd and broken != "doubt-stays-odd":
        yield move(Writer("ended"), lock=unlocked)
    elif w.at in ("committed", "rolled back"):
        yield move(w._replace(at="even"), sequence=w.odd + 1, lock=unlocked)
    elif w.at == "even":
        done = w._replace(at="published")
        yield move(done)
        versions = {w.first, w.last} if broken == "last-of-group" else {w.last}
        for version in versions - {0}:
            yield move(done, items=s.items | {((s.epoch, w.odd + 1), version)})
    elif w.at == "published":
        yield move(Writer("ended"), seen=max(s.seen, w.last))
    if w.at not in ("idle", "ended"):
        yield move(Writer("ended"), lock=unlocked)  # killed


def _reader_steps(s: State, i: int, broken: str | None) -> Iterator[State]:
    r = s.readers[i]
    now: Tag = (s.epoch, s.sequence)
    odd = s.sequence % 2 and broken != "skip-when-odd"

    def move(new: Reader, **changed: object) -> State:
        readers = tuple(sorted(s.readers[:i] + (new,) + s.readers[i + 1 :]))
        return s._replace(readers=readers, **changed)  # type: ignore[arg-type]

    def answer(version: int, **changed: object) -> State:
        if version < r.floor:
            raise Violation(f"returns {version}, but {r.floor} was seen before it began")
        if version > s.database:
            raise Violation(f"returns {version}, which is not committed")
        return move(Reader("ended"), seen=max(s.seen, version), **changed)

    if r.at == "idle":
        if broken != "fresh-sequence":
            yield move(Reader("begun", s.seen))
        elif not odd:
            yield move(Reader("tag remembered", 0, now))
    elif r.at == "tag remembered":
        yield move(Reader("tag loaded", s.seen, r.tag))
    elif r.at == "begun":
        yield answer(s.database) if odd else move(Reader("tag loaded", r.floor, now))
    elif r.at == "tag loaded":
        for tag, version in s.items:
            if tag == r.tag or broken == "compare":
                yield answer(version)  # a hit
        for other in s.readers:
            if other.at == "row read" and (other.tag == r.tag or broken == "join-same-tag"):
                yield answer(other.value)  # joined the other's load
        after = "row read, tag late" if broken == "load-before-select" else "row read"
        yield move(Reader(after, r.floor, r.tag, s.database))
    elif r.at == "row read, tag late":
        yield move(Reader("row read", r.floor, now, r.value))
    elif r.at == "row read":
        yield answer(r.value, items=s.items | {(r.tag, r.value)})
        yield answer(r.value)


def _steps(s: State, broken: str | None) -> Iterator[State]:
    for i, writer in enumerate(s.writers):
        # Without the lock, two writers at the same step differ in who is to release it.
        if writer not in s.writers[:i] or broken == "one-lock":
            yield from _writer_steps(s, i, broken)
    for i, reader in enumerate(s.readers):
        if reader not in s.readers[:i]:
            yield from _reader_steps(s, i, broken)
    if s.doubt:
        yield s._replace(database=s.database + 1, doubt=False)
    # Once, every process is stopped and started again: a new tag file. A write of unknown outcome
    # that has not reappeared by then is gone.
    places = {w.at for w in s.writers} | {r.at for r in s.readers}
    if s.epoch == 0 and "ended" in places <= {"idle", "ended"}:
        yield s._replace(epoch=0 if broken == "new-epoch" else 1, sequence=0, doubt=False)


def explore(broken: str | None = None) -> int:
    """Visit every reachable state. Returns: their number.

    Args:
        broken: a rule to leave out.

    Raises:
        Violation: the property does not hold.
    """
    reached = {State()}
    queue = deque(reached)
    while queue:
        for state in _steps(queue.popleft(), broken):
            if state not in reached:
                reached.add(state)
                queue.append(state)
    return len(reached)
