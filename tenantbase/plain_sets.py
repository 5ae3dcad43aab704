"""Many plain values to store, as columns: validated, planned and written without an object for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import overload

from tenantbase.commands import Set
from tenantbase.entry import JSON


class PlainSets(Sequence[Set]):
    """A transaction that stores JSON values which never expire, without conditions, under distinct keys.

    A ``Set`` is made when it is accessed. The store may leave out what it did: its outcome can be empty.

    Attributes:
        keys: scoped, all of one tenant.
        values: JSON texts, as many.
    """

    __slots__ = ("keys", "values")

    def __init__(self, keys: Sequence[str], values: Sequence[bytes]) -> None:
        self.keys = keys
        self.values = values

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Set]:
        return map(Set, self.keys, self.values, repeat(JSON))

    @overload
    def __getitem__(self, at: int, /) -> Set: ...
    @overload
    def __getitem__(self, at: slice, /) -> PlainSets: ...

    def __getitem__(self, at: int | slice, /) -> Set | PlainSets:
        if isinstance(at, slice):
            return PlainSets(self.keys[at], self.values[at])
        return Set(self.keys[at], self.values[at], JSON)
