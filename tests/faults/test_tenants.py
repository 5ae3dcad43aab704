"""A short torture test of two tenants, and whether it finds what it looks for."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults import run
from tests.faults.client import keys_of
from tests.faults.cluster import Cluster
from tests.faults.excuses import Excuses
from tests.faults.history import Operation
from tests.faults.tenants import FIRST, SECOND, Administrator, belongs, foreign


@pytest.mark.timeout(900)  # on a busy machine, the run is repeated for longer
def test_tenants_that_use_the_same_keys_meet_in_nothing() -> None:
    def enough(result: run.Result) -> bool:
        return (
            all(referee.checked > 20 for referee in result.referees.values())
            and result.administrator.revoked > 2
            and result.administrator.refused > 2
        )

    result = run.run_enough(run.Plan(seed=2, seconds=6.0), enough)
    assert result.violations == result.lost == []
    assert result.broken == []
    assert enough(result)


@pytest.mark.parametrize(
    ("token", "tenants"),
    [
        ("default-a0-1", {FIRST}),
        ("cli-7", {FIRST}),
        ("guest-12-0-1", {FIRST}),
        ("second-b3-9", {SECOND}),
        ("limited-0", set[str]()),
    ],
)
def test_it_is_known_to_which_tenant_a_value_belongs(token: str, tenants: set[str]) -> None:
    assert {tenant for tenant in (FIRST, SECOND) if belongs(token, tenant)} == tenants
    read = Operation("r0/0", "get", 0, 1, "ok", value=token)
    assert {tenant for tenant in (FIRST, SECOND) if not foreign(read, tenant)} == tenants


async def test_wrong_counts_and_foreign_values_are_noticed(tmp_path: Path) -> None:
    keys = keys_of(0)
    async with Cluster(tmp_path, servers=1) as cluster:
        admin = Administrator(cluster, Excuses(), random.Random(1), lambda: keys)
        await admin.close_database()
        (server,) = cluster.servers
        fields = {"Authorization": f"Bearer {admin.tokens[SECOND]}"}
        fields["Content-Type"] = "application/json"
        body = b'{"key": "%b", "value": "default-a0-1 0 "}' % keys["registers"][0].encode()
        answer = await asyncio.to_thread(server.ask, "POST", "/set-value", body, fields)
        assert answer.status == 200
        admin.recount()
        assert admin.broken == []
        stop = asyncio.Event()
        working = asyncio.create_task(admin.administer(stop))
        deadline = time.monotonic() + 60
        while not any("was given" in line for line in admin.broken):
            assert time.monotonic() < deadline, admin.broken
            await asyncio.sleep(0.05)
        stop.set()
        await working
    with closing(sqlite3.connect(cluster.database)) as connection, connection:
        connection.execute("UPDATE tenants SET bytes = bytes + 1 WHERE name = ?", (SECOND,))
    admin.recount()
    assert [line for line in admin.broken if line.startswith("miscounted: ")]
