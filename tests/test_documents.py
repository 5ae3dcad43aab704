"""Entries as JSON documents."""

from __future__ import annotations

import msgspec
import pytest

from tenantbase import documents
from tenantbase.commands import Applied
from tenantbase.documents import (
    applied_json,
    entries_json,
    entry_json,
    entry_pieces,
    entry_size,
    lookup_json,
    plain_json,
    values_json,
)
from tenantbase.entry import JSON, Entry
from tenantbase.lookup import CacheStatus, Lookup
from tenantbase.plain_entries import Columns, PlainEntries
from tenantbase.scope import DEFAULT, ScopedKey


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


@pytest.mark.parametrize("moment", [None, 2000.0])
def test_documents_are_the_same_one_by_one_and_together(moment: float | None) -> None:
    kinds = [
        (JSON, b'{"a": 1.0}'),
        ("application/ld+json", b"[1]"),
        ("text/plain", 'a "quoted" \u20ac'.encode()),
        ("text/plain", b"\xff"),
        ("application/octet-stream", bytes(range(256))),
    ]
    entries = [
        Entry(DEFAULT.key(f'k"{number}'), value, content_type, "0" * 36, number, moment)
        for number, (content_type, value) in enumerate(kinds)
    ]
    keys = [entry.key[DEFAULT.plain] for entry in entries]
    alone = [entry_json(*each) for each in zip(keys, entries, strict=True)]
    assert entries_json(keys, entries) == b",".join(alone)
    assert entries_json([], []) == b""
    encodings = [msgspec.json.decode(each).get("encoding") for each in alone]
    assert encodings == [None, None, "utf-8", "base64", "base64"]
    for key, entry, whole in zip(keys, entries, alone, strict=True):
        assert b"".join(entry_pieces(key, entry)) == whole
        assert entry_size(key, entry) == len(whole)


@pytest.mark.parametrize(("size", "made"), [(1, 1), (1_024, 1), (1_025, 2), (50_000, 2)])
def test_a_lookup_remembers_its_document_unless_it_is_large(
    monkeypatch: pytest.MonkeyPatch, size: int, made: int
) -> None:
    """Lookups are remembered for long, and only small documents count as a part of them."""
    makings: list[bytes] = []

    def noted(key: str, entry: Entry) -> bytes:
        makings.append(entry_json(key, entry))
        return makings[-1]

    monkeypatch.setattr(documents, "entry_json", noted)
    entry = Entry(DEFAULT.key("k"), b"1" * size, JSON, "0" * 36, 7, None)
    lookup = Lookup(entry, CacheStatus.HIT)
    for _ in range(2):
        assert lookup_json("k", lookup) == entry_json("k", entry)
    assert len(makings) == made
    assert lookup.document is (makings[0] if made == 1 else None)


def test_values_are_one_document_up_to_its_greatest_length() -> None:
    keys = ["a", "b", "c"]
    entries = [Entry(DEFAULT.key(key), b'"%d"' % 10**9, JSON, "0" * 36, 7, None) for key in keys]
    found = [Lookup(entry, CacheStatus.HIT) for entry in entries]
    made = b'{"values":[%b],"missing":[]}' % entries_json(keys, entries)
    for _ in range(2):  # rendered, then remembered
        assert values_json(keys, found, len(made)) == made
        assert values_json(keys, found, len(made) - 1) is None
    absent = values_json(["d", *keys], [Lookup(None, CacheStatus.HIT), *found], len(made) + 3)
    assert absent == made.replace(b'"missing":[', b'"missing":["d"')
    assert values_json(["d", *keys], [Lookup(None, CacheStatus.HIT), *found], len(made)) is None


def test_values_that_are_too_long_together_are_not_rendered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(documents, "entry_json")
    entry = Entry(DEFAULT.key("k"), b"1" * 600, JSON, "0" * 36, 7, None)
    assert values_json("kk", [Lookup(entry, CacheStatus.HIT)] * 2, 1_199) is None


@pytest.mark.parametrize("count", [1, 2, 7])
def test_plain_entries_are_rendered_as_others_are(count: int) -> None:
    texts = ['","', '"', "\\", "é\u2028\x02", 'a","b\\', "k", "\\u0001default/"]
    keys: list[str] = [DEFAULT.key(text) for text in texts[:count]]
    values = [b'["%d",\n"x"]' % number for number in range(count)]
    versions = [b"%d" % 10**number for number in range(count)]
    ids = [b"%d" % number * 36 for number in range(count)]
    columns = Columns(keys, values, ids, versions)
    plain = PlainEntries.of(columns)
    entries = [
        Entry(ScopedKey(keys[at]), values[at], JSON, str(at) * 36, 10**at, None)
        for at in range(count)
    ]
    assert list(plain) == entries and list(plain[1:]) == entries[1:] and plain[-1] == entries[-1]
    shown = [key[DEFAULT.plain] for key in keys]
    assert plain.columns == columns
    assert plain_json(columns, DEFAULT.plain) == entries_json(shown, entries)
    assert plain_json(columns, DEFAULT.plain, before=b"[") == b"[" + entries_json(shown, entries)
