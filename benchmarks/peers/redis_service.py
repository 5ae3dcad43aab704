"""Redis behind FastAPI, with redis-py's asyncio client: what many would write for a small API."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from redis.asyncio import Redis


class Entry(BaseModel):
    """A key and its value."""

    key: str
    value: str


class Entries(BaseModel):
    """A list of items."""

    values: list[Entry]


class Keys(BaseModel):
    """The keys of a bulk read."""

    keys: list[str]


def application(socket: str) -> FastAPI:
    """The service in front of the Redis on this Unix socket."""
    redis = Redis(unix_socket_path=socket, decode_responses=True)

    @asynccontextmanager
    async def connections(app: FastAPI) -> AsyncIterator[None]:
        yield
        await redis.aclose()

    app = FastAPI(lifespan=connections)

    @app.get("/get-value")
    async def get_value(key: str) -> Entry:
        value = await redis.get(key)
        if value is None:
            raise HTTPException(404, "no such key")
        return Entry(key=key, value=value)

    @app.post("/get-values")
    async def get_values(asked: Keys) -> Entries:
        found = zip(asked.keys, await redis.mget(asked.keys), strict=True)
        return Entries(values=[Entry(key=key, value=value) for key, value in found if value])

    @app.post("/set-value")
    async def set_value(entry: Entry) -> dict[str, str]:
        await redis.set(entry.key, entry.value)
        return {"key": entry.key}

    return app


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--redis", required=True, help="its Unix socket")
    given = parser.parse_args()
    uvicorn.run(
        application(given.redis),
        host="127.0.0.1",
        port=given.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
