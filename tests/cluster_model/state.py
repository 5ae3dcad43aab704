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
    "term-distance": "no two terms begin at the same distance from what they inherited",
    "standby-behind": "a new standby may be promoted only once it has everything from before it was"
    " named",
    "expiry-now": "whether an entry has expired is decided by the time that comes with the answer",
}
# If the standby is asked, instead of a confirming commit, these take the place of confirm-*:
WITNESS_RULES: Final = {
    "witness-after-begin": "the standby is asked after the read began",
    "witness-standby": "the standby's answer counts only if it is still a standby",
    "witness-position": "its answer counts only if it has reached the primary's position",
    "witness-name": "its answer counts only if the primary still names it",
}

A, B = 0, 1
# What a writer does: write the key, write it with an expiry, write a key of another bucket, or delete a
# prefix of the key.
KEY, EXPIRING, OTHER, PREFIX = "key", "expiring", "other", "prefix"
NOBODY: Final = -1
NO_TABLE: Final = -1

Log = tuple[tuple[int, int], ...]  # the position and the writer of each commit


class Config(NamedTuple):
    """The size and the faults of one exploration.

    Attributes:
        writers: the node of each, and what it does.
        readers: the node of each.
        servers: their number. Each promoted one takes an unused one as its standby; if there is none,
            its commits wait for nobody.
        crash, cancel, restart, trim: how often a primary crashes, a wait for the standby is
            cancelled, a node restarts, the log of commits is trimmed.
        watch: how often a node asks without a reader, as it does for watchers.
        change: how often a primary gets another standby, an unused server.
        spare: how often an unused server becomes an asynchronous standby.
        lossy: an operator may promote any standby, which loses what it lacks.
        tokens: COMMITs may lose their answers; their writers ask what became of them.
        distance: a term's positions begin this far, times its number, above what it inherited.
        expiry: time passes once; afterwards, every entry with an expiry has expired.
    """

    writers: tuple[tuple[int, str], ...] = ((A, KEY), (B, KEY))
    readers: tuple[int, ...] = (A, B)
    servers: int = 2
    crash: int = 0
    cancel: int = 0
    restart: int = 0
    trim: int = 0
    watch: int = 0
    change: int = 0
    spare: int = 0
    lossy: bool = False
    tokens: bool = False
    distance: int = 0
    expiry: bool = False


class Question(NamedTuple):
    """A node's question to its server, and the unconfirmed answer."""

    position: int
    change: int  # of the key's bucket
    entries: int  # in the server's log
    visible: int
    names: int  # the standby that the server named
    now: int


class Row(NamedTuple):
    """A row that was read on a miss."""

    writer: int
    position: int
    entries: int
    visible: int
    names: int
    now: int


class Node(NamedTuple):
    server: int = 0  # also its term
    standby: int = 1  # that the server named when the node joined
    position: int = 0  # its table is complete up to here
    change: int = 0  # the last change of the key's bucket, by its table
    now: int = 0  # the time that came with the last answer
    question: Question | None = None


class Writer(NamedTuple):
    at: str = "idle"
    server: int = 0
    position: int = 0


class Reader(NamedTuple):
    at: str = "idle"
    floor: int = 0  # the newest state that was seen before it began
    began: int = 0  # the time then
    row: Row | None = None


class Left(NamedTuple):
    """What may still happen."""

    crash: int
    cancel: int
    restart: int
    trim: int
    watch: int
    change: int
    spare: int


class Server(NamedTuple):
    """Its log is what it received of its parent's log, and then what it appended as a primary."""

    parent: int = NOBODY  # NOBODY: it is not used
    received: int = 0
    appended: Log = ()
    visible: int = 0  # the number of visible entries, once it is a primary
    promoted: bool = False
    dead: bool = False  # it no longer confirms anything, as a standby or by itself
    names: int = NOBODY  # the standby that its commits wait for; NOBODY: they do not wait


class State(NamedTuple):
    nodes: tuple[Node, ...]
    writers: tuple[Writer, ...]
    readers: tuple[Reader, ...]
    left: Left
    servers: tuple[Server, ...]
    primary: int = 0  # the server that was promoted last
    goal: int = 0  # entries that its standby must have before it may be promoted
    locks: tuple[int, ...] = ()  # each server's holder of the commit-order lock
    seen: int = 0  # the newest state that was acknowledged or returned; see ``View.place``
    items: frozenset[tuple[int, int, int]] = frozenset()  # term, position, writer
    trimmed: int = 0  # positions up to here are gone from the log of commits
    marks: frozenset[int] = frozenset()  # writers whose commit is forbidden
    heard: tuple[tuple[bool, int] | None, ...] = (None, None)  # earlier answers of the standby
    given: frozenset[int] = frozenset()  # positions of acknowledged writes
    now: int = 0
