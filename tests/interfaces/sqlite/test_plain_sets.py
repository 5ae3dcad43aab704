"""Plain values written from columns: whatever is in the database, the outcome is that of their ``Set``s."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tenantbase.commands import Delete, DeletePrefix, PutTenant, Rename, Set, Sweep, Transaction
from tenantbase.entry import JSON, OCTETS
from tenantbase.interfaces.sqlite import plain_sets, sweep
from tenantbase.interfaces.sqlite.change_log import SqliteChangeLog
from tenantbase.interfaces.sqlite.opening import open_writer
from tenantbase.interfaces.sqlite.plain_sets import create_plain
from tenantbase.interfaces.sqlite.store import SqliteStore
from tenantbase.interfaces.sqlite.usage import Usage
from tenantbase.plain_sets import PlainSets
from tests.fakes import Granted, RecordingSeqlock

NOW: Final = 1_000.0
_TABLES: Final = (
    "SELECT created, key, version, expires_at, content_type, value FROM entries ORDER BY created",
    "SELECT * FROM changes ORDER BY version",
    "SELECT * FROM tenants ORDER BY name",
    "SELECT * FROM deleted_prefixes ORDER BY version",
)
# What a tenant's usage has to be.
_USAGE: Final = """
    SELECT count(*), coalesce(sum(length(value) + length(CAST(key AS BLOB)) - length('t/')), 0)
    FROM entries WHERE NOT EXISTS (
        SELECT 1 FROM deleted_prefixes AS deleted
        WHERE created <= deleted.version AND key >= low AND key < high
    )
"""
_KEYS: Final = st.sampled_from(["a", "a1", "a2", "b", "é", "\U0010ffff"])
_VALUES: Final = st.sampled_from([b"1", b'"12345678"', b"[]"])
_PLAIN: Final = st.dictionaries(_KEYS, _VALUES, min_size=1)
_OTHERS: Final = st.one_of(
    st.builds(lambda key: (Set(f"t/{key}", b"old", OCTETS),), _KEYS),
    st.builds(lambda key: (Set(f"t/{key}", b"1", JSON, NOW + 1),), _KEYS),
    st.builds(lambda key: (Delete(f"t/{key}"),), _KEYS),
    st.builds(lambda key, to: (Rename(f"t/{key}", f"t/{to}"),), _KEYS, _KEYS),
    st.sampled_from(
        [
            (DeletePrefix("t/"),),
            (DeletePrefix("t/a"),),
            (Sweep(1),),
            (Sweep(100),),
            (PutTenant("t"),),
            (PutTenant("t", max_entries=3),),
            (PutTenant("t", max_bytes=30),),
        ]
    ),
)
_GROUPS: Final = st.lists(
    st.tuples(st.lists(_PLAIN | _OTHERS, min_size=1, max_size=3), st.integers(0, 1)),
    min_size=1,
    max_size=8,
)


class Twin:
    """A database, and what its writes did to it and told."""

    def __init__(self, directory: Path, store: SqliteStore) -> None:
        self._path = directory / "x.db"
        self._store = store
        self._seqlock = RecordingSeqlock()

    @classmethod
    async def open(cls, directory: Path) -> Twin:
        directory.mkdir()
        store = await SqliteStore.open(
            directory / "x.db", RecordingSeqlock().lock, change_log_size=4
        )
        return cls(directory, store)

    async def write(self, group: Sequence[Transaction], now: float) -> list[object]:
        pending = []
        for each in group:
            pending.append(Granted())
            pending[-1].transaction = each
        outcomes = (await self._store.write(pending, now, self._seqlock)).outcomes
        return [repr(each) if isinstance(each, Exception) else None for each in outcomes]

    def state(self) -> list[object]:
        with contextlib.closing(sqlite3.connect(self._path)) as database:
            ids = [each for (each,) in database.execute("SELECT id FROM entries")]
            assert len(set(ids)) == len(ids) and all(len(each) == 36 for each in ids)
            used = database.execute("SELECT entries, bytes FROM tenants WHERE name = 't'")
            assert used.fetchone() == database.execute(_USAGE).fetchone()
            return [*(database.execute(query).fetchall() for query in _TABLES), self._seqlock.told]

    async def close(self) -> None:
        await self._store.close()


def _columns(entries: dict[str, bytes]) -> PlainSets:
    return PlainSets([f"t/{key}" for key in entries], list(entries.values()))


@settings(max_examples=150)
@given(groups=_GROUPS)
@example([([{"é": b"1"}], 0)])
@example([([{"a": b"1"}, (Sweep(1),), {"b": b"1"}], 0)])
@example([([dict.fromkeys(("a", "a1", "a2", "b", "é"), b"1"), (Sweep(1),)], 0)])
@example([([{"a": b"1"}], 0), ([(Rename("t/a", "t/a1"),), {"b": b"1"}], 0)])
@example([([{"a": b"1"}], 0), ([(PutTenant("t", max_entries=3),)], 0), ([{"a1": b"1"}] * 2, 0)])
def test_columns_do_as_their_sets_do(
    groups: Sequence[tuple[Sequence[dict[str, bytes] | Transaction], int]],
) -> None:
    async def run(directory: Path) -> None:
        columns = await Twin.open(directory / "columns")
        single = await Twin.open(directory / "single")
        try:
            now = NOW
            await columns.write([(PutTenant("t"),)], now)
            await single.write([(PutTenant("t"),)], now)
            for group, passed in groups:
                now += passed
                plain = [_columns(each) if isinstance(each, dict) else each for each in group]
                told = await columns.write(plain, now)
                assert told == await single.write([tuple(each) for each in plain], now)
                assert columns.state() == single.state()
        finally:
            await columns.close()
            await single.close()

    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "ONE_BY_ONE", 2)
        asyncio.run(run(Path(directory)))


def test_what_needs_more_thought_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large value, which is not bound to a statement, and a tenant that does not exist."""
    monkeypatch.setattr(plain_sets, "LARGE_BYTES", 3)
    with contextlib.closing(open_writer(str(tmp_path / "x.db"), 1.0).connection) as connection:

        def created(sets: PlainSets) -> bool:
            before = connection.total_changes
            made = create_plain(connection, SqliteChangeLog(connection), Usage(connection), sets)
            assert made == (connection.total_changes > before)
            return made

        assert not created(PlainSets(["default/a", "default/b"], [b"1234", b"1"]))
        assert not created(PlainSets(["t/a"], [b"1"]))
        assert created(PlainSets(["default/a", "default/b"], [b"123", b"1"]))


def test_a_part_is_plain_sets_too() -> None:
    sets = _columns({"a": b"1", "b": b"2", "c": b"3"})
    assert isinstance(sets[1:], PlainSets)
    assert list(sets[1:]) == [sets[1], sets[2]] == [Set("t/b", b"2", JSON), Set("t/c", b"3", JSON)]
