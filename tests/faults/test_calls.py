"""A writer dies at its system calls, one after the other; nothing acknowledged is lost by that."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tenantbase.cache import Cache
from tenantbase.config import Config
from tenantbase.interfaces.memcache_address import MemcacheAddress
from tenantbase.wiring import Memcached, open_cache
from tests.faults import strace
from tests.faults.writer import ACKS, DATABASE
from tests.servers import MemcachedProcess

_ROUNDS = 2


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[Cache]:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(MemcachedProcess())
        memcached = Memcached(MemcacheAddress.parse(server.address), 1 << 20)
        config = Config(database=tmp_path / DATABASE, cache_timeout=2.0)
        yield await stack.enter_async_context(open_cache(config, memcached))


def killed(directory: Path, name: str, call: str, when: int) -> bool:
    """Let a writer run until its ``when``-th call of a kind; whether it came to that."""
    writer = [sys.executable, "-m", "tests.faults.writer", str(directory)]
    writer += ["--name", name, "--rounds", str(_ROUNDS)]
    command = strace.injecting(f"{call}:signal=SIGKILL:when={when}", writer)
    return subprocess.run(command, timeout=60).returncode != 0


# With how many calls from one death to the next; the dynamic linker has most of the reads.
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("call", "stride"),
    [("pwrite64", 1), ("fdatasync", 1), ("flock", 1), ("fcntl", 1), ("pread64", 5)],
)
async def test_a_writer_killed_at_a_call(
    cache: Cache, tmp_path: Path, call: str, stride: int
) -> None:
    when, runs = 1, 0
    while killed(tmp_path, f"{call}-{when}-", call, when):
        await check(cache, tmp_path)
        (tmp_path / ACKS).unlink(missing_ok=True)
        when += stride
        runs += 1
    assert runs > 2, "it never came to a write"


async def check(cache: Cache, directory: Path) -> None:
    """Every change that was acknowledged is there, unless a later one came after it."""
    acknowledged: dict[str, tuple[int | None, str | None]] = {}
    newest = 0
    if (directory / ACKS).exists():
        for line in (directory / ACKS).read_text().splitlines():
            for key, version, value in json.loads(line):
                acknowledged[key] = (version, value)
                newest = max(newest, version or 0)
    for key, (version, value) in acknowledged.items():
        entries = [(await cache.get(key)).entry for _ in range(3)]
        assert entries[0] == entries[1] == entries[2]
        entry = entries[0]
        found = (None, None) if entry is None else (entry.version, entry.value.decode())
        # What was under way when it died may have been made.
        later = (entry is None or entry.version > newest) and await cache.last_version() > newest
        assert found == (version, value) or later, key
