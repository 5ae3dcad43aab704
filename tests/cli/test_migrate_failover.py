"""``tenantbase migrate`` demands as much of PostgreSQL as ``serve``, and survives failovers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tenantbase.commands import Set
from tenantbase.entry import JSON
from tests.app_server import clean_environment
from tests.command import command, refused
from tests.interfaces.postgres.cluster import opened as opened_postgres
from tests.interfaces.postgres.cluster import put, replicated
from tests.postgres import PostgresProcess
from tests.servers import READY_SECONDS, poll
from tests.service import opened

pytestmark = pytest.mark.integration

_ENTRIES = 3_000  # some pages
_HELD_AT = 3


async def fill(database: Path) -> None:
    async with opened(database) as cache:
        await cache.write(
            *(Set(f"default/{number:05}", b"%d" % number, JSON) for number in range(_ENTRIES))
        )


def moved(source: object, target: object, held: Path, meanwhile: Callable[[], None]) -> str:
    """Move a database; hold the move in the middle, and do something meanwhile.

    Returns: its warnings.
    """
    where = ["--from", str(source), "--to", str(target), "--store-unreplicated", "--finish"]
    program = [sys.executable, "-m", "tests.process.killed_move", str(_HELD_AT)]
    with subprocess.Popen(
        [*program, "--held", str(held), "migrate", *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    ) as process:
        poll(lambda: held.exists() or process.poll() is not None, "it is held", READY_SECONDS)
        meanwhile()
        held.unlink()
        output, warnings = process.communicate(timeout=READY_SECONDS)
    assert process.returncode == 0, warnings
    assert f"moved {_ENTRIES:,} entries, all compared" in output
    return warnings


async def test_a_move_to_postgresql_goes_on_after_a_failover(tmp_path: Path) -> None:
    await fill(tmp_path / "x.db")
    with replicated() as (primary, standby):

        def fail_over() -> None:
            primary.kill()
            standby.promote()

        url = f"postgresql://tenantbase@{primary.host},{standby.host}/tenantbase"
        warnings = moved(tmp_path / "x.db", url, tmp_path / "held", fail_over)
        assert warnings.count("going on as soon as there is a primary") == 1
        assert standby.sql("SELECT count(*) FROM tenantbase.entries") == str(_ENTRIES)
        assert standby.sql("SELECT to_regnamespace('tenantbase_moving') IS NULL") == "t"


async def test_a_move_from_postgresql_goes_on_after_a_restart(tmp_path: Path) -> None:
    with PostgresProcess() as server:
        async with opened_postgres(server, replicated=False, timeout=30.0) as store:
            await put(store, "default/first")
        server.sql(
            "INSERT INTO tenantbase.entries SELECT 'default/' || n, n, n, NULL, gen_random_uuid(),"
            f" 'application/json', '1' FROM generate_series(2, {_ENTRIES}) AS n;"
            f"UPDATE tenantbase.clock SET position = {_ENTRIES}"
        )
        target = tmp_path / "x.db"
        assert "going on" in moved(server.url(), target, tmp_path / "held", server.restart)
        async with opened(target) as cache:
            assert (await cache.size()).entries == _ENTRIES


def test_the_server_must_be_as_for_serve(tmp_path: Path) -> None:
    with replicated() as (primary, standby):
        where = ("migrate", "--store-timeout", "1", "--from", str(tmp_path / "x.db"), "--to")
        hosts = f"{primary.host},{standby.host}"
        move = (*where, f"postgresql://tenantbase@{hosts}/tenantbase")
        assert command("set", "k", "1", "--database", str(tmp_path / "x.db")).returncode == 0
        standby.pause()
        assert refused(
            command(*move), "synchronous standby 'standby' does not confirm", "(--store-timeout)"
        )
        standby.resume()
        primary.configure(synchronous_standby_names="standby, other")
        assert refused(command(*move), "must name exactly one standby")
        primary.configure(synchronous_standby_names="")
        assert refused(command(*move), "--store-unreplicated")
        primary.configure(synchronous_standby_names="standby", synchronous_commit="local")
        assert refused(command(*move), "synchronous_commit is 'local'")
        assert refused(
            command(*where, f"postgresql://tenantbase@{standby.host}/tenantbase"), "are standbys"
        )
