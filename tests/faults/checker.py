"""Decides whether the history of one key is linearizable, in nearly linear time.

The versions make it fast: they give the order of all observed writes. Two things remain open: when
deletes took effect, and which writes of unknown outcome took effect unobserved. So the sweep visits
the operations' beginnings and ends in order, and linearizes each operation no later than at its end
(just-in-time linearization, after Lowe, "Testing for linearizability"). It keeps the few *points*
that the key may have reached, and advances them only if an operation that ends requires it.

The sweep may use a delete twice: if it was in flight while the key was absent, that explains it (it
    is *excused*), but it may also be the delete that ended a later life.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from tests.faults.history import Operation, Violation, by_key

_ABSENT: Final = -1
_UNSEEN: Final = -2  # a key's life that began with an unobserved write
_Class = tuple[str, int, int, bool, int | None]  # interchangeable writes of unknown outcome
_Place = tuple[int, int, bool, int | str | None]


class _Version(NamedTuple):
    """A version that a client read, or got for its write."""

    version: int
    value: int | str | None
    life: int  # index of the key's life; each life has its own id
    first: bool  # the first observed version of its life
    writer: Operation | None  # None means any matching increment of unknown outcome


class _Point(NamedTuple):
    """A state that the key may have reached, and the operations used to get there."""

    next: int = 0  # index of the next version
    life: int = _ABSENT
    seen: bool = False  # it is exactly at version ``next - 1``
    value: int | str | None = None
    done: frozenset[int] = frozenset()  # operations in flight that are already explained
    used: frozenset[int] = frozenset()  # deletes in flight that ended a life
    spent: tuple[tuple[_Class, int], ...] = ()  # unobserved writes of unknown outcome


def check(operations: Sequence[Operation]) -> None:
    """Check every key's history; all keys are absent at first.

    Raises:
        Violation: the first one found, with the operations that contradict each other.
    """
    for history in by_key(operations).values():
        _Sweep(history).run()


def _class(op: Operation) -> _Class:
    by, initial = (op.by, op.initial) if op.kind == "increment" else (0, 0)
    return (op.kind, by, initial, op.if_absent, op.if_version)


def _versions(history: Sequence[Operation]) -> list[_Version]:
    """The versions in order, each with its writer. Makes the checks that need no times."""
    sets: dict[int | str | None, Operation] = {}
    for op in history:
        if op.kind == "set" and op.outcome != "refused":
            if op.value in sets:
                raise ValueError(f"two sets write {op.value!r}; the checker needs them to differ")
            sets[op.value] = op
    counter = any(op.kind == "increment" for op in history)
    if any(op.by <= 0 for op in history):
        raise ValueError("counters only grow")
    if counter and sets:
        raise ValueError("a key is set or counted, not both")
    known: dict[int, tuple[Operation, Operation | None]] = {}
    for op in history:
        if op.outcome != "ok" or op.version is None:
            continue
        witness, writer = known.get(op.version, (op, None))
        if (witness.value, witness.id) != (op.value, op.id):
            raise Violation("one version, two contents", witness, op)
        if op.kind != "get":
            if writer is not None and writer is not op:
                raise Violation("one version given to two writes", writer, op)
            writer = op
        elif writer is None and not counter:
            writer = sets.get(op.value)
            if writer is None:
                raise Violation("a value that was never written", op)
            if writer.outcome == "failed":
                raise Violation("a write that was reported as not made was made", writer, op)
            if writer.outcome == "ok" and writer.version != op.version:
                raise Violation("a write was made twice", writer, op)
        known[op.version] = (op, writer)
    versions: list[_Version] = []
    lives: dict[str | None, int] = {}
    written: dict[int, _Version] = {}
    for number in sorted(known):
        witness, writer = known[number]
        first = witness.id not in lives
        life = lives.setdefault(witness.id, len(lives))
        if life != len(lives) - 1:
            raise Violation("an id came back after another id of the key", witness)
        if writer is not None and writer.outcome == "ok" and writer.created and not first:
            raise Violation("a write says it made an entry that was there", writer)
        if writer is not None and writer.outcome == "unknown":
            if id(writer) in written:
                raise Violation("a write was made twice", writer, witness)
            written[id(writer)] = _Version(number, witness.value, life, first, writer)
        versions.append(_Version(number, witness.value, life, first, writer))
    return versions


class _Sweep:
    """One key's history. ``points`` are the states that the key may have reached."""

    def __init__(self, history: Sequence[Operation]) -> None:
        self.history = [
            op
            for op in history
            if op.outcome in ("ok", "refused") or (op.outcome == "unknown" and op.kind != "get")
        ]
        self.versions = _versions(history)
        self.index = {each.version: i for i, each in enumerate(self.versions)}
        writers = {id(each.writer) for each in self.versions if each.writer is not None}
        self.active: set[int] = set()
        self.begun: dict[tuple[str, int | None], Counter[_Class]] = {}
        self.anonymous = {
            i
            for i, op in enumerate(self.history)
            if op.outcome == "unknown" and id(op) not in writers
        }
        self.points = {_Point()}

    def run(self) -> None:
        events: list[tuple[int, int, int]] = []
        for i, op in enumerate(self.history):
            events.append((op.start, 0, i))
            if op.outcome != "unknown":
                events.append((op.end, 1, i))
        for time, ends, i in sorted(events):
            if ends:
                self._end(i, time)
            elif i in self.anonymous:
                kind = _class(self.history[i])
                self.begun.setdefault((kind[0], kind[4]), Counter())[kind] += 1
            elif self.history[i].outcome != "unknown":
                self.active.add(i)
                self.points = {self._witness(point) for point in self.points}

    def _end(self, i: int, now: int) -> None:
        op = self.history[i]
        reached: set[_Point] = set()
        for point in self.points:
            if i in point.done:
                reached.add(point)
            if i not in point.done or (op.kind == "delete" and i not in point.used):
                reached |= self._reach(point, i, now)
        if not reached:
            raise Violation(*self._explain(i))
        self.active.discard(i)
        gone = frozenset((i,))
        self.points = _best(p._replace(done=p.done - gone, used=p.used - gone) for p in reached)

    def _reach(self, origin: _Point, i: int, now: int) -> set[_Point]:
        """The nearest points ahead at which operation ``i`` is explained.

        If it is a delete that is already explained, tries its other use: to end a life.
        """
        found: set[_Point] = set()
        tried: dict[_Place, list[_Point]] = {}
        queue = [origin]
        while queue:
            here = queue.pop()
            for point in self._moves(here, now):
                known = tried.setdefault(point[:4], [])
                if any(_better(other, point) for other in known):
                    continue
                known.append(point)
                if i in point.used or (i in point.done and i not in here.done):
                    found.add(point)
                    if i in point.used or self.history[i].kind != "delete":
                        continue
                queue.append(point)
        return found

    def _moves(self, point: _Point, now: int) -> Iterator[_Point]:
        """Every single step ahead from a point."""
        upcoming = self.versions[point.next] if point.next < len(self.versions) else None
        if upcoming is not None:
            yield from self._advance(point, upcoming, now)
        if point.life != _ABSENT and (upcoming is None or upcoming.first or point.life == _UNSEEN):
            yield from self._delete(point)
        yield from self._unseen(point, upcoming)

    def _advance(self, point: _Point, upcoming: _Version, now: int) -> Iterator[_Point]:
        """The next version is written."""
        writer = upcoming.writer
        alive = point.life != _ABSENT
        if upcoming.first:
            if point.life not in (_ABSENT, _UNSEEN):
                return
        elif point.life != upcoming.life:
            return
        after = point._replace(
            next=point.next + 1, life=upcoming.life, seen=True, value=upcoming.value
        )
        if writer is None:
            for kind in self._available(point, "increment"):
                base = point.value if alive else kind[2]
                if isinstance(base, int) and base + kind[1] == upcoming.value:
                    yield self._witness(_spend(after, kind))
            return
        if writer.start > now or not self._permits(point, writer.if_absent, writer.if_version):
            return
        if writer.outcome == "ok":
            if writer.created == alive:
                return
            if writer.kind == "increment":
                base = point.value if alive else writer.initial
                if not isinstance(base, int) or base + writer.by != writer.value:
                    return
        yield self._witness(after)

    def _delete(self, point: _Point) -> Iterator[_Point]:
        """Delete the entry, by the first delete in flight to end, or by one of unknown outcome."""
        absent = point._replace(life=_ABSENT, seen=False, value=None)
        free = [
            i
            for i in self.active - point.used
            if self.history[i].kind == "delete" and self.history[i].outcome == "ok"
        ]
        earliest: dict[int | None, int] = {}
        for i in sorted(free, key=lambda i: self.history[i].end):
            op = self.history[i]
            if self._permits(point, op.if_absent, op.if_version):
                earliest.setdefault(op.if_version, i)
        for i in earliest.values():
            explained, used = point.done | {i}, point.used | {i}
            yield self._witness(absent._replace(done=explained, used=used))
        for kind in self._available(point, "delete"):
            yield self._witness(_spend(absent, kind))

    def _unseen(self, point: _Point, upcoming: _Version | None) -> Iterator[_Point]:
        """A write of unknown outcome takes effect, and its version is never observed. Tried only if
        it can explain something: a write that replaced an entry, a counter that skipped a number, a
        condition that did not hold. The last may be that of any operation in flight: a delete that
        ends sooner is then the last that can remove the entry again.
        """
        refused = any(self.history[i].outcome == "refused" for i in self.active - point.done)
        absent = point.life == _ABSENT
        replaces = (
            upcoming is not None
            and upcoming.first
            and upcoming.writer is not None
            and upcoming.writer.outcome == "ok"
            and not upcoming.writer.created
        )
        for kind in (*self._available(point, "set"), *self._available(point, "increment")):
            what, by, initial, *_ = kind
            value: int | None = None
            skips = False
            if what == "increment":
                base = initial if absent else point.value
                assert isinstance(base, int)
                value = base + by
                if upcoming is not None and isinstance(upcoming.value, int):
                    skips = value < upcoming.value
            wanted = (absent and replaces) or skips or refused
            if wanted:
                life = _UNSEEN if absent else point.life
                after = point._replace(life=life, seen=False, value=value)
                yield self._witness(_spend(after, kind))

    def _permits(self, point: _Point, if_absent: bool, if_version: int | None) -> bool:
        if if_absent and point.life != _ABSENT:
            return False
        return if_version is None or if_version == self._version(point)

    def _version(self, point: _Point) -> int | None:
        return self.versions[point.next - 1].version if point.seen else None

    def _available(self, point: _Point, kind: str) -> list[_Class]:
        """The writes of unknown outcome that may take effect here. Of several with the same effect,
        only the one with the narrowest condition, because it is the least likely to fit later.
        """
        spent = dict(point.spent)
        best: dict[tuple[int, int], _Class] = {}
        for version in (self._version(point), None):
            for each, count in self.begun.get((kind, version), {}).items():
                _, by, initial, if_absent, _ = each
                if count > spent.get(each, 0) and not (if_absent and point.life != _ABSENT):
                    if if_absent or (by, initial) not in best:
                        best[by, initial] = each
        return list(best.values())

    def _witness(self, point: _Point) -> _Point:
        """The point, plus the operations that an existing key explains."""
        explained = {i for i in self.active - point.done if self._explains(point, i)}
        return point._replace(done=point.done | explained) if explained else point

    def _explains(self, point: _Point, i: int) -> bool:
        op = self.history[i]
        absent = point.life == _ABSENT
        if op.outcome == "refused":
            return not self._permits(point, op.if_absent, op.if_version)
        if op.kind == "get":
            return absent if op.version is None else op.version == self._version(point)
        if op.kind == "delete":
            return absent and self._permits(point, op.if_absent, op.if_version)
        return op.version is not None and self.index[op.version] < point.next

    def _explain(self, i: int) -> tuple[str, *tuple[Operation, ...]]:
        op = self.history[i]
        if op.version is not None:
            newer = [
                other
                for other in self.history
                if other.outcome == "ok"
                and other.end < op.start
                and other.version is not None
                and other.version > op.version
            ]
            if newer:
                newest = max(newer, key=lambda other: other.version or 0)
                return ("a newer version was seen before this began", newest, op)
        before = [o for o in self.history if o.outcome == "ok" and o.end < op.start]
        last = max(before, key=lambda o: o.end, default=op)
        return ("no order of the operations explains this", last, op)


def _spend(point: _Point, kind: _Class) -> _Point:
    spent = Counter(dict(point.spent))
    spent[kind] += 1
    return point._replace(spent=tuple(sorted(spent.items(), key=repr)))


def _best(points: Iterator[_Point]) -> set[_Point]:
    """Remove the points that another point dominates."""
    groups: dict[_Place, list[_Point]] = {}
    for point in set(points):
        groups.setdefault(point[:4], []).append(point)
    kept: set[_Point] = set()
    for group in groups.values():
        for point in group:
            if not any(_better(other, point) for other in group if other is not point):
                kept.add(point)
    return kept


def _better(one: _Point, other: _Point) -> bool:
    spent = dict(other.spent)
    return (
        one.done >= other.done
        and one.used <= other.used
        and all(count <= spent.get(kind, 0) for kind, count in one.spent)
    )
