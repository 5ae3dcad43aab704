"""The JSON document of a list: ``{"values": [...], "cursor": ...}``, made part by part."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tenantbase.documents import entries_json, plain_json
from tenantbase.entry import Entry
from tenantbase.plain_entries import Columns


class ListDocument:
    """A document of a list while it is made. It is a ``Render`` of its next part.

    Args:
        plain: the part of the keys to show.

    Attributes:
        before: what comes before the next entry of the document.
    """

    __slots__ = ("_plain", "before")

    def __init__(self, plain: slice) -> None:
        self._plain = plain
        self.before = b'{"values":['

    def __call__(self, entries: Columns) -> bytes:
        return plain_json(entries, self._plain, before=self.before)

    @property
    def form(self) -> tuple[int, bytes]:
        return self._plain.start, self.before

    def entries(self, entries: Sequence[Entry]) -> bytes:
        """The next part, of entries that are not rendered yet. There is at least one."""
        plain = self._plain
        return self.before + entries_json([entry.key[plain] for entry in entries], entries)

    def end(self, cursor: str | None, folded: Sequence[bytes] | None = None) -> bytes:
        """The last part.

        Args:
            folded: what was folded, as JSON strings; None: nothing could be.
        """
        prefixes = b"" if folded is None else b',"prefixes":[%b]' % b",".join(folded)
        ended = b']%b,"cursor":%b}' % (prefixes, msgspec.json.encode(cursor))
        return ended if self.before == b"," else self.before + ended
