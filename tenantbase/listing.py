"""What can be listed: ranges of scoped keys, and the items found in them."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from tenantbase.entry import MAX_KEY_BYTES, Entry
from tenantbase.scope import ScopedKey

PAGE_ENTRIES: Final = 1024
"""The most entries in a piece of a list that is read and rendered together, in a thread that reads."""

# Greater than every legal key: the highest character, once more than fits in a key.
_ABOVE_ALL: Final = "\U0010ffff" * (MAX_KEY_BYTES // 4 + 1)


class EntryMeta(msgspec.Struct, frozen=True, gc=False):
    """An entry without its value; see ``Entry``.

    Attributes:
        size: the bytes of the stored value.
    """

    key: ScopedKey
    size: int
    content_type: str
    id: str
    version: int
    expires_at: float | None


class Folded(msgspec.Struct, frozen=True, gc=False):
    """All keys that begin with ``key``, as one item. ``key`` ends with the delimiter."""

    key: ScopedKey


Item = Entry | EntryMeta | Folded


class Place(NamedTuple):
    """Where a page of a list ends.

    Attributes:
        key: of the page's last item.
        folded: that item is ``Folded``: it stands for all keys that begin with ``key``.
    """

    key: str
    folded: bool = False


def place_of(item: Item) -> Place:
    """The place of an item."""
    return Place(item.key, isinstance(item, Folded))


class KeyRange(msgspec.Struct, frozen=True, gc=False):
    """The keys to list, and how. All texts are literal, and scoped below ``Database``.

    Attributes:
        prefix: the keys begin with this; empty: all keys.
        start: the first possible key; empty: no bound.
        end: the keys are less than this; empty: no bound.
        descending: in descending order of keys instead of ascending.
        delimiter: keys that contain it after the prefix are folded into one item for each text up
            to and including it; empty: no folding.
    """

    prefix: str = ""
    start: str = ""
    end: str = ""
    descending: bool = False
    delimiter: str = ""

    def bounds(self) -> tuple[str, str]:
        """The keys are those with ``low <= key < high``."""
        low, high = prefix_range(self.prefix)
        return max(low, self.start), min(high, self.end) if self.end else high

    def after(self, place: Place) -> KeyRange:
        """The rest of the range after a place in it."""
        low, high = self.bounds()
        if self.descending:
            return msgspec.structs.replace(self, end=min(high, place.key))
        # Keys never contain U+0000, so no key lies between ``key`` and ``key + "\0"``.
        following = prefix_range(place.key)[1] if place.folded else place.key + "\0"
        return msgspec.structs.replace(self, start=max(low, following))

    def folded(self, key: str) -> ScopedKey | None:
        """What a key is folded into; None: the key itself is listed."""
        if not self.delimiter:
            return None
        at = key.find(self.delimiter, len(self.prefix))
        return None if at < 0 else ScopedKey(key[: at + len(self.delimiter)])


def prefix_range(prefix: str) -> tuple[str, str]:
    """Bounds ``low <= key < high`` that hold for exactly the keys that begin with ``prefix``.

    Texts are compared by code points, which is also the order of their UTF-8.
    """
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return prefix, _ABOVE_ALL
    # The code points U+D800 to U+DFFF are surrogates, which UTF-8 leaves out.
    successor = "\ue000" if stem[-1] == "\ud7ff" else chr(ord(stem[-1]) + 1)
    return prefix, stem[:-1] + successor
