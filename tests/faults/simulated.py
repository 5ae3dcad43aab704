"""Histories of a simulated, correct key-value service, and small lies about them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from tests.faults.history import NEVER, Operation


@dataclass
class _Register:
    """One key of a correct service."""

    alive: bool = False
    version: int | None = None
    value: int | str | None = None
    id: str | None = None
    clock: int = 0
    lives: int = 0
    count: int = 0
    told: list[int] = field(default_factory=list)  # versions that some client knows

    def apply(self, asked: Operation) -> Operation:
        """Carry out the operation. Returns: the operation with its answer."""
        if asked.kind == "get":
            return msgspec.structs.replace(
                asked, version=self.version, value=self.value, id=self.id
            )
        if not asked.condition_holds(self.alive, self.version):
            return msgspec.structs.replace(asked, outcome="refused")
        if asked.kind == "delete":
            self.alive, self.version, self.value, self.id = False, None, None, None
            return asked
        created = not self.alive
        if created:
            self.lives += 1
            self.id = f"id{self.lives}"
        self.clock += 1
        self.value = asked.value
        if asked.kind == "increment":
            self.count = (asked.initial if created else self.count) + asked.by
            self.value = self.count
        self.alive, self.version = True, self.clock
        return msgspec.structs.replace(
            asked, version=self.version, value=self.value, id=self.id, created=created
        )


def _asked(chance: random.Random, number: int, counter: bool, register: _Register) -> Operation:
    kind = chance.choice(("get", "get", "get", "set", "set", "delete"))
    blank = Operation("k", "get", 0, 0)
    if kind == "get":
        return blank
    if kind == "delete":
        version = chance.choice((None, None, register.told[-1])) if register.told else None
        return msgspec.structs.replace(
            blank, kind="delete", if_version=None if counter else version
        )
    if counter:
        return msgspec.structs.replace(blank, kind="increment", if_absent=chance.random() < 0.1)
    condition: dict[str, object] = {}
    if chance.random() < 0.2:
        condition["if_absent"] = True
    elif register.told and chance.random() < 0.3:
        condition["if_version"] = chance.choice(register.told[-3:])
    return msgspec.structs.replace(blank, kind="set", value=f"v{number}", **condition)


def simulated(
    chance: random.Random,
    size: int,
    *,
    clients: int = 4,
    counter: bool = False,
    lost: float = 0.2,
) -> list[Operation]:
    """A linearizable history of about ``size`` operations on one key.

    Args:
        clients: the most operations in flight.
        counter: increments instead of sets.
        lost: the share of writes whose outcome remains unknown.
    """
    register = _Register()
    time = 0
    history: list[Operation] = []
    begun: list[Operation] = []
    made: list[Operation] = []
    late: list[Operation] = []

    def begin() -> None:
        asked = _asked(chance, time, counter, register)
        begun.append(msgspec.structs.replace(asked, start=time))

    def make() -> None:
        if late and chance.random() < 0.2:
            register.apply(late.pop(chance.randrange(len(late))))
        elif begun:
            asked = begun.pop(chance.randrange(len(begun)))
            if asked.kind != "get" and chance.random() < lost:
                history.append(msgspec.structs.replace(asked, end=NEVER, outcome="unknown"))
                late.append(asked)
            else:
                made.append(register.apply(asked))

    def end() -> None:
        if made:
            done = made.pop(chance.randrange(len(made)))
            history.append(msgspec.structs.replace(done, end=time))
            if done.version is not None:
                register.told.append(done.version)

    steps: list[Callable[[], None]] = [begin, make, end]
    while len(history) < size:
        time += 1
        step = chance.choice(steps)
        if step is not begin or len(begun) + len(made) < clients:
            step()
    while begun or made:
        time += 1
        chance.choice((make, end))()
    return sorted(history, key=lambda each: each.start)


def mutated(chance: random.Random, history: list[Operation]) -> list[Operation]:
    """The history with one change, which may make it wrong."""
    changed = list(history)
    at = chance.randrange(len(changed))
    op = changed[at]
    others = [other for other in history if other.version is not None]
    lie = chance.randrange(5)
    if lie == 0 and op.kind == "get":
        seen = chance.choice([*others, Operation("k", "get", 0, 0)])
        op = msgspec.structs.replace(op, version=seen.version, value=seen.value, id=seen.id)
    elif lie == 1 and op.outcome != "unknown":
        start = op.start + chance.randint(-3, 3)
        op = msgspec.structs.replace(
            op, start=start, end=max(start, op.end + chance.randint(-6, 3))
        )
    elif lie == 2 and op.kind in ("set", "increment", "delete") and op.outcome == "ok":
        op = msgspec.structs.replace(op, outcome="failed")
    elif lie == 3 and op.kind != "get":
        op = msgspec.structs.replace(op, outcome="refused" if op.outcome == "ok" else "failed")
    elif lie == 4:
        op = msgspec.structs.replace(op, created=not op.created)
    changed[at] = op
    return changed
