"""A writer dies at each of its system calls in turn; no acknowledged write is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tenantbase.coherence.policy import Cache
from tests.faults import strace
from tests.faults.writer import ACKS, DATABASE
from tests.servers import MemcachedProcess
from tests.service import opened

_ROUNDS = 2
# Reads are limited: each dead writer leaves a longer log, which the next one reads page by page
# before it writes, so the series would never end. Other calls are fewer.
_MOST_CALLS = 80
# Most locks (fcntl) and reads change nothing, and many are alike: every third is tried.
_STRIDES = {"pwrite64": 1, "fdatasync": 1, "flock": 1, "fcntl": 3, "pread64": 3}


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[Cache]:
    with MemcachedProcess() as memcached:
        async with opened(tmp_path / DATABASE, memcached, cache_timeout=2.0) as cache:
            yield cache


def killed(directory: Path, name: str, call: str, when: int) -> bool:
    """Run a writer until its ``when``-th call of a kind. Returns: whether it got there."""
    writer = [sys.executable, "-m", "tests.faults.writer", str(directory)]
    writer += ["--name", name, "--rounds", str(_ROUNDS)]
    # The dynamic linker makes most of the read calls, so only calls on the database's files count.
    files = [directory / f"{DATABASE}{suffix}" for suffix in ("", "-wal", "-shm", "-tags", "-lock")]
    command = strace.injecting(f"{call}:signal=SIGKILL:when={when}", writer, files)
    return subprocess.run(command, timeout=60).returncode != 0


@pytest.mark.parametrize("call", _STRIDES)
async def test_a_writer_killed_at_a_call(cache: Cache, tmp_path: Path, call: str) -> None:
    runs = 0
    for when in range(1, _MOST_CALLS + 1, _STRIDES[call]):
        if not killed(tmp_path, f"{call}-{when}-", call, when):
            break
        await check(cache, tmp_path)
        (tmp_path / ACKS).unlink(missing_ok=True)
        runs += 1
    assert runs > 2, "it never came to a write"


async def check(cache: Cache, directory: Path) -> None:
    """Every acknowledged change is there, unless a later one replaced it."""
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
        # A write that was in flight when the writer died may have taken effect.
        later = (entry is None or entry.version > newest) and await cache.last_version() > newest
        assert found == (version, value) or later, key
