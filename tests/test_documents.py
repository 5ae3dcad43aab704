"""Documents: what is rendered in pieces is what is rendered at once."""

from __future__ import annotations

import pytest

from tenantbase.documents import PIECE_BYTES, entry_json, entry_pieces, entry_size
from tenantbase.entry import JSON, OCTETS, Entry

ID = "00000000-0000-4000-8000-000000000001"


@pytest.mark.parametrize("content_type", [JSON, "application/geo+json", OCTETS, "text/plain"])
@pytest.mark.parametrize("expires_at", [None, 2e9, 2e9 + 0.25])
@pytest.mark.parametrize(
    "size", [0, 1, 2, 3, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2_000_000]
)
def test_pieces_make_the_whole(content_type: str, expires_at: float | None, size: int) -> None:
    value = b'"' + b"x" * size + b'"'
    entry = Entry('a "key", and é', value, content_type, ID, 7, expires_at)
    pieces = list(entry_pieces(entry))
    assert b"".join(pieces) == entry_json(entry)
    assert entry_size(entry) == len(entry_json(entry))
    assert max(map(len, pieces)) <= PIECE_BYTES * 4 // 3
