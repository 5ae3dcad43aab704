"""Saves what can be read of damaged tables and indexes.

SQLite reports damage only when it meets it, and frees no page that it cannot read. So a damaged
table cannot be dropped, nor a damaged index rebuilt in place: they are set aside.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from tenantbase.withheld import Withheld

log = logging.getLogger("tenantbase")

SET_ASIDE: Final = "entries_of_schema_1"
"""The old table of entries, if some rows of a schema 1 database could not be read."""

_MOST_NAMED: Final = 10  # the most keys named in the log

Concerns = Callable[[sqlite3.Error], bool]
"""Whether an error means damage, in which case other rows may be sound."""


class Sound(NamedTuple):
    """What can be read of the entries of schema 1.

    Attributes:
        rows: those that can be read, by ``created``, in order.
        lost: the keys of the others; None where the key cannot be read either.
    """

    rows: list[int]
    lost: list[str | None]


def find_sound_entries(connection: sqlite3.Connection, concerns: Concerns) -> Sound:
    """Try every row. Called outside of any transaction.

    Within one that writes, SQLite finds damage in sound pages once it has met damage.
    """
    sound = Sound([], [])
    for created, key in sorted(known_rows(connection, concerns).items()):
        try:
            connection.execute("SELECT * FROM entries WHERE created = ?", (created,)).fetchall()
        except sqlite3.Error as error:
            if not concerns(error):
                raise
            sound.lost.append(key)
        else:
            sound.rows.append(created)
    return sound


def set_aside_entries(connection: sqlite3.Connection, copy: str, sound: Sound) -> None:
    """Copy the sound entries, and keep the damaged table under another name.

    Called in a transaction, with ``scoped_entries`` created.

    Args:
        copy: the statement that copies all entries, in the order of ``created``.
    """
    one = copy.replace("ORDER BY created", "WHERE created = ?")
    connection.executemany(one, ((created,) for created in sound.rows))
    connection.execute(f"ALTER TABLE entries RENAME TO {SET_ASIDE}")
    forget_index(connection, "entries_expiry")
    named = ", ".join("unknown" if key is None else repr(key) for key in sound.lost[:_MOST_NAMED])
    log.error(
        "the database is damaged: %d entries are converted, %d cannot be read and are absent now"
        " (%s%s); the table %s keeps what there was",
        len(sound.rows),
        len(sound.lost),
        Withheld(named) if named else "none",
        ", ..." if len(sound.lost) > _MOST_NAMED else "",
        SET_ASIDE,
    )


def count_sound_entries(
    connection: sqlite3.Connection, query: str, concerns: Concerns
) -> tuple[int, int]:
    """Add up the usage of every row that can be read. Called outside of any transaction.

    Args:
        query: the usage, entries and bytes, of the row with a ``created``, its one parameter.
    """
    entries = size = lost = 0
    for created in known_rows(connection, concerns):
        try:
            count, length = connection.execute(query, (created,)).fetchone()
        except sqlite3.Error as error:
            if not concerns(error):
                raise
            lost += 1
        else:
            entries += count
            size += length
    log.error(
        "the database is damaged: %d entries are counted, %d cannot be read and are not",
        entries,
        lost,
    )
    return entries, size


def begin_rebuilding(connection: sqlite3.Connection, create: str, concerns: Concerns) -> bool:
    """Build the expiry index again if it is damaged and the table is not.

    Called outside of any transaction. The check reads the whole index; building it reads every row.

    Args:
        create: the statement that builds it.

    Returns:
        Whether it was built, in a transaction that the caller has to commit.
    """
    query = (
        "SELECT count(expires_at) FROM entries INDEXED BY entries_expiry"
        " WHERE expires_at IS NOT NULL"
    )
    if list(_until_damage(connection, query, concerns)):
        return False
    connection.execute("BEGIN IMMEDIATE")
    try:
        forget_index(connection, "entries_expiry")
        connection.execute(create)
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if not concerns(error):
            raise
        return False
    return True


def forget_index(connection: sqlite3.Connection, name: str) -> None:
    """Drop an index that may be damaged; its pages stay unused. Called in a transaction."""
    # DROP INDEX reads every page of the index, and may fail half-way, as above. So remove its entry
    # from the schema, and make SQLite read the schema again.
    connection.execute("PRAGMA writable_schema = ON")
    try:
        connection.execute("DELETE FROM sqlite_master WHERE type = 'index' AND name = ?", (name,))
    finally:
        connection.execute("PRAGMA writable_schema = RESET")


def known_rows(connection: sqlite3.Connection, concerns: Concerns) -> dict[int, str | None]:
    """Rows of ``entries``, by ``created``, with their keys where the index has them.

    Read from both ends of the table and of the index on keys, each up to the first damage.
    """
    found: dict[int, str | None] = {}
    for order in ("ASC", "DESC"):
        query = f"SELECT created, NULL FROM entries NOT INDEXED ORDER BY created {order}"
        for created, _ in _until_damage(connection, query, concerns):
            found.setdefault(created, None)
        # The index holds both columns, so the table is not touched.
        query = f"SELECT created, key FROM entries ORDER BY key {order}"
        found.update(_until_damage(connection, query, concerns))
    return found


def _until_damage(connection: sqlite3.Connection, query: str, concerns: Concerns) -> Iterator[Any]:
    try:
        yield from connection.execute(query)
    except sqlite3.Error as error:
        if not concerns(error):
            raise
