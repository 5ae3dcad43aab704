"""Many plain entries as columns: read and rendered together, they need no object for each entry."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import starmap
from typing import Final, NamedTuple, Protocol, overload

from tenantbase.entry import JSON, Entry
from tenantbase.scope import ScopedKey

SEPARATOR: Final = "\x01"
"""Stands between the items of a column. JSON texts have no control characters but line breaks and tabs, and
keys that contain this one are not plain."""

DIVIDER: Final = SEPARATOR.encode()
"""The same, in bytes."""


class Columns(NamedTuple):
    """The entries, column by column. All columns have the same length.

    Attributes:
        keys: scoped.
        values: JSON texts.
        ids: in ASCII.
        versions: as digits.
    """

    keys: list[str]
    values: list[bytes]
    ids: list[bytes]
    versions: list[bytes]


class PlainEntries(Sequence[Entry]):
    """A sequence of entries that never expire, and whose media type is ``JSON``.

    It consists of few objects, because millions of small ones would have to be made and freed by the
    event loop: each column is one text, in which ``SEPARATOR`` stands between the items. An ``Entry`` is
    made when it is accessed.

    Attributes:
        keys, values, ids, versions: see ``Columns``.
        rendered: what a ``Render`` made of the entries, if they were read for one; otherwise empty.
    """

    __slots__ = ("keys", "values", "ids", "versions", "rendered", "_count")

    def __init__(self, count: int, keys: str, values: bytes, ids: bytes, versions: bytes) -> None:
        self.keys = keys
        self.values = values
        self.ids = ids
        self.versions = versions
        self.rendered = b""
        self._count = count

    @classmethod
    def of(cls, columns: Columns) -> PlainEntries:
        """Entries with these columns."""
        others = map(DIVIDER.join, columns[1:])
        return cls(len(columns.keys), SEPARATOR.join(columns.keys), *others)

    @property
    def columns(self) -> Columns:
        """All columns, divided into their items."""
        if not self._count:
            return Columns([], [], [], [])
        return Columns(
            self.keys.split(SEPARATOR),
            self.values.split(DIVIDER),
            self.ids.split(DIVIDER),
            self.versions.split(DIVIDER),
        )

    @property
    def value_bytes(self) -> int:
        """The length of all values together."""
        return len(self.values) - max(0, self._count - 1)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        return starmap(_entry, zip(*self.columns, strict=True))

    @overload
    def __getitem__(self, at: int, /) -> Entry: ...
    @overload
    def __getitem__(self, at: slice, /) -> PlainEntries: ...

    def __getitem__(self, at: int | slice, /) -> Entry | PlainEntries:
        if at == -1 and self._count:  # the place of a page, without dividing all of it
            key = self.keys[self.keys.rfind(SEPARATOR) + 1 :]
            others = (self.values, self.ids, self.versions)
            return _entry(key, *(column[column.rfind(DIVIDER) + 1 :] for column in others))
        keys, values, ids, versions = self.columns
        if isinstance(at, slice):
            return PlainEntries.of(Columns(keys[at], values[at], ids[at], versions[at]))
        return _entry(keys[at], values[at], ids[at], versions[at])


class Render(Protocol):
    """Makes a document of entries, in the thread that has read them."""

    def __call__(self, entries: Columns, /) -> bytes: ...

    @property
    def form(self) -> Hashable:
        """What the document depends on besides the entries: equal for two that make the same of them."""


def joined(parts: Sequence[PlainEntries]) -> PlainEntries:
    """All of these, one after the other. None of them is empty."""
    if len(parts) == 1:
        return parts[0]
    return PlainEntries(
        sum(map(len, parts)),
        SEPARATOR.join([part.keys for part in parts]),
        DIVIDER.join([part.values for part in parts]),
        DIVIDER.join([part.ids for part in parts]),
        DIVIDER.join([part.versions for part in parts]),
    )


def _entry(key: str, value: bytes, id: bytes, version: bytes) -> Entry:
    return Entry(ScopedKey(key), value, JSON, id.decode(), int(version), None)
