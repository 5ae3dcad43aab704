"""The naive service with the usual tools: FastAPI, uvicorn, aiocache in front of aiosqlite."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiosqlite
import uvicorn
from aiocache import MemcachedCache  # type: ignore[import-untyped]
from aiocache.serializers import StringSerializer  # type: ignore[import-untyped]
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from benchmarks.peers import table


class Entry(BaseModel):
    """A key and its value."""

    key: str
    value: str


class Entries(BaseModel):
    """A list of items."""

    values: list[Entry]


def application(path: str, memcached: int | None) -> FastAPI:
    """The service on a database; ``memcached`` is its port, None for no cache."""
    cache: Any = None
    database: aiosqlite.Connection

    @asynccontextmanager
    async def stores(app: FastAPI) -> AsyncIterator[None]:
        nonlocal cache, database
        if memcached is not None:
            cache = MemcachedCache(
                endpoint="127.0.0.1", port=memcached, serializer=StringSerializer()
            )
        async with aiosqlite.connect(path) as database:
            await database.executescript(table.PRAGMAS)
            yield
        if cache is not None:
            await cache.close()

    app = FastAPI(lifespan=stores)

    @app.get("/get-value")
    async def get_value(key: str) -> Entry:
        if cache is not None and (cached := await cache.get(key)) is not None:
            return Entry(key=key, value=cached)
        async with database.execute(table.SELECT, (key,)) as cursor:
            row = await cursor.fetchone()
        if row is None:
            raise HTTPException(404, "no such key")
        if cache is not None:
            await cache.set(key, row[0])
        return Entry(key=key, value=row[0])

    @app.get("/get-values")
    async def get_values(start: str, limit: int) -> Entries:
        async with database.execute(table.SELECT_FROM, (start, limit)) as cursor:
            rows = await cursor.fetchall()
        return Entries(values=[Entry(key=key, value=value) for key, value in rows])

    @app.post("/set-value")
    async def set_value(entry: Entry) -> dict[str, str]:
        await database.execute(table.UPSERT, (entry.key, entry.value))
        await database.commit()
        if cache is not None:
            await cache.set(entry.key, entry.value)
        return {"key": entry.key}

    return app


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--memcached", type=int, help="its port; without it there is no cache")
    given = parser.parse_args()
    uvicorn.run(
        application(given.database, given.memcached),
        host="127.0.0.1",
        port=given.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
