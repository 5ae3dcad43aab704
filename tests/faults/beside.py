"""Runs command-line tools on the database, while the servers use it."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from tests.app_server import clean_environment
from tests.faults.history import NEVER, Operation, Outcome
from tests.faults.scene import Scene
from tests.faults.values import token_of


async def use(scene: Scene, chance: random.Random, pause: float, stop: asyncio.Event) -> None:
    """Set, list and delete keys, one command at a time, until ``stop`` is set."""
    number = 0
    while not stop.is_set():
        await asyncio.sleep(pause * chance.uniform(0.5, 1.5))
        key = chance.choice(scene.keys()["registers"])
        number += 1
        with scene.referee.pending():
            match chance.choices(("set", "list", "delete"), (3, 2, 1))[0]:
                case "set":
                    operation = await _set(scene.cluster.database, key, f"cli-{number} 0 ")
                case "list":
                    operation = await _list(scene.cluster.database, key)
                case _:
                    operation = await _delete(scene.cluster.database, key)
            scene.referee.hear([operation])


async def _set(database: Path, key: str, value: str) -> Operation:
    start = time.monotonic_ns()
    status, output = await _run("set", "--database", str(database), "--text", key, value)
    entry = msgspec.json.decode(output) if status == 0 else {}
    return _told(key, "set", start, status, entry | {"value": value})


async def _list(database: Path, key: str) -> Operation:
    start = time.monotonic_ns()
    status, output = await _run("list", "--database", str(database), "--prefix", key)
    # No key is a prefix of another.
    lines = output.splitlines() if status == 0 else []
    return _told(key, "get", start, status, msgspec.json.decode(lines[0]) if lines else {})


async def _delete(database: Path, key: str) -> Operation:
    start = time.monotonic_ns()
    status, _ = await _run("delete", "--database", str(database), key)
    return _told(key, "delete", start, status, {})


def _told(key: str, kind: Any, start: int, status: int, entry: dict[str, Any]) -> Operation:
    now = time.monotonic_ns()
    # The exit status does not show whether the write took effect.
    outcome: Outcome = "ok" if status == 0 else "failed" if kind == "get" else "unknown"
    return Operation(
        key,
        kind,
        start,
        NEVER if outcome == "unknown" else now,
        outcome,
        value=token_of(entry["value"]) if "value" in entry else None,
        version=entry.get("version"),
        id=entry.get("id"),
        created=entry.get("created", False),
        client="command line",
        heard=now,
    )


async def _run(*arguments: str) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tenantbase",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=clean_environment(),
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output
