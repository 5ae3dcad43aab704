"""Writes to a database as fast as its writes are acknowledged, and logs each acknowledgement.

    python -m tests.faults.writer DIRECTORY [--seed N] [--rounds N] [--processes N] [--break BUG]

A line of the log, ``DIRECTORY/acks``, is written by one ``write`` once its transaction has been
acknowledged: a JSON array of the changes made, each ``[key, version, value]`` or, for a delete,
also of a prefix, ``[key, null, null]``. Each process has its own tenant, and no two transactions in
flight name the same key, so each key's log is in the order of its versions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tenantbase.coherence.policy import Cache
from tenantbase.coherence.sealed_item import ItemSealer, bucket_of
from tenantbase.coherence.tag_file import TagFile
from tenantbase.coherence.tag_seqlock import TagSeqlock, WriteLock
from tenantbase.commands import Command, Delete, Increment, PutTenant, Set
from tenantbase.entry import JSON
from tenantbase.interfaces.sqlite import checkpoints as sql_checkpoints
from tenantbase.interfaces.sqlite import sweep as sql_sweep
from tests.faults import planted

DATABASE: Final = "x.db"
ACKS: Final = "acks"
_KEYS: Final = 12
_ONE_BY_ONE: Final = 4


class _Writer:
    def __init__(self, cache: Cache, acks: int, name: str, chance: random.Random) -> None:
        self._cache = cache
        self._acks = acks
        self._name = name
        self._chance = chance
        self._number = 0
        self._living: set[str] = set()

    async def round(self) -> None:
        """Several concurrent transactions, which are committed in one or a few groups."""
        if self._chance.random() < 0.03:
            gone = sorted(self._living)
            removed = await self._cache.delete_prefix(f"{self._name}/")
            assert removed == len(gone)
            self._living.clear()
            # A large prefix is deleted as one change, whose key is the prefix.
            keys = gone if len(gone) <= _ONE_BY_ONE else [f"{self._name}/"]
            self._acknowledge([(key, None, None) for key in keys])
            return
        if self._chance.random() < 0.05:
            await self._cache.sweep()  # removes the rows of deleted prefixes
        numbers = self._chance.sample(range(_KEYS), self._chance.randint(1, 5))
        await asyncio.gather(
            *(self._transaction(numbers[at : at + 2]) for at in range(0, len(numbers), 2))
        )

    async def _transaction(self, numbers: list[int]) -> None:
        changes = [self._change(f"{self._name}/{number}") for number in numbers]
        done: list[tuple[str, int | None, str | None]] = []
        for change, applied in zip(changes, await self._cache.write(*changes), strict=True):
            assert isinstance(change, Set | Delete | Increment)
            if applied.entry is not None:
                done.append((change.key, applied.entry.version, applied.entry.value.decode()))
                self._living.add(change.key)
            elif applied.removed:
                done.append((change.key, None, None))
                self._living.discard(change.key)
        self._acknowledge(done)

    def _change(self, key: str) -> Command:
        if key.endswith("0"):
            return Increment(key, by=1, initial=0)
        if self._chance.random() < 0.2:
            return Delete(key)
        self._number += 1
        size = self._chance.choice((10, 100, 1000, 6000))
        value = f'"{self._name} {self._number} {"x" * self._chance.randint(0, size)}"'
        return Set(key, value.encode(), JSON)

    def _acknowledge(self, done: list[tuple[str, int | None, str | None]]) -> None:
        line = json.dumps(done).encode() + b"\n"
        written = os.write(self._acks, line)
        assert written == len(line)


async def _write(directory: Path, name: str, seed: int, rounds: int, bug: str | None) -> None:
    tags = TagFile.open(directory / f"{DATABASE}-tags")
    lock = WriteLock(directory / f"{DATABASE}-lock")
    # As the service does. Without the mark, a process that starts while another writes would
    # rewrite the log's sectors with the bytes it read, and might damage data that is being written.
    store = await planted.store_class(bug).open(directory / DATABASE, lock.held, mark=tags)
    sealer = ItemSealer(store.secret)
    seqlock = TagSeqlock(tags, lock, lambda key: bucket_of(sealer.name(key)))
    cache = Cache(
        store,
        tags,
        lambda group, now: store.write(group, now, seqlock),
        sealer,
        None,
        clock=time.time,
    )
    acks = os.open(directory / ACKS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    writer = _Writer(cache, acks, name, random.Random(f"{seed} {name}"))
    await cache.write(PutTenant(name))
    for _ in range(rounds):
        await writer.round()
    await cache.drained()
    os.close(acks)
    await store.close()
    lock.close()
    tags.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--name", default="p")
    parser.add_argument("--break", dest="bug", choices=planted.BUGS)
    given = parser.parse_args()
    # Rare in production, frequent here: checkpoints, and large prefixes.
    sql_checkpoints._MOST_PAGES = 60  # type: ignore[misc]
    sql_sweep.ONE_BY_ONE = _ONE_BY_ONE  # type: ignore[misc]
    others = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                __spec__.name,
                *sys.argv[1:],
                "--processes",
                "1",
                "--name",
                f"{given.name}{number}",
            ]
        )
        for number in range(1, given.processes)
    ]
    asyncio.run(_write(given.directory, given.name, given.seed, given.rounds, given.bug))
    for other in others:
        if other.wait():
            sys.exit("another writer failed")


if __name__ == "__main__":
    main()
