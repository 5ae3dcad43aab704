"""Runs tenantbase and records the times of writes, commits and checkpoints, for `waits.py`.

``python -m benchmarks.witness FILE serve ...``: after FILE comes tenantbase's command line. It
wraps some of tenantbase's methods, which costs about a microsecond per write.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tenantbase.coherence.policy import Cache
from tenantbase.commands import Command
from tenantbase.interfaces.memcached.client import MemcacheClient
from tenantbase.interfaces.sqlite.commit import Committer
from tenantbase.main import main
from tenantbase.process import worker

Span = tuple[float, float]  # by the monotonic clock, in seconds

spans: dict[str, list[Span]] = {"write": [], "commit": [], "checkpoint": [], "store": []}


def _witness_calls(owner: type, method: str, name: str) -> None:
    original = getattr(owner, method)

    def witnessed(*args: Any) -> Any:
        begun = time.monotonic()
        try:
            return original(*args)
        finally:
            spans[name].append((begun, time.monotonic()))

    setattr(owner, method, witnessed)


def _witness_awaits(owner: type, method: str, name: str) -> None:
    original = getattr(owner, method)

    async def witnessed(*args: Any) -> Any:
        begun = time.monotonic()
        try:
            return await original(*args)
        finally:
            spans[name].append((begun, time.monotonic()))

    setattr(owner, method, witnessed)


def _witness_writes() -> None:
    original = Cache.write_then  # which the fast path calls

    def witnessed(self: Cache, command: Command, receive: Callable[[Any], None]) -> None:
        begun = time.monotonic()

        def received(result: Any) -> None:
            spans["write"].append((begun, time.monotonic()))
            receive(result)

        original(self, command, received)

    Cache.write_then = witnessed  # type: ignore[method-assign]


if __name__ == "__main__":
    path = Path(sys.argv.pop(1))
    _witness_writes()
    _witness_calls(Committer, "commit", "commit")
    _witness_calls(Committer, "checkpoint", "checkpoint")
    _witness_awaits(MemcacheClient, "set_many", "store")
    run = worker.run

    def witnessed_run(*args: Any, **options: Any) -> None:
        try:
            run(*args, **options)
        finally:  # in the worker, which ends without returning to ``main``
            path.write_bytes(msgspec.json.encode(spans))

    worker.run = witnessed_run
    main()
