"""The statements that read, and the entries made of their rows."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Final

from tenantbase.commands import MAX_RETURNED_BYTES
from tenantbase.entry import Entry
from tenantbase.errors import LeftOut, StoreError
from tenantbase.events import ChangeEvent, EventKind
from tenantbase.interfaces.planning.in_place import Row
from tenantbase.interfaces.postgres.confirmation import Question
from tenantbase.interfaces.shared_store import Commit, Index, Term
from tenantbase.listing import EntryMeta, Folded, KeyRange
from tenantbase.scope import ScopedKey

MOST_COMMITS: Final = 1_000
"""How many commits the answer to a question lists."""

READ_BYTES: Final = 4 << 20
"""Of values read at once, not counting the last one."""

# Whether a row is under a deleted prefix. Without any such prefix, the first comparison settles it.
_DELETED: Final = """(
    entries.created <= head.prefixes AND EXISTS (
        SELECT FROM deleted_prefixes AS gone WHERE entries.created <= gone.version
            AND entries.key >= gone.low AND entries.key < gone.high
    )
)"""
_UNEXPIRED: Final = "(entries.expires_at IS NULL OR entries.expires_at > head.now)"
_ALIVE: Final = f"{_UNEXPIRED} AND NOT {_DELETED}"
_SIZE: Final = "octet_length(entries.value)"

ASK: Final = Question.make(
    "commits.position, commits.hashes",
    f"""
    LEFT JOIN LATERAL (
        SELECT position, hashes FROM commits WHERE position > $2 ORDER BY position
        LIMIT {MOST_COMMITS + 1}
    ) AS commits ON true ORDER BY commits.position
    """,
)

# Parameters: the keys, and the size above which a value is left out.
READ: Final = Question.make(
    f"""
    entries.key, CASE WHEN {_SIZE} <= $3 THEN entries.value END, entries.content_type,
    entries.id::text, entries.version, entries.expires_at
    """,
    f"LEFT JOIN entries ON entries.key = ANY($2::text[]) AND {_ALIVE}",
)
# As READ, for keys of which none is given twice; values are left out after this many bytes.
READ_IN_ORDER: Final = Question.make(
    """
    entries.key, CASE WHEN entries.before <= $3 THEN entries.value END, entries.content_type,
    entries.id::text, entries.version, entries.expires_at
    """,
    f"""
    LEFT JOIN LATERAL (
        SELECT entries.*, coalesce(sum({_SIZE}) OVER (
                ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ), 0) AS before
        FROM unnest($2::text[]) WITH ORDINALITY AS wanted (key, number)
        JOIN entries ON entries.key = wanted.key COLLATE "C" AND {_ALIVE}
    ) AS entries ON true
    """,
)

LIST: Final = Question.make(
    """
    items.folded, items.key, items.value, items.size, items.content_type, items.id::text,
    items.version, items.expires_at
    """,
    """
    LEFT JOIN LATERAL list_range(
        head.now, head.prefixes, $2, $3, $4, $5, $6, $7, $8, $9
    ) AS items ON true
    """,
)

COUNT: Final = Question.make(
    "counted.entries, counted.bytes, counted.last",
    f"""
    CROSS JOIN LATERAL (
        SELECT count(*) AS entries, coalesce(sum(octet_length(key) + size), 0)::bigint AS bytes,
            max(key) AS last
        FROM (
            SELECT key, {_SIZE} AS size FROM entries
            WHERE key >= $2 AND key < $3 AND {_ALIVE} ORDER BY key LIMIT $4
        ) AS found
    ) AS counted
    """,
)

CHANGES: Final = Question.make(
    """
    (SELECT min(position) FROM changes), changes.position, changes.kind, changes.key, changes.size,
    changes.content_type, changes.expires_at
    """,
    """
    LEFT JOIN LATERAL (
        SELECT * FROM changes WHERE position > $2 ORDER BY position LIMIT $3
    ) AS changes ON true ORDER BY changes.position
    """,
)

SETTLED: Final = Question.make(
    "commits.made, commits.position", "LEFT JOIN commits ON commits.token = $2"
)


def in_transaction(statement: str) -> str:
    """A statement of a transaction that holds the lock: its first parameters, the time and the position
    of the last deleted prefix, are ``head``. It may have ``{alive}``, ``{unexpired}`` and ``{deleted}``.
    """
    conditions = statement.format(alive=_ALIVE, unexpired=_UNEXPIRED, deleted=_DELETED)
    return (
        "WITH head AS (SELECT $1::double precision AS now, $2::bigint AS prefixes)" f" {conditions}"
    )


_LOOKED_UP: Final = """
    entries.key,
    CASE WHEN entries.key = ANY({0}::text[]) OR entries.key = ANY({1}::text[]) AND
        sum(octet_length(entries.value)) FILTER (WHERE entries.key = ANY({1}::text[])) OVER ()
            <= {2} THEN entries.value ELSE '' END,
    entries.content_type, entries.id::text, entries.version, entries.expires_at, entries.created,
    CASE WHEN NOT {3} THEN {4}::integer END, octet_length(entries.value)
"""

# Takes keys, those whose values are needed, and those whose values are returned unless they are too
# large together. For the state, see ``Row.state``.
LOOK_UP: Final = Question.make(
    _LOOKED_UP.format("$3", "$4", MAX_RETURNED_BYTES, _DELETED, _UNEXPIRED),
    "LEFT JOIN entries ON entries.key = ANY($2::text[])",
)
LOCKED_LOOK_UP: Final = in_transaction(
    f"SELECT {_LOOKED_UP.format('$4', '$5', MAX_RETURNED_BYTES, _DELETED, _UNEXPIRED)}"
    " FROM head JOIN entries ON entries.key = ANY($3::text[])"
)


def entries_of(keys: Sequence[str], rows: Sequence[Any]) -> list[Entry | None | StoreError]:
    """The entries of keys, in their order, from the rows of READ or READ_IN_ORDER."""
    found: dict[str, Entry | StoreError] = {}
    for row in rows:
        key, value = row[0], row[1]
        if key is not None:
            found[key] = (
                LeftOut("it did not fit into what is read at once")
                if value is None
                else Entry(*row)
            )
    return [found.get(key) for key in keys]


def has_left_out(rows: Sequence[Any]) -> bool:
    """Whether READ has left out the value of an entry."""
    return any(key is not None and value is None for key, value, *_ in rows)


def bounds(wanted: KeyRange) -> tuple[str, str]:
    """The first possible key of a range, and the first one beyond it.

    PostgreSQL's text cannot hold U+0000, with which a range begins that goes on after a key. No key
    contains it, so U+0001 does as well.
    """
    low, high = wanted.bounds()
    return low.replace("\0", "\x01"), high.replace("\0", "\x01")


def listed(rows: Sequence[Any]) -> list[Entry | Folded]:
    """The items of LIST, with values."""
    return [
        Folded(ScopedKey(key)) if folded else Entry(key, value, *rest)
        for folded, key, value, _, *rest in rows
        if key is not None
    ]


def listed_meta(rows: Sequence[Any]) -> list[EntryMeta | Folded]:
    """The items of LIST, without values."""
    return [
        Folded(ScopedKey(key)) if folded else EntryMeta(key, size, *rest)
        for folded, key, _, size, *rest in rows
        if key is not None
    ]


def events_of(rows: Sequence[Any]) -> list[ChangeEvent]:
    """The events of CHANGES."""
    return [
        ChangeEvent(position, EventKind(kind), key, *details)
        for _, position, kind, key, *details in rows
        if position is not None
    ]


def row_of(row: Sequence[Any]) -> Row:
    """A row of LOOK_UP, without its value."""
    _, _, content_type, identifier, version, expires_at, created, state, size = row
    return Row(created, state, size, content_type, identifier, version, expires_at)


def index_of(
    terms: Sequence[Term], position: int, trimmed: int, now: float, rows: Sequence[Any]
) -> Index:
    """The answer to a question, from the rows of ASK."""
    commits = [
        Commit(at, None if hashes is None else unpacked(hashes))
        for at, hashes in rows[:MOST_COMMITS]
        if at is not None
    ]
    return Index(terms, position, trimmed, now, commits, len(rows) <= MOST_COMMITS)


def packed(hashes: Iterable[int]) -> bytes:
    """32-bit hashes, little endian."""
    numbers = array("I", hashes)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def unpacked(data: bytes) -> Sequence[int]:
    """The reverse of ``packed``."""
    numbers = array("I", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
