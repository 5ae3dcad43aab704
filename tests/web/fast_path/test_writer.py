"""Answers as bytes. ``test_agreement.py`` compares them with aiohttp's."""

from __future__ import annotations

import re
from types import SimpleNamespace

import msgspec
import pytest

from tenantbase.entry import JSON, Entry
from tenantbase.lookup import CacheStatus, Lookup
from tenantbase.scope import DEFAULT, Scope
from tenantbase.waits import DELIVERY, Timing
from tenantbase.web import responses
from tenantbase.web.fast_path import writer as rendering
from tenantbase.web.fast_path.writer import ResponseWriter
from tenantbase.web.lifecycle import Lifecycle

ENTRY = Entry(DEFAULT.key("k"), b"1", JSON, "0" * 36, 7, None)


def fields(answer: bytes) -> dict[bytes, bytes]:
    head = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return {name: text for name, _, text in (line.partition(b": ") for line in head)}


def test_the_date_follows_the_clock_forth_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000_000.5
    monkeypatch.setattr(rendering, "time", SimpleNamespace(time=lambda: now))
    writer = ResponseWriter(Lifecycle())
    dates, of_collections = [], []
    for now in (1_000_000_000.5, 1_000_000_000.9, 1_000_000_001.0, 999_999_999.9):
        of_collections.append(fields(writer.collection([b"{}"]))[b"Date"][-12:])
        dates.append(
            fields(writer.entry("k", ENTRY, Lookup(ENTRY, CacheStatus.HIT)))[b"Date"][-12:]
        )
    assert of_collections == dates
    assert dates == [b"01:46:40 GMT", b"01:46:40 GMT", b"01:46:41 GMT", b"01:46:39 GMT"]


def test_one_batch_has_one_date(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000_000.5
    monkeypatch.setattr(rendering, "time", SimpleNamespace(time=lambda: now))
    lifecycle = Lifecycle()
    writer = ResponseWriter(lifecycle)

    def date() -> bytes:
        return fields(writer.absent(CacheStatus.MISS))[b"Date"][-12:]

    DELIVERY.begin(Timing())
    assert date() == b"01:46:40 GMT"
    now += 10
    assert date() == b"01:46:40 GMT"
    DELIVERY.end()
    assert date() == b"01:46:50 GMT"
    DELIVERY.begin(Timing())
    lifecycle.drain()
    assert fields(writer.absent(CacheStatus.MISS))[b"Connection"] == b"close"
    DELIVERY.end()


def test_remembered_answers_are_those_that_would_be_made() -> None:
    """Also when the key has another entry, of another version or in another tenant."""
    remembering = ResponseWriter(Lifecycle())
    later = msgspec.structs.replace(ENTRY, version=8)
    elsewhere = msgspec.structs.replace(ENTRY, key=Scope("other").key("k"), value=b"2")
    large = msgspec.structs.replace(ENTRY, value=b"1" * 2_000)
    lookups = [
        Lookup(entry, status)
        for entry in (ENTRY, later, elsewhere, large)
        for status in (CacheStatus.HIT, CacheStatus.MISS, CacheStatus.HIT, CacheStatus.STALE)
    ]
    for lookup in (*lookups, *lookups, *reversed(lookups)):
        assert lookup.entry is not None
        for private in (False, True, False):
            made = remembering.entry("k", lookup.entry, lookup, private)
            alike = Lookup(lookup.entry, lookup.cache_status)
            fresh = ResponseWriter(Lifecycle()).entry("k", lookup.entry, alike, private)
            assert without_date(made) == without_date(fresh)


def test_few_and_small_answers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_KNOWN_ANSWERS", 3)
    writer = ResponseWriter(Lifecycle())
    for number in range(10):
        writer.entry(str(number), ENTRY, Lookup(ENTRY, CacheStatus.HIT))
        assert 0 < len(writer._known[False]) <= 3
    writer._known[False].clear()
    large = msgspec.structs.replace(ENTRY, value=b"1" * 2_000)
    writer.entry("k", large, Lookup(large, CacheStatus.HIT))
    writer.entry("k", ENTRY, Lookup(ENTRY, CacheStatus.MISS))
    assert not writer._known[False] and not writer._known[True]


def without_date(answer: bytes) -> bytes:
    return re.sub(rb"Date: [^\r]*", b"", answer)


def test_a_draining_server_announces_the_end_of_the_connection() -> None:
    lifecycle = Lifecycle()
    writer = ResponseWriter(lifecycle)
    assert b"Connection" not in fields(writer.entry("k", ENTRY, Lookup(ENTRY, CacheStatus.MISS)))
    lifecycle.drain()
    assert (
        fields(writer.entry("k", ENTRY, Lookup(ENTRY, CacheStatus.MISS)))[b"Connection"] == b"close"
    )


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("cache_status", CacheStatus)
def test_fixed_answers_are_those_of_the_general_path(
    private: bool, cache_status: CacheStatus
) -> None:
    writer = ResponseWriter(Lifecycle())
    for made, answer in (
        (writer.absent(cache_status, private), responses.absent(cache_status)),
        (writer.deleted(private), responses.deleted()),
        (writer.collection([b"{}"], private), responses.collection(b"{}")),
    ):
        if private:
            responses.make_private(answer.headers)
        assert made == writer.answer(answer)
