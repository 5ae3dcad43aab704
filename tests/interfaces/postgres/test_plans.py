"""Statements find their rows by an index, however many others there are."""

from __future__ import annotations

import asyncpg
import pytest

from tenantbase.commands import Delete, Set
from tenantbase.entry import JSON
from tenantbase.interfaces.postgres import alone, prefixes, queries
from tenantbase.interfaces.postgres.plan import depends_on_base
from tests.interfaces.shared import open_postgres
from tests.postgres import PostgresProcess

pytestmark = pytest.mark.integration

_FILL = """
    SET search_path = tenantbase;
    INSERT INTO entries (key, created, version, expires_at, id, content_type, value)
        SELECT 'default/' || n, n, n, CASE WHEN n % 2 = 0 THEN n END, gen_random_uuid(), 'a/b', 'v'
        FROM generate_series(1, 50000) AS n;
    INSERT INTO commits (token, made, position, number, at, hashes)
        SELECT gen_random_uuid(), true, n, n, n, '' FROM generate_series(1, 50000) AS n;
    INSERT INTO changes (position, kind, key)
        SELECT n, 'delete', 'default/' || n FROM generate_series(1, 50000) AS n;
    UPDATE clock SET position = 50000, groups = 50000;
    ANALYZE;
"""
_RANGE = ("default/7", "default/70")
_STATEMENTS: dict[str, tuple[str, tuple[object, ...]]] = {
    "ask": (queries.ASK.plain, (0.0, 49_990)),
    "read": (queries.READ.plain, (0.0, ["default/1", "default/x"], 100)),
    "read in order": (queries.READ_IN_ORDER.plain, (0.0, ["default/1", "default/x"], 100)),
    "look up": (queries.LOOK_UP.plain, (0.0, ["default/1"], ["default/1"], ["default/1"])),
    "count": (queries.COUNT.plain, (0.0, *_RANGE, 10)),
    "changes": (queries.CHANGES.plain, (0.0, 49_990, 10)),
    "rows of a prefix": (prefixes._IN_PREFIX, (50.0, 0, *_RANGE, 10)),
    "changes of a prefix": (prefixes._CHANGED, (49_990, "reset", *_RANGE)),
    "the oldest change": (prefixes._REACHES, (49_990,)),
    "keys of a prefix": (prefixes._AMONG, (50.0, 0, ["default/1", "default/x"])),
    "keys that expired meanwhile": (prefixes._EXPIRED_SINCE, (50.0, 0, 49.0, *_RANGE)),
    "expired rows": (alone._EXPIRED, (50.0, 0, 10)),
    "old changes": (alone._TRIM_CHANGES, (10, 10)),
    "old commits": (alone._TRIM_COMMITS, (49_990, 10.0, 10)),
    "old marks": (alone._TRIM_MARKS, (10.0,)),
}


async def test_no_statement_reads_a_whole_table(postgres: PostgresProcess, database: str) -> None:
    await (await open_postgres(database)).close()
    postgres.sql(_FILL, database=database.rpartition("/")[2])
    connection = await asyncpg.connect(database, server_settings={"search_path": "tenantbase"})
    try:
        for name, (statement, values) in _STATEMENTS.items():
            plan = [line for (line,) in await connection.fetch(f"EXPLAIN {statement}", *values)]
            whole = [
                line
                for line in plan
                if "Seq Scan on" in line
                if any(table in line for table in ("entries", "commits", "changes"))
            ]
            assert not whole, (name, plan)
    finally:
        await connection.close()


def test_a_returned_entry_depends_on_the_versions_that_its_group_gives_out() -> None:
    stored = (Set("default/k", b"1", JSON),)
    assert depends_on_base([stored, (Delete("default/k", returned=True),)])
    assert not depends_on_base([stored, (Delete("default/k"),)])
    assert not depends_on_base([stored, (Delete("default/j", returned=True),)])
