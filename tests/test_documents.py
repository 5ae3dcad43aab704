"""Entries as JSON documents."""

from __future__ import annotations

import msgspec
import pytest

from tenantbase.commands import Applied
from tenantbase.documents import applied_json, entry_json
from tenantbase.entry import JSON, Entry
from tenantbase.scope import DEFAULT


@pytest.mark.parametrize(
    ("moment", "shown"), [(None, b"null"), (2000.0, b"2000"), (2000.25, b"2000.25")]
)
def test_whole_seconds_have_no_point(moment: float | None, shown: bytes) -> None:
    entry = Entry(DEFAULT.key("k"), b"1", JSON, "0" * 36, 7, moment)
    assert b'"expires_at":%b}' % shown in entry_json("k", entry)
    assert b'"expires_at":%b}' % shown in applied_json("k", Applied(entry=entry, created=True))


def test_json_of_another_type_says_so() -> None:
    entry = Entry(DEFAULT.key("k"), b"[1.0]", "application/ld+json", "0" * 36, 7, None)
    document = msgspec.json.decode(entry_json("k", entry), type=dict[str, msgspec.Raw])
    assert bytes(document["value"]) == b"[1.0]"
    assert bytes(document["content_type"]) == b'"application/ld+json"'
