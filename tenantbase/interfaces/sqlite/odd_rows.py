"""What is served of rows that were changed by hand, such as with SQLite's own shell.

A column takes a value of any type (https://sqlite.org/datatype3.html). Such a row must not make a list
of other entries fail, and nothing of it may get into a header or a document as it is. So whatever
is not legal in a row is replaced when the row is read. ``tenantbase check`` names these rows, and setting
a key makes its row sound again.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final, TypeVar
from uuid import UUID, uuid5

from tenantbase.entry import JSON, MAX_TIME, OCTETS, TEXT, Entry
from tenantbase.errors import InvalidRequest
from tenantbase.events import EventKind
from tenantbase.interfaces.sqlite.driver_errors import is_bad_text
from tenantbase.json_text import check_json
from tenantbase.listing import EntryMeta
from tenantbase.media_types import is_media_type
from tenantbase.scope import ScopedKey

Result = TypeVar("Result")

# As ``check`` demands it (``row_rules.py``).
_ID: Final = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_IDS: Final = UUID("5e2f0a4c-3f0b-4d64-9d55-7f6c1b1d2a90")  # the namespace of ids made of keys
_FIRST_VERSION: Final = 1
_LINE_COLUMNS: Final = 6
_KINDS: Final = frozenset(EventKind)

VALUE: Final = "CAST(value AS BLOB)"
"""SQL for the value of an entry. A number or a text counts as the bytes of its text."""

TYPE: Final = "CASE typeof(value) WHEN 'blob' THEN content_type END"
"""SQL for the media type of an entry; null if its value was changed to a text or a number, which may not be
what the media type says."""


@contextmanager
def bad_text_allowed(connection: sqlite3.Connection) -> Iterator[None]:
    """In the block, a text that is not UTF-8 is read with lone surrogates, which are legal in no column."""
    connection.text_factory = _with_surrogates
    try:
        yield
    finally:
        connection.text_factory = str


def is_text(read: object) -> bool:
    """Whether what was read with `bad_text_allowed` is a text, and UTF-8."""
    if not isinstance(read, str):
        return False
    try:
        read.encode()
    except UnicodeEncodeError:
        return False
    return True


def despite_bad_text(connection: sqlite3.Connection, read: Callable[[], Result]) -> Result:
    """What a function reads. If a text is not UTF-8, it is called again and gets that, too.

    Raises:
        sqlite3.OperationalError: a key that was read with `fetched` is not UTF-8. No page of a list could
            begin after it.
    """
    try:
        return read()
    except sqlite3.OperationalError as error:
        if not is_bad_text(error):
            raise
        try:
            with bad_text_allowed(connection):
                return read()
        except _BadKey:
            raise error from None


def fetched(
    connection: sqlite3.Connection, query: str, parameters: Sequence[object]
) -> sqlite3.Cursor | Generator[Sequence[Any]]:
    """The rows of a query whose first column is the key."""
    found = connection.execute(query, parameters)
    return found if connection.text_factory is str else _with_text_as_key(found)


def rows_of_keys(
    connection: sqlite3.Connection, query: str, parameters: Sequence[Any]
) -> list[Sequence[Any]]:
    """All rows of a query that names their keys, whatever text the other columns hold."""
    return despite_bad_text(connection, lambda: connection.execute(query, parameters).fetchall())


def storable(row: Sequence[Any]) -> Sequence[Any] | None:
    """A whole row, read with `bad_text_allowed`, as it can be stored again.

    None if its key is not UTF-8 text, so that no request can name it.
    """
    created, key, version, expires_at, id_, content_type, value = row
    if not is_text(key):
        return None
    if not isinstance(value, bytes):
        value = str(value).encode(errors="surrogateescape")
        content_type = _type_of(value)
    content_type, id_, version, expires_at = made_sound(key, content_type, id_, version, expires_at)
    return created, key, version, expires_at, id_, content_type, value


def entry_of(
    key: ScopedKey, value: bytes, content_type: Any, id_: Any, version: Any, expires_at: Any
) -> Entry:
    """The entry of a row.

    Args:
        value, content_type: ``VALUE`` and ``TYPE``; the others are columns. A value that is left to be read
            later is None.
    """
    if is_sound(content_type, id_, version, expires_at):
        return Entry(key, value, content_type, id_, version, expires_at)
    if content_type is None and value is not None:
        content_type = _type_of(value)
    return Entry(key, value, *made_sound(key, content_type, id_, version, expires_at))


def meta_of(
    key: ScopedKey, size: int, content_type: Any, id_: Any, version: Any, expires_at: Any
) -> EntryMeta:
    """As ``entry_of``, without the value."""
    if is_sound(content_type, id_, version, expires_at):
        return EntryMeta(key, size, content_type, id_, version, expires_at)
    return EntryMeta(key, size, *made_sound(key, content_type, id_, version, expires_at))


def is_sound(content_type: Any, id_: Any, version: Any, expires_at: Any) -> bool:
    """Whether ``TYPE`` and these columns of an entry are legal, as they nearly always are."""
    return (
        (content_type == JSON or is_media_type(content_type))
        and type(version) is int
        and version > 0
        and type(id_) is str
        and _ID.fullmatch(id_) is not None
        and (expires_at is None or (type(expires_at) is float and expires_at <= MAX_TIME))
    )


def is_legal_line(
    _version: int, kind: Any, key: Any, size: Any, content_type: Any, expires_at: Any
) -> bool:
    """Whether the columns of a line of the change log are legal."""
    return (
        kind in _KINDS
        and type(key) is str
        and (size is None or type(size) is int)
        and (content_type is None or type(content_type) is str)
        and (expires_at is None or type(expires_at) is float)
    )


def legal_line(line: Sequence[Any]) -> Sequence[Any]:
    """A line of the change log, read with `bad_text_allowed`.

    In place of one that is not legal, one that says that anything may have changed.
    """
    missing = _LINE_COLUMNS - len(line)  # in older schemas
    if is_legal_line(*line, *[None] * missing) and is_text(line[2]):
        return line
    return (line[0], str(EventKind.RESET), "", *[None] * (len(line) - 3))


def made_sound(
    key: str, content_type: Any, id_: Any, version: Any, expires_at: Any
) -> tuple[str, str, int, float | None]:
    """These columns of an entry, with something legal in place of what is not.

    To SQL, anything but a number is later than any time, so such an entry never expires.
    """
    if content_type is None:
        content_type = TEXT
    return (
        content_type if is_media_type(content_type) else OCTETS,
        id_ if isinstance(id_, str) and _ID.fullmatch(id_) else str(uuid5(_IDS, key)),
        version if isinstance(version, int) and version > 0 else _FIRST_VERSION,
        expires_at if isinstance(expires_at, float) and expires_at <= MAX_TIME else None,
    )


def _type_of(value: bytes) -> str:
    """The media type of a value that was changed by hand."""
    try:
        check_json(value, "value")
    except InvalidRequest:
        return TEXT
    return JSON


class _BadKey(Exception):
    """A key is not UTF-8."""


def _with_text_as_key(found: sqlite3.Cursor) -> Generator[Sequence[Any]]:
    with closing(found):
        for row in found:
            if not is_text(row[0]):
                raise _BadKey
            yield row


def _with_surrogates(text: bytes) -> str:
    return text.decode(errors="surrogateescape")
