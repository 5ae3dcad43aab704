"""Lists read many rows at once: whatever is in the database, they show what rows read one by one show."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantbase.commands import Command, DeletePrefix, Set
from tenantbase.documents import entries_json
from tenantbase.entry import JSON, OCTETS, Entry
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.listing import Folded, KeyRange, place_of
from tenantbase.plain_entries import PlainEntries
from tenantbase.scope import DEFAULT
from tests.fakes import Granted, RecordingSeqlock
from tests.interfaces.rendering import Rendering

NOW: Final = 1_000.0
COUNT: Final = 1_500


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def store(
    runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SqliteStore]:
    """A store of values with very different sizes, where a few entries are not plain."""
    sets = [
        Set(DEFAULT.key(f"{at:04}"), b'"%b"' % (b"x" * _length(at)), JSON) for at in range(COUNT)
    ]
    sets[150] = Set(sets[150].key, b"1", OCTETS)
    sets[900] = Set(sets[900].key, b"1", JSON, NOW + 1)
    sets[901] = Set(sets[901].key, b"1", JSON, NOW - 1)
    seqlock = RecordingSeqlock()
    path = tmp_path_factory.mktemp("lists") / "x.db"
    opened = runner.run(SqliteStore.open(path, seqlock.lock))
    commands: list[Command] = [*sets, DeletePrefix(DEFAULT.key("0077"))]
    for command in commands:
        runner.run(opened.write([Granted(command)], NOW - 2, seqlock))
    yield opened
    runner.run(opened.close())


def _length(at: int) -> int:
    return 3_000 if 500 <= at < 700 else at % 7


@pytest.fixture(scope="module")
def stored(runner: asyncio.Runner, store: SqliteStore) -> Sequence[Entry]:
    keys = [DEFAULT.key(f"{at:04}") for at in range(COUNT)]
    found = runner.run(store.read(keys, NOW))
    entries = [each for each in found if isinstance(each, Entry)]
    assert len(entries) == COUNT - 2  # one has expired, and one was under the deleted prefix
    return entries


@given(
    begin=st.integers(0, COUNT),
    limit=st.integers(20, 1_200),
    max_bytes=st.integers(500, 20_000) | st.integers(100_000, 1_000_000),
)
def test_pages_are_those_of_single_rows(
    runner: asyncio.Runner,
    store: SqliteStore,
    stored: Sequence[Entry],
    begin: int,
    limit: int,
    max_bytes: int,
) -> None:
    wanted, more = KeyRange("default/", start=DEFAULT.key(f"{begin:04}")), True
    found: list[Entry | Folded] = []
    while more:
        piece, more = runner.run(store.scan(wanted, limit, max_bytes, NOW, Rendering()))
        sizes = [len(item.value) for item in piece if isinstance(item, Entry)]
        assert len(sizes) <= limit and sum(sizes[:-1]) < max_bytes
        assert not more or len(sizes) == limit or sum(sizes) >= max_bytes
        if isinstance(piece, PlainEntries):
            shown = [item.key[DEFAULT.plain] for item in piece]
            assert piece.rendered == entries_json(shown, piece)
        found += piece
        wanted = wanted.after(place_of(found[-1])) if found else wanted
    assert found == [entry for entry in stored if entry.key >= DEFAULT.key(f"{begin:04}")]


def test_large_pages_of_plain_entries_are_rendered_where_they_are_read(
    runner: asyncio.Runner, store: SqliteStore, stored: Sequence[Entry]
) -> None:
    render = Rendering(lambda entries: b"%d" % len(entries.keys), form="count")
    wanted = KeyRange("default/", start=DEFAULT.key("0902"))
    piece, more = runner.run(store.scan(wanted, 500, 1 << 20, NOW, render))
    assert more and isinstance(piece, PlainEntries) and piece.rendered == b"500"
    assert render.threads != [threading.get_ident()]
    piece, more = runner.run(store.scan(wanted, 1_200, 1 << 20, NOW, render))
    assert not more and isinstance(piece, PlainEntries)  # the whole range
    assert piece.rendered == b"%d" % (COUNT - 902)


@pytest.mark.parametrize(
    "change",
    [
        "id = 'a\"b'",
        "id = '\"' || substr(id, 2)",
        "id = x'00'",
        "version = 'x'",
        "version = 1.5",
    ],
)
async def test_rows_that_were_tampered_with_are_not_rendered_as_they_are(
    tmp_path: Path, change: str
) -> None:
    seqlock = RecordingSeqlock()
    store = await SqliteStore.open(tmp_path / "x.db", seqlock.lock)
    for at in range(3):
        await store.write([Granted(Set(DEFAULT.key(f"{at}"), b"1", JSON))], NOW, seqlock)
    assert isinstance((await store.scan(KeyRange("default/"), 100, 1 << 20, NOW))[0], PlainEntries)
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:
        other.execute(f"UPDATE entries SET {change} WHERE key = 'default/1'")
    items, more = await store.scan(KeyRange("default/"), 100, 1 << 20, NOW, Rendering())
    assert len(items) == 3 and not more and not isinstance(items, PlainEntries)
    await store.close()
