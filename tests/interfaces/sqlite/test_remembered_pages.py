"""A remembered page of a list is what the database holds, and is not read again until that changes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantbase.commands import Command, Delete, DeletePrefix, Set
from tenantbase.documents import entries_json
from tenantbase.entry import JSON, OCTETS, Entry
from tenantbase.interfaces.sqlite.remembered_pages import RememberedPages
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.listing import KeyRange
from tenantbase.plain_entries import PlainEntries
from tenantbase.scope import DEFAULT, ScopedKey
from tests.app_server import AppServer
from tests.fakes import Granted, RecordingSeqlock
from tests.interfaces.rendering import Rendering

NOW: Final = 1_000.0
ALL: Final = KeyRange("default/")
COUNT: Final = 40  # enough for lists that read many rows at once


async def opened(path: Path, count: int = COUNT, value: bytes = b"1") -> SqliteStore:
    """A store with this many keys."""
    store = await SqliteStore.open(path, RecordingSeqlock().lock)
    await write(store, *(Set(key(at), value, JSON) for at in range(count)))
    return store


async def write(store: SqliteStore, *commands: Command) -> None:
    seqlock = RecordingSeqlock()
    for start in range(0, len(commands), 1_000):
        group = [Granted(command) for command in commands[start : start + 1_000]]
        with seqlock.lock():
            await store.write(group, NOW, seqlock)


def key(at: int) -> ScopedKey:
    return DEFAULT.key(f"{at:05}")


async def shown(
    store: SqliteStore, render: Rendering, wanted: KeyRange = ALL, limit: int = 1_000
) -> bytes:
    """The document of a page, which is that of its entries."""
    items, _ = await store.scan(wanted, limit, 8 << 20, NOW, render)
    assert isinstance(items, PlainEntries)
    assert items.rendered == entries_json([each.key[DEFAULT.plain] for each in items], items)
    return items.rendered


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await opened(tmp_path / "x.db")
    yield store
    await store.close()


async def test_a_page_is_remembered_from_the_second_time_on(store: SqliteStore) -> None:
    renders = [Rendering() for _ in range(5)]
    assert len({await shown(store, render) for render in renders}) == 1
    assert [len(render.threads) for render in renders] == [1, 1, 0, 0, 0]


async def test_pages_that_differ_in_anything_are_not_mistaken_for_each_other(
    store: SqliteStore,
) -> None:
    ranges = [ALL, KeyRange("default/", start=key(1)), KeyRange("default/", end=key(39))]
    for limit in (20, 21):
        for wanted in ranges:
            for form in ("json", "count"):
                render = Rendering(form=form)
                for _ in range(3):
                    await shown(store, render, wanted, limit)
                assert len(render.threads) == 2
    for max_bytes in (25, 26):  # each value has one byte
        for _ in range(3):
            items, more = await store.scan(ALL, 1_000, max_bytes, NOW, Rendering())
            assert len(items) == max_bytes and more


async def by_the_store(store: SqliteStore, path: Path) -> None:
    await write(store, Set(key(7), b"2", JSON))


async def by_deleting_a_prefix(store: SqliteStore, path: Path) -> None:
    await write(store, DeletePrefix(key(7)), *(Set(key(at), b"3", JSON) for at in range(COUNT)))


async def by_another_process(store: SqliteStore, path: Path) -> None:
    other = await SqliteStore.open(path, RecordingSeqlock().lock)
    await write(other, Delete(key(7)))
    await other.close()


async def by_hand(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE entries SET value = x'39' WHERE key = ?", (key(7),))


@pytest.mark.parametrize(
    "change", [by_the_store, by_deleting_a_prefix, by_another_process, by_hand]
)
async def test_a_page_is_read_again_after_a_change(
    store: SqliteStore, tmp_path: Path, change: Callable[[SqliteStore, Path], Awaitable[None]]
) -> None:
    for _ in range(3):
        before = await shown(store, Rendering())
    await change(store, tmp_path / "x.db")
    again = Rendering()
    for _ in range(3):
        assert await shown(store, again) != before
    assert len(again.threads) == 1


async def test_an_entry_that_expires_leaves_the_list_in_time(store: SqliteStore) -> None:
    await write(store, Set(key(7), b"2", JSON, NOW + 1))
    for after, count in ((0, COUNT), (0.5, COUNT), (0.9, COUNT), (2, COUNT - 1)):
        items, _ = await store.scan(ALL, 1_000, 8 << 20, NOW + after, Rendering())
        assert len(items) == count


async def test_a_commit_while_a_page_is_read_makes_it_be_read_again(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db")
    await store.close()
    pages = RememberedPages()
    with (
        closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as reading,
        closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as writing,
    ):
        values = iter(range(10, 100))

        def commit(statement: str) -> None:
            # Before each statement of the scan: the first of them before its snapshot begins.
            if not statement.startswith("PRAGMA"):
                value = b"%d" % next(values)
                writing.execute("UPDATE entries SET value = ? WHERE key = ?", (value, key(7)))

        def page() -> bytes:
            items, _ = pages.scan(reading, ALL, 1_000, 8 << 20, NOW, Rendering())
            assert isinstance(items, PlainEntries)
            return items.rendered

        for _ in range(3):
            commit("")
            reading.set_trace_callback(commit)
            page()
            reading.set_trace_callback(None)
            select = "SELECT value FROM entries WHERE key = ?"
            (value,) = writing.execute(select, (key(7),)).fetchone()
            assert b'"00007","value":%b,' % value in page()
        assert value >= b"21"  # at least four commits each time


async def test_few_pages_are_remembered_and_only_those_used_last(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db", 6_000, b'"%b"' % (b"x" * 998))
    renders = [Rendering() for _ in range(6)]

    async def list_from(at: int, limit: int = 800) -> None:
        wanted = KeyRange("default/", start=key(800 * at))
        await shown(store, renders[at], wanted, limit)

    for at in (0, 0, 1, 1, 2, 2, 3, 3, 0, 4, 4):  # each takes 1.7 MiB; there is room for four
        await list_from(at)
    for at in (0, 2, 3, 4):
        await list_from(at)
        assert len(renders[at].threads) == 2
    await list_from(1)  # the one that had been used the longest time ago
    assert len(renders[1].threads) == 3
    for _ in range(4):
        await list_from(5, limit=1_000)  # this page is larger than a quarter of the room
    assert len(renders[5].threads) == 4
    await store.close()


async def test_a_page_asked_for_long_ago_counts_as_asked_for_the_first_time(
    store: SqliteStore,
) -> None:
    render = Rendering()
    await shown(store, render)
    for limit in range(1, 300):
        await store.scan(ALL, 1_000 + limit, 8 << 20, NOW, Rendering())
    for _ in range(3):
        await shown(store, render)
    assert len(render.threads) == 3


async def test_the_room_is_free_again_after_a_change(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db", 6_000, b'"%b"' % (b"x" * 998))
    for change, reads in enumerate((8, 4, 4)):  # lists that were asked for before are read once
        await write(store, Set(key(0), b"%d" % change, JSON))
        render = Rendering()
        for at in (0, 800, 1_600, 2_400) * 3:
            await shown(store, render, KeyRange("default/", start=key(at)), 800)
        assert len(render.threads) == reads
    await store.close()


async def test_the_room_is_free_again_after_pages_were_forgotten(tmp_path: Path) -> None:
    store = await opened(tmp_path / "x.db", 6_000, b'"%b"' % (b"x" * 998))
    for at in range(0, 5_000, 100):
        render = Rendering()
        for _ in range(3):
            await shown(store, render, KeyRange("default/", start=key(at)), 800)
        assert len(render.threads) == 2
    await store.close()


async def test_the_memory_of_keys_counts(tmp_path: Path) -> None:
    """One character beyond U+FFFF makes each of a page's take four bytes."""
    store = await opened(tmp_path / "x.db", 0)
    keys = [DEFAULT.key(f"{at:03}" + "k" * 900) for at in range(500)]
    await write(store, *(Set(each, b"1", JSON) for each in keys))
    await write(store, Set(DEFAULT.key("000" + "k" * 900 + "\U0001f600"), b"1", JSON))
    for start, read in ((keys[1], 2), (keys[0], 4)):  # 0.9 MiB, and 2.3: more than a quarter
        render = Rendering()
        for _ in range(4):
            await shown(store, render, KeyRange("default/", start=start), 500)
        assert len(render.threads) == read
    await store.close()


def test_each_document_is_that_of_its_request(tmp_path: Path) -> None:
    """A page may begin one document, and continue another. Tenants may have the same keys."""
    with AppServer(tmp_path / "x.db") as server:
        for tenant in ("aa", "bb"):
            assert server.ask("PUT", f"/v1/tenants/{tenant}", b"{}").status == 201
            headers = {"X-Tenant": tenant}
            for start in range(0, 2_600, 200):
                entries = b",".join(
                    b'{"key": "%05d", "value": "%b %d"}' % (at, tenant.encode(), at)
                    for at in range(start, start + 200)
                )
                body = b'{"values": [%b]}' % entries
                assert server.ask("POST", "/set-values", body, headers=headers).status == 200
        for _ in range(3):
            for tenant in ("aa", "bb"):
                headers = {"X-Tenant": tenant}
                whole = server.ask("GET", "/get-values", headers=headers).json["values"]
                paged, cursor = [], ""
                while cursor is not None:
                    query = f"?limit=1024&cursor={cursor}"
                    page = server.ask("GET", f"/get-values{query}", headers=headers).json
                    cursor = page["cursor"]
                    paged += page["values"]
                expected = [f"{tenant} {at}" for at in range(2_600)]
                assert [entry["value"] for entry in whole] == expected
                assert whole == paged


async def test_lines_are_not_remembered(store: SqliteStore) -> None:
    """They are not rendered by the store, and a page of them is usually asked for once."""
    (first, _), (second, _) = [await store.scan(ALL, 1_000, 8 << 20, NOW) for _ in range(2)]
    assert list(first) == list(second) and first is not second


Step = tuple[str, int]
STEPS: Final = st.lists(
    st.tuples(
        st.sampled_from(["set", "expire", "odd", "delete", "prefix", "list"]), st.integers(0, 24)
    ),
    max_size=25,
)


@given(steps=STEPS)
def test_lists_show_what_is_stored(
    steps: Sequence[Step], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two stores have the same file; one writes, both list."""

    async def run() -> None:
        path = tmp_path_factory.mktemp("pages") / "x.db"
        writing = await opened(path, 24)
        listing = await SqliteStore.open(path, RecordingSeqlock().lock)
        now = NOW
        for step, at in steps:
            now += 1
            if step == "set":
                await write(writing, Set(key(at), b"%d" % now, JSON))
            elif step == "expire":
                await write(writing, Set(key(at), b"%d" % now, JSON, now + 2))
            elif step == "odd":
                await write(writing, Set(key(at), b"%d" % now, OCTETS))
            elif step == "delete":
                await write(writing, Delete(key(at)))
            elif step == "prefix":
                await write(writing, DeletePrefix(key(at)[:-1]))
            stored = [
                entry
                for entry in await writing.read([key(at) for at in range(25)], now)
                if isinstance(entry, Entry)
            ]
            for store in (writing, listing) * 3:
                items, more = await store.scan(ALL, 1_000, 8 << 20, now, Rendering())
                assert list(items) == stored and not more
                if isinstance(items, PlainEntries) and items.rendered:
                    keys = [entry.key[DEFAULT.plain] for entry in stored]
                    assert items.rendered == entries_json(keys, stored)
        await listing.close()
        await writing.close()

    asyncio.run(run())
