"""A state as the steps see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.cluster_model.state import (
    EXPIRING,
    KEY,
    NOBODY,
    OTHER,
    PREFIX,
    Config,
    Log,
    Node,
    Reader,
    Server,
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
        primary: the server that was promoted last.
    """

    def __init__(self, state: State, config: Config, broken: str | None, witness: bool) -> None:
        self.state = state
        self.config = config
        self.broken = broken
        self.witness = witness
        whole: list[Log] = []
        for server in state.servers:
            # Servers come after their parents.
            parent = whole[server.parent][: server.received] if server.parent >= 0 else ()
            whole.append(parent + server.appended)
        self.whole = whole
        self.visible = [
            log[: server.visible] if server.promoted else log
            for log, server in zip(whole, state.servers, strict=True)
        ]
        self.history = whole[state.primary]
        self.primary = state.servers[state.primary]

    def kind(self, writer: int) -> str:
        """What a writer does."""
        return self.config.writers[writer][1]

    def changes_key(self, writer: int) -> bool:
        """Whether a writer changes the key."""
        return self.kind(writer) != OTHER

    def place(self, writer: int, *, expired: bool = False) -> int | None:
        """The place of a state of the key in the history that counts; None: it is lost.

        It is even, from 2, for a version, and one more once that has expired.
        """
        if writer == NOBODY:
            return 0
        found = index(self.history, writer)
        return None if found is None else 2 * found + 2 + expired

    def expired(self, writer: int, now: int) -> bool:
        """Whether what a writer wrote has expired."""
        return bool(now) and writer != NOBODY and self.kind(writer) == EXPIRING

    def value(self, log: Log) -> int:
        """The last writer of the key; one that deletes a prefix stands for the key's absence."""
        return next((each for _, each in reversed(log) if self.changes_key(each)), NOBODY)

    def last_change(self, log: Log, after: int) -> int:
        """The position of the last change of the key's bucket; 0: none after that position."""
        known = (KEY, EXPIRING) if self.broken == "any-key" else (KEY, EXPIRING, PREFIX)
        return max((at for at, each in log if at > after and self.kind(each) in known), default=0)

    def inherited(self, server: int) -> int:
        """The last position of its parent that a server had when it was promoted."""
        each = self.state.servers[server]
        return position(self.whole[each.parent][: each.received]) if each.parent >= 0 else 0

    def survives(self, term: int, at: int, server: int) -> bool:
        """Whether a position of a term is in the history of a server."""
        while server != term:
            if server == 0 or at > self.inherited(server):
                return False
            server = self.state.servers[server].parent
        return True

    def descends(self, server: int, term: int) -> bool:
        """Whether a term is an earlier one of a server's history, or its own."""
        while server != term:
            if server == 0:
                return False
            server = self.state.servers[server].parent
        return True

    def confirmed(self, server: int, entries: int) -> bool:
        """Whether a commit that made the log this long can be acknowledged now."""
        if self.broken == "one-candidate":
            return True  # another candidate confirms, even after the promotion
        if not self.waits(server):
            return True
        names = self.state.servers[server].names
        if names == NOBODY:
            return False
        standby = self.state.servers[names]
        return not (standby.promoted or standby.dead) and standby.received >= entries

    def waits(self, server: int) -> bool:
        """Whether commits on a server wait for a standby, or for one that it will never have."""
        each = self.state.servers[server]
        return each.names != NOBODY or each.dead

    def answer_of(self, standby: int) -> tuple[bool, int]:
        """A standby's answer: whether it is a primary, and how many entries it has."""
        return self.state.servers[standby].promoted, len(self.whole[standby])

    def witnessed(self, node: Node, names: int, visible: int, answer: tuple[bool, int]) -> bool:
        """Whether the standby's answer confirms a snapshot of the primary that has ``visible``
        entries."""
        promoted, entries = answer
        return (
            (not promoted or self.broken == "witness-standby")
            and (entries >= visible or self.broken == "witness-position")
            and (names == node.standby or self.broken == "witness-name")
        )

    def unused(self) -> int:
        """The next server that is not used; NOBODY: there is none."""
        servers = enumerate(self.state.servers)
        return next((i for i, each in servers if i and each.parent == NOBODY), NOBODY)

    def home(self, writer: int) -> Node:
        """The node of a writer."""
        return self.state.nodes[self.config.writers[writer][0]]

    def unlocked(self, writer: int, server: int) -> tuple[int, ...]:
        """The locks after a writer has released that of a server, if it has it."""
        locks = self.state.locks
        return put(locks, server, NOBODY) if locks[server] == writer else locks

    def with_server(self, i: int, **changed: Any) -> tuple[Server, ...]:
        """The servers, with one of them changed."""
        return put(self.state.servers, i, self.state.servers[i]._replace(**changed))

    def with_entry(self, server: int, entry: tuple[int, int]) -> tuple[Server, ...]:
        """The servers after one has appended an entry to its log."""
        return self.with_server(server, appended=(*self.state.servers[server].appended, entry))

    def shown(self, server: int, entries: int) -> tuple[Server, ...]:
        """The servers, once this many entries are visible on one of them."""
        return self.with_server(server, visible=max(self.state.servers[server].visible, entries))

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
    if reader.at in ("idle", "ended"):
        return reader
    return Reader("begun", reader.floor, reader.began)


def given_up(reader: Reader) -> Reader:
    """A reader whose request ends without an answer, if it has begun."""
    return reader if reader.at == "idle" else Reader("ended")
