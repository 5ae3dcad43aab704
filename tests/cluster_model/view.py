"""A state as the steps see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.cluster_model.state import (
    KEY,
    NOBODY,
    OTHER,
    PREFIX,
    Config,
    Log,
    Node,
    Reader,
    State,
    Writer,
)

Step = tuple[str, State]


class Violation(Exception):
    """A property does not hold. Its arguments are the steps that lead there, and what is wrong."""


def put(values: tuple[Any, ...], i: int, value: object) -> tuple[Any, ...]:
    """The values with another one in this place."""
    return (*values[:i], value, *values[i + 1 :])


def position(log: Log) -> int:
    """The highest position in a log."""
    return max((each for each, _ in log), default=0)


def index(log: Log, writer: int) -> int | None:
    """Where a writer's commit is in a log; None: nowhere."""
    return next((i for i, (_, each) in enumerate(log) if each == writer), None)


class View:
    """A state and what follows from it.

    Args:
        broken: a rule to leave out.
        witness: ask the standby, instead of making a commit, to confirm an answer.

    Attributes:
        whole, visible: by server, its log, and what its snapshots show.
        history: the log that counts.
        inherited: the last position of server 0 that server 1 had when it was promoted.
    """

    def __init__(self, state: State, config: Config, broken: str | None, witness: bool) -> None:
        self.state = state
        self.config = config
        self.broken = broken
        self.witness = witness
        received = state.log[: state.received]
        self.whole = (state.log, received + state.appended)
        self.visible = (state.log[: state.visible], self.whole[1])
        self.history = self.whole[state.promoted]
        self.inherited = position(received) if state.promoted else 0

    def kind(self, writer: int) -> str:
        """What a writer does."""
        return self.config.writers[writer][1]

    def changes_key(self, writer: int) -> bool:
        """Whether a writer changes the key."""
        return self.kind(writer) != OTHER

    def place(self, writer: int) -> int | None:
        """The place of a version in the history that counts, from 1; None: it is lost."""
        if writer == NOBODY:
            return 0
        found = index(self.history, writer)
        return None if found is None else found + 1

    def value(self, log: Log) -> int:
        """The last writer of the key; one that deletes a prefix stands for the key's absence."""
        return next((each for _, each in reversed(log) if self.changes_key(each)), NOBODY)

    def last_change(self, log: Log, after: int) -> int:
        """The position of the last change of the key's bucket; 0: none after that position."""
        known = (KEY,) if self.broken == "any-key" else (KEY, PREFIX)
        return max((at for at, each in log if at > after and self.kind(each) in known), default=0)

    def confirmed(self, server: int, entries: int) -> bool:
        """Whether a commit that is made after so many entries can be acknowledged now."""
        state = self.state
        if self.broken == "one-candidate":
            return True  # another standby confirms, too, even after the promotion
        return server == 1 or (not state.promoted and state.received >= entries)

    def standby(self) -> tuple[bool, int]:
        """The standby's answer: whether it is a primary, and how many entries it has."""
        return self.state.promoted, len(self.whole[1])

    def witnessed(self, answer: tuple[bool, int], visible: int) -> bool:
        """Whether the standby's answer confirms a snapshot of the primary with so many entries."""
        promoted, entries = answer
        return (not promoted or self.broken == "witness-standby") and (
            entries >= visible or self.broken == "witness-position"
        )

    def home(self, writer: int) -> Node:
        """The node of a writer."""
        return self.state.nodes[self.config.writers[writer][0]]

    def unlocked(self, writer: int, server: int) -> tuple[int, ...]:
        """The locks after a writer has released that of a server, if it has it."""
        locks = self.state.locks
        return put(locks, server, NOBODY) if locks[server] == writer else locks

    def with_writer(self, i: int, at: str, **changed: Any) -> State:
        """The state after a writer has moved on. At its end it remembers nothing."""
        state = self.state
        writer = Writer(at) if at == "ended" else state.writers[i]._replace(at=at)
        return state._replace(writers=put(state.writers, i, writer), **changed)

    def with_reader(self, i: int, reader: Reader, **changed: Any) -> State:
        """The state after a reader has moved on."""
        return self.state._replace(readers=put(self.state.readers, i, reader), **changed)

    def with_node(self, n: int, node: Node, change: Callable[[Reader], Reader]) -> State:
        """The state with a changed node, and a change of each of its readers."""
        state = self.state
        pairs = zip(state.readers, self.config.readers, strict=True)
        readers = tuple(change(reader) if at == n else reader for reader, at in pairs)
        return state._replace(nodes=put(state.nodes, n, node), readers=readers)


def again(reader: Reader) -> Reader:
    """A reader that loses its connection begins again, if it has begun."""
    return reader if reader.at in ("idle", "ended") else Reader("begun", reader.floor)


def given_up(reader: Reader) -> Reader:
    """A reader whose request ends without an answer, if it has begun."""
    return reader if reader.at == "idle" else Reader("ended")
