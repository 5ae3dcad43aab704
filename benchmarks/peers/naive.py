"""A service written in an afternoon: ask memcached, else SQLite; one commit per write.

One aiomcache client, one aiosqlite connection, and aiohttp's own JSON functions. Nothing keeps the
two stores coherent.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator

import aiomcache
import aiosqlite
import uvloop
from aiohttp import web

from benchmarks.peers import table

DATABASE = web.AppKey("database", aiosqlite.Connection)
CACHE = web.AppKey("cache", aiomcache.Client)

routes = web.RouteTableDef()


@routes.get("/get-value")
async def get_value(request: web.Request) -> web.Response:
    """Read one value, from memcached if it is there."""
    key = request.query["key"]
    cache = request.app.get(CACHE)
    if cache is not None and (cached := await cache.get(key.encode())) is not None:
        return web.json_response({"key": key, "value": cached.decode()})
    async with request.app[DATABASE].execute(table.SELECT, (key,)) as cursor:
        row = await cursor.fetchone()
    if row is None:
        return web.json_response({"error": "no such key"}, status=404)
    if cache is not None:
        await cache.set(key.encode(), row[0].encode())
    return web.json_response({"key": key, "value": row[0]})


@routes.get("/get-values")
async def get_values(request: web.Request) -> web.Response:
    """List values in order of keys, from one key on."""
    wanted = request.query["start"], int(request.query["limit"])
    async with request.app[DATABASE].execute(table.SELECT_FROM, wanted) as cursor:
        rows = await cursor.fetchall()
    return web.json_response({"values": [{"key": key, "value": value} for key, value in rows]})


@routes.post("/set-value")
async def set_value(request: web.Request) -> web.Response:
    """Store a value in SQLite and memcached."""
    body = await request.json()
    key, value = body["key"], body["value"]
    await request.app[DATABASE].execute(table.UPSERT, (key, value))
    await request.app[DATABASE].commit()
    if (cache := request.app.get(CACHE)) is not None:
        await cache.set(key.encode(), value.encode())
    return web.json_response({"key": key})


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--memcached", type=int, help="its port; without it there is no cache")
    given = parser.parse_args()

    async def stores(app: web.Application) -> AsyncIterator[None]:
        if given.memcached:
            app[CACHE] = aiomcache.Client("127.0.0.1", given.memcached)
        async with aiosqlite.connect(given.database) as database:
            await database.executescript(table.PRAGMAS)
            app[DATABASE] = database
            yield
        if given.memcached:
            await app[CACHE].close()

    app = web.Application()
    app.add_routes(routes)
    app.cleanup_ctx.append(stores)
    web.run_app(
        app,
        host="127.0.0.1",
        port=given.port,
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
