"""Answers as bytes. ``test_agreement.py`` compares them with aiohttp's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tenantbase.entry import JSON, Entry
from tenantbase.lookup import CacheStatus, Lookup
from tenantbase.scope import DEFAULT
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
    dates = []
    for now in (1_000_000_000.5, 1_000_000_000.9, 1_000_000_001.0, 999_999_999.9):
        dates.append(
            fields(writer.entry("k", ENTRY, Lookup(ENTRY, CacheStatus.HIT)))[b"Date"][-12:]
        )
    assert dates == [b"01:46:40 GMT", b"01:46:40 GMT", b"01:46:41 GMT", b"01:46:39 GMT"]


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
    ):
        if private:
            responses.make_private(answer.headers)
        assert made == writer.answer(answer)
