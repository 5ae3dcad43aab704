"""Sweeps pass over damaged rows, and entries deleted with a prefix stay deleted."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tenantbase.coherence.policy import Cache
from tenantbase.commands import DeletePrefix, Set
from tenantbase.errors import StoreUnavailable
from tenantbase.interfaces.sqlite import sweep as sql_sweep
from tenantbase.listing import KeyRange
from tenantbase.process.config import Config
from tenantbase.process.wiring import open_cache
from tests.damage import damage

MARKER = b"damaged!"
LARGE = MARKER * 8_000
SOON = 0.001


def keys(database: Path) -> set[str]:
    """The keys that have a row."""
    with closing(sqlite3.connect(database)) as connection:
        return {key for (key,) in connection.execute("SELECT key FROM entries")}


async def swept(cache: Cache) -> None:
    """Sweep until nothing is left to remove; the first sweep to meet a damaged row may fail."""
    for _ in range(20):
        try:
            if not await cache.sweep():
                return
        except StoreUnavailable as error:
            assert "damaged" in str(error)
    raise AssertionError("sweeping does not come to an end")


async def test_expired_rows_behind_a_damaged_one_are_removed(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    async with open_cache(Config(database=database)) as cache:
        now = cache.now()
        await cache.write(Set("default/bad", LARGE, "text/plain", now + SOON))
        await cache.write(
            *(Set(f"default/k{n}", b"1", "text/plain", now + 2 * SOON) for n in range(5))
        )
    damage(database, MARKER)
    async with open_cache(Config(database=database)) as cache:
        await swept(cache)
        assert keys(database) == {"default/bad"}
        await cache.write(Set("default/later", b"1", "text/plain", cache.now() + SOON))
        await asyncio.sleep(10 * SOON)
        await swept(cache)
        assert keys(database) == {"default/bad"}
        assert (await cache.get("default/bad")).entry is None


async def test_entries_deleted_by_prefix_stay_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_sweep, "ONE_BY_ONE", 1)
    database = tmp_path / "x.db"
    async with open_cache(Config(database=database)) as cache:
        await cache.write(Set("default/a/bad", LARGE, "text/plain"))
        await cache.write(*(Set(f"default/a/{n}", b"1", "text/plain") for n in range(5)))
        await cache.write(*(Set(f"default/b/{n}", b"1", "text/plain") for n in range(5)))
    damage(database, MARKER)
    async with open_cache(Config(database=database)) as cache:
        await cache.write(DeletePrefix("default/a/"))
        await cache.write(DeletePrefix("default/b/"))
        await swept(cache)
        assert keys(database) == {"default/a/bad"}
    async with open_cache(Config(database=database)) as cache:
        await swept(cache)
        assert keys(database) == {"default/a/bad"}
        assert (await cache.get("default/a/bad")).entry is None
        assert [
            entry async for piece, _ in cache.scan(KeyRange("default/a/")) for entry in piece
        ] == []
