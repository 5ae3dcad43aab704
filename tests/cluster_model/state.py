"""The rules, the sizes and the states of the model."""

from __future__ import annotations

from typing import Final, NamedTuple

RULES: Final = {
    # Reading
    "ask": "every read waits for an answer of the primary; no position is remembered",
    "ask-after-begin": "a read joins only a question that is sent after the read began",
    "confirm-index": "an index counts only once a later commit is on the standby",
    "confirm-row": "a row read on a miss is returned only once a later commit is on the standby",
    "compare": "a hit needs an item whose position is at or above its bucket's last change",
    "any-key": "a prefix delete counts as a change of every bucket",
    # Filling and publishing
    "fill-after-confirm": "a filler stores its item only once the row is confirmed",
    "snapshot-position": "a filler takes the item's position from the snapshot of its SELECT",
    "own-position": "a writer publishes under the position of its own commit",
    "publish-after-commit": "an item is published only after its COMMIT has returned",
    # Writing
    "commit-order": "a lock held to the end of COMMIT makes positions visible in order",
    "ack-after-standby": "a write is acknowledged only once the standby has it",
    "one-candidate": "only the standby that confirms commits may be promoted",
    "warning-is-no-ack": "a COMMIT whose wait for the standby was cancelled is not a success",
    "token": "asking what became of a lost COMMIT leaves a mark that forbids it",
    "outcome-confirmed": "the answer to that question counts only once it is confirmed",
    # Nodes and terms
    "join-floor": "a node that starts, or fell behind the log, trusts no older item",
    "term-items": "an item of an earlier term counts only up to what the next term inherited",
    "term-table": "a table that reaches beyond what the new term inherited is discarded",
}
# If the standby is asked, instead of a confirming commit, these take the place of confirm-*:
WITNESS_RULES: Final = {
    "witness-after-begin": "the standby is asked after the read began",
    "witness-standby": "the standby's answer counts only if it is still a standby",
    "witness-position": "its answer counts only if it has reached the primary's position",
}

A, B = 0, 1
# What a writer does: writes the key, writes a key of another bucket, deletes a prefix of the key.
KEY, OTHER, PREFIX = "key", "other", "prefix"
NOBODY: Final = -1
NO_TABLE: Final = -1

Log = tuple[tuple[int, int], ...]  # the position and the writer of each commit


class Config(NamedTuple):
    """The size and the faults of one exploration.

    Attributes:
        writers: the node of each, and what it does.
        readers: the node of each.
        crash, cancel, restart, trim: how often the primary crashes, a wait for the standby is
            cancelled, a node restarts, the log of commits is trimmed.
        watch: how often a node asks without a reader, as it does for watchers.
        lossy: an operator may promote a standby that lacks acknowledged writes.
        tokens: COMMITs may lose their answers; their writers ask what became of them.
    """

    writers: tuple[tuple[int, str], ...] = ((A, KEY), (B, KEY))
    readers: tuple[int, ...] = (A, B)
    crash: int = 0
    cancel: int = 0
    restart: int = 0
    trim: int = 0
    watch: int = 0
    lossy: bool = False
    tokens: bool = False


class Question(NamedTuple):
    """A node's question to its server, and the unconfirmed answer."""

    position: int
    change: int  # of the key's bucket
    entries: int  # in the server's log
    visible: int


class Row(NamedTuple):
    """A row that was read on a miss."""

    writer: int
    position: int
    entries: int
    visible: int


class Node(NamedTuple):
    server: int = 0  # also its term
    position: int = 0  # its table is complete up to here
    change: int = 0  # the last change of the key's bucket, by its table
    question: Question | None = None


class Writer(NamedTuple):
    at: str = "idle"
    server: int = 0
    position: int = 0


class Reader(NamedTuple):
    at: str = "idle"
    floor: int = 0  # the place of the newest version that was seen before it began
    row: Row | None = None


class Left(NamedTuple):
    """What may still happen."""

    crash: int
    cancel: int
    restart: int
    trim: int
    watch: int


class State(NamedTuple):
    nodes: tuple[Node, ...]
    writers: tuple[Writer, ...]
    readers: tuple[Reader, ...]
    left: Left
    log: Log = ()  # of server 0, in commit order
    received: int = 0  # so many of them has server 1; its promotion freezes it
    visible: int = 0  # so many of them are visible on server 0
    promoted: bool = False
    appended: Log = ()  # by server 1, after its promotion
    locks: tuple[int, ...] = (NOBODY, NOBODY)  # each server's holder of the commit-order lock
    seen: int = 0  # place in the history of the newest version that was acknowledged or returned
    items: frozenset[tuple[int, int, int]] = frozenset()  # term, position, writer
    trimmed: int = 0  # positions up to here are gone from the log of commits
    marks: frozenset[int] = frozenset()  # writers whose commit is forbidden
    heard: tuple[tuple[bool, int] | None, ...] = (None, None)  # earlier answers of the standby
