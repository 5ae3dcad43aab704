"""Rows that were changed by hand: none of them makes a request for it, or for others, fail."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest

from tenantbase.commands import Delete, DeletePrefix, Increment, Rename, Set, Sweep, Touch
from tenantbase.entry import JSON, MAX_TIME, OCTETS, TEXT, Entry
from tenantbase.errors import Damaged
from tenantbase.events import EventKind
from tenantbase.interfaces.sqlite import row_rules
from tenantbase.interfaces.sqlite.moving import SqliteRows, SqliteSource
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.listing import EntryMeta, KeyRange
from tenantbase.scope import ScopedKey
from tests.app_server import AppServer
from tests.fakes import Granted, RecordingSeqlock

NOW: Final = 1_000_000.0
KEY: Final = b"default/k050"
COUNT: Final = 200  # enough for lists that read many rows at once
SOUND: Final[dict[str, Any]] = {"value": b"10", "content_type": JSON, "expires_at": None}

# What is set in a row, and what its entry then has.
CHANGES: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "a text as value": ("value = '12'", {"value": b"12"}),
    "a number as value": ("value = 12", {"value": b"12"}),
    "a real as value": ("value = 1.5", {"value": b"1.5"}),
    "a text that is no JSON as value": (
        "value = 'hello'",
        {"value": b"hello", "content_type": TEXT},
    ),
    "an empty text as value": ("value = ''", {"value": b"", "content_type": TEXT}),
    "bytes that are not text as value": (
        "value = CAST(x'ff' AS TEXT)",
        {"value": b"\xff", "content_type": TEXT},
    ),
    "a text as expiry": ("expires_at = 'soon'", {}),
    "a blob as expiry": ("expires_at = x'00'", {}),
    "an infinite expiry": ("expires_at = 9e999", {}),
    "an expiry after the last time": (f"expires_at = {MAX_TIME * 2}", {}),
    "a number as type": ("content_type = 5", {"content_type": OCTETS}),
    "a blob as type": ("content_type = x'61'", {"content_type": OCTETS}),
    "a type that ends its header": (
        "content_type = 'text/plain' || char(13, 10) || 'X-Evil: 1'",
        {"content_type": OCTETS},
    ),
    "a type that is not text": ("content_type = CAST(x'ff' AS TEXT)", {"content_type": OCTETS}),
    "a number as id": ("id = 7", {"id": "made"}),
    "a blob as id": ("id = x'00'", {"id": "made"}),
    "an id that ends its string": ("id = substr(id, 2) || '\"'", {"id": "made"}),
    "an id that is not text": ("id = CAST(x'ff' AS TEXT)", {"id": "made"}),
    "a text as version": ("version = 'new'", {"version": 1}),
    "a blob as version": ("version = x'00'", {"version": 1}),
    "a real as version": ("version = 7.5", {"version": 1}),
    "a negative version": ("version = -5", {"version": 1}),
}


@pytest.fixture
async def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A database in which the row k050 was changed."""
    path = tmp_path / "x.db"
    store = await SqliteStore.open(path, RecordingSeqlock().lock)
    rows = [Granted(Set(f"default/k{at:03}", b"10", JSON)) for at in range(COUNT)]
    await store.write(rows, NOW, RecordingSeqlock())
    await store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE entries SET {request.param} WHERE key = 'default/k050'")
    return path


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(path, RecordingSeqlock().lock)
    yield opened
    await opened.close()


ALL: Final = pytest.mark.parametrize(
    ("path", "expected"),
    [(change, {**SOUND, **expected}) for change, expected in CHANGES.values()],
    indirect=["path"],
    ids=list(CHANGES),
)


def agrees(found: object, expected: Mapping[str, Any]) -> None:
    """An entry, or what is listed of it, has what is expected."""
    assert isinstance(found, Entry | EntryMeta)
    assert found.key == "default/k050"
    for name, wanted in expected.items():
        if isinstance(found, EntryMeta) and name in ("value", "content_type"):
            continue  # without the value, it is not known whether that is JSON
        if wanted == "made":
            assert str(UUID(found.id)) == found.id
        else:
            assert getattr(found, name) == wanted, name
    assert type(found.version) is int


@ALL
async def test_every_way_to_read_it(store: SqliteStore, expected: Mapping[str, Any]) -> None:
    (alone,) = await store.read(["default/k050"], NOW)
    agrees(alone, expected)
    assert isinstance(alone, Entry)
    among = await store.read([f"default/k{at:03}" for at in (49, 50, 51)], NOW)
    assert among[1] == alone
    assert [getattr(each, "value", None) for each in among[::2]] == [b"10"] * 2
    wide = KeyRange("default/k")
    lists = [
        await store.scan(wide, COUNT, 1 << 20, NOW),
        await store.scan(KeyRange("default/k05"), 10, 1 << 20, NOW),
        await store.scan(KeyRange("default/k", descending=True), COUNT, 1 << 20, NOW),
        await store.scan(KeyRange("default/", delimiter="/"), COUNT, 1 << 20, NOW),
        await store.scan(wide, COUNT, 2 * COUNT - 60, NOW),  # the values that fit have two bytes
        await store.scan_meta(wide, COUNT, NOW),
    ]
    for items, _ in lists:
        (listed,) = [item for item in items if item.key == "default/k050"]
        agrees(listed, expected)
        assert getattr(listed, "id", None) == alone.id
    lengths = [len(items) for items, _ in lists]
    assert lengths[:4] == [COUNT, 10, COUNT, COUNT] and lengths[5] == COUNT
    assert COUNT - 40 < lengths[4] < COUNT


@pytest.mark.parametrize(
    "path", ["value = replace(hex(zeroblob(2500000)), '00', 'xx')"], indirect=True
)
async def test_a_large_text_as_value(store: SqliteStore) -> None:
    """It is read by itself."""
    (alone,) = await store.read(["default/k050"], NOW)
    wanted = KeyRange("default/k", start=ScopedKey("default/k040"))
    items, _ = await store.scan(wanted, COUNT, 1 << 20, NOW)
    for found in (alone, items[-1]):
        assert isinstance(found, Entry)
        assert found.value == b"x" * 5_000_000
        assert found.content_type == TEXT


@ALL
async def test_setting_it_makes_its_row_sound(
    store: SqliteStore, path: Path, expected: Mapping[str, Any]
) -> None:
    assert mistakes(path) != []
    written = await store.write([Granted(Set("default/k050", b"1", JSON))], NOW, RecordingSeqlock())
    assert isinstance(written.outcomes[0], tuple)
    await store.close()
    assert mistakes(path) == []


def mistakes(path: Path) -> list[str]:
    """What a check says of the row."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        (row,) = connection.execute(
            "SELECT *, typeof(key) || ' ' || typeof(version) || ' ' || typeof(expires_at) || ' ' ||"
            " typeof(id) || ' ' || typeof(content_type) || ' ' || typeof(value)"
            " FROM entries WHERE key = 'default/k050'"
        )
    return list(row_rules.mistakes(row, COUNT + 1))


@ALL
async def test_every_way_to_change_it(store: SqliteStore, expected: Mapping[str, Any]) -> None:
    """The others of the group are carried out, too."""
    for command in (
        Touch("default/k050", NOW + 10),
        Rename("default/k050", "default/copy", copy=True),
        Rename("default/k051", "default/k050", replace=True),
        Delete("default/k050", returned=True),
    ):
        group = [Granted(command), Granted(Set("default/other", b"1", JSON))]
        outcomes = (await store.write(group, NOW, RecordingSeqlock())).outcomes
        assert [type(outcome) for outcome in outcomes] == [tuple, tuple], command
    (entry,) = await store.read(["default/copy"], NOW)
    assert getattr(entry, "value", None) == expected["value"]
    assert getattr(entry, "expires_at", None) == NOW + 10


@ALL
async def test_it_is_counted_up_or_refused_alone(
    store: SqliteStore, expected: Mapping[str, Any]
) -> None:
    group = [Granted(Increment("default/k050", 1, 0)), Granted(Set("default/other", b"1", JSON))]
    counted, other = (await store.write(group, NOW, RecordingSeqlock())).outcomes
    number = expected["content_type"] == JSON and expected["value"].isdigit()
    assert isinstance(counted, tuple) == number
    assert isinstance(other, tuple)


@ALL
async def test_it_goes_with_its_prefix(store: SqliteStore, expected: Mapping[str, Any]) -> None:
    group = [Granted(DeletePrefix("default/k"))]
    ((deleted,),) = (await store.write(group, NOW, RecordingSeqlock())).outcomes  # type: ignore[misc]
    assert deleted.removed == COUNT
    assert await store.scan(KeyRange("default/"), COUNT, 1 << 20, NOW) == ([], False)


@ALL
async def test_a_move_takes_what_is_served(path: Path, expected: Mapping[str, Any]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        rows = await SqliteRows(connection, "x").rows("")
    (row,) = [row for row in rows if row.key == "default/k050"]
    agrees(
        Entry(ScopedKey(row.key), row.value, row.content_type, row.id, row.version, row.expires_at),
        expected,
    )


@pytest.mark.parametrize("path", ["key = x'ff', id = 7"], indirect=True)
@pytest.mark.parametrize("change", ["kind = 'other'", "key = CAST(x'ff' AS TEXT)"])
async def test_a_move_passes_over_what_no_request_can_name(path: Path, change: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE changes SET {change} WHERE version = {COUNT}")
        source = SqliteSource(connection, "x", still=True)
        assert len(await source.rows("")) == COUNT - 1
        last = await source.last_change()
    assert last is not None and (last.version, last.kind) == (COUNT, EventKind.RESET)


@pytest.mark.parametrize(
    "path", ["key = CAST(x'64656661756c742f6b303530ff' AS TEXT)"], indirect=True
)
async def test_a_key_that_is_not_text_is_damage(store: SqliteStore) -> None:
    """No page of a list could begin after it, so lists that include it fail, and nothing else."""
    for wanted in (KeyRange("default/"), KeyRange("default/", delimiter="/")):
        with pytest.raises(Damaged):
            await store.scan(wanted, COUNT, 1 << 20, NOW)
        with pytest.raises(Damaged):
            await store.scan_meta(wanted, COUNT, NOW)
    assert await store.read(["default/k050"], NOW) == [None]
    items, _ = await store.scan(KeyRange("default/k1"), COUNT, 1 << 20, NOW)
    assert len(items) == 100
    group = [Granted(DeletePrefix("default/k0")), Granted(Set("default/other", b"1", JSON))]
    outcomes = (await store.write(group, NOW, RecordingSeqlock())).outcomes
    assert [type(outcome) for outcome in outcomes] == [Damaged, tuple]
    assert [trouble.value for trouble in store.troubles] == ["damaged rows"]


@pytest.mark.parametrize(
    "path",
    [
        f"key = CAST(x'{KEY.hex()}ff' AS TEXT), {change}"
        for change in ("id = 'x'", "value = zeroblob(40000)", "value = zeroblob(5000000)")
    ],
    indirect=True,
)
async def test_a_key_that_is_not_text_is_damage_whatever_else_is_in_its_row(
    store: SqliteStore,
) -> None:
    for wanted in (
        KeyRange("default/"),
        KeyRange("default/", descending=True),
        KeyRange("default/", delimiter="5"),
        KeyRange("default/", delimiter="/"),
    ):
        for _ in range(2):  # the connection can be used again
            with pytest.raises(Damaged):
                await store.scan(wanted, COUNT, 1 << 23, NOW)
            with pytest.raises(Damaged):
                await store.scan_meta(wanted, COUNT, NOW)
    items, _ = await store.scan(KeyRange("default/k1"), COUNT, 1 << 20, NOW)
    assert len(items) == 100


@pytest.mark.parametrize("path", ["key = x'ff', expires_at = 5"], indirect=True)
async def test_an_expired_row_without_a_text_as_key_is_removed(
    store: SqliteStore, path: Path
) -> None:
    group = [Granted(Sweep(100)), Granted(Set("default/other", b"1", JSON))]
    outcomes = (await store.write(group, NOW, RecordingSeqlock())).outcomes
    assert [type(outcome) for outcome in outcomes] == [tuple, tuple]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (COUNT,)


@pytest.mark.parametrize("path", ["key = key"], indirect=True)
@pytest.mark.parametrize(
    "change",
    [
        "kind = 'other'",
        "kind = x'00'",
        "kind = CAST(x'ff' AS TEXT)",
        "key = x'00'",
        "key = CAST(x'ff' AS TEXT)",
        "size = 'large'",
        "content_type = x'00'",
        "expires_at = 'soon'",
    ],
)
async def test_a_line_of_the_change_log_is_missing(
    store: SqliteStore, path: Path, change: str
) -> None:
    """Whoever reads on from before it is told to read everything again, and the others go on."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE changes SET {change} WHERE version = 100")
    assert await store.changes(50, 1_000) == ([], False)
    before, complete = await store.changes(50, 49)
    assert [event.version for event in before] == list(range(51, 100)) and complete
    after, complete = await store.changes(100, 1_000)
    assert [event.version for event in after] == list(range(101, COUNT + 1)) and complete


def test_a_server_answers_for_each_of_them(tmp_path: Path) -> None:
    path = tmp_path / "x.db"

    async def fill() -> None:
        store = await SqliteStore.open(path, RecordingSeqlock().lock)
        rows = [Granted(Set(f"default/k{at:03}", b"10", JSON)) for at in range(COUNT)]
        await store.write(rows, NOW, RecordingSeqlock())
        await store.close()

    asyncio.run(fill())
    named = {f"k{at:03}": change for at, (change, _) in enumerate(CHANGES.values(), 50)}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for key, change in named.items():
            connection.execute(f"UPDATE entries SET {change} WHERE key = ?", (f"default/{key}",))
    lists = ["", "?limit=1000", "?fields=meta", "?order=desc", "?prefix=k0", "?delimiter=/"]
    with AppServer(path) as server:
        for key in named:
            for _ in range(2):  # from the database, and from the cache
                got = server.ask("GET", f"/get-value?key={key}")
                assert got.status == 200
                assert got.json["key"] == key
                raw = server.ask("GET", f"/v1/values/{key}")
                assert raw.status == 200 and "x-evil" not in raw.headers
        for query in lists:
            listed = server.ask("GET", f"/get-values{query}")
            assert listed.status == 200
            assert "k050" in {entry["key"] for entry in listed.json["values"]}
        for key in named:
            body = b'{"key": "%b", "value": 1}' % key.encode()
            assert server.ask("POST", "/set-value", body).status == 200
            assert server.ask("DELETE", f"/delete-value?key={key}").status == 204
        assert server.stop() == 0
        assert "Traceback" not in server.stderr
