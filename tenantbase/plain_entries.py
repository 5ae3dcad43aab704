"""Many plain entries as columns: read and rendered together, they need no object for each entry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from tenantbase.entry import JSON, Entry
from tenantbase.scope import ScopedKey


class PlainEntries(Sequence[Entry]):
    """A sequence of entries that never expire, and whose media type is ``JSON``.

    An ``Entry`` is made when it is accessed. All columns have the same length.

    Attributes:
        keys: scoped.
        values: JSON texts.
        ids: in ASCII.
        versions: as digits.
    """

    __slots__ = ("keys", "values", "ids", "versions")

    def __init__(
        self, keys: list[str], values: list[bytes], ids: list[bytes], versions: list[bytes]
    ) -> None:
        self.keys = keys
        self.values = values
        self.ids = ids
        self.versions = versions

    @property
    def columns(self) -> tuple[list[str], list[bytes], list[bytes], list[bytes]]:
        """All of them, in the order above."""
        return self.keys, self.values, self.ids, self.versions

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, at: int, /) -> Entry: ...
    @overload
    def __getitem__(self, at: slice, /) -> PlainEntries: ...

    def __getitem__(self, at: int | slice, /) -> Entry | PlainEntries:
        keys, values, ids, versions = self.columns
        if isinstance(at, slice):
            return PlainEntries(keys[at], values[at], ids[at], versions[at])
        key = ScopedKey(keys[at])
        return Entry(key, values[at], JSON, ids[at].decode(), int(versions[at]), None)

    def extend(self, more: PlainEntries) -> None:
        """Append other entries."""
        self.keys += more.keys
        self.values += more.values
        self.ids += more.ids
        self.versions += more.versions
