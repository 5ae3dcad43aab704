"""A service written in an afternoon, on PostgreSQL: every read asks the primary, every write is a commit.

asyncpg's pool as it comes, and aiohttp's own JSON functions. There is no cache, so nothing can be stale;
but a primary that was replaced without noticing would answer with old values.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator

import asyncpg
import uvloop
from aiohttp import web

DATABASE = web.AppKey("database", asyncpg.Pool)

_CREATE = "CREATE TABLE IF NOT EXISTS naive (key text PRIMARY KEY, value text NOT NULL)"
_SELECT = "SELECT value FROM naive WHERE key = $1"
_UPSERT = "INSERT INTO naive VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value"

routes = web.RouteTableDef()


@routes.get("/get-value")
async def get_value(request: web.Request) -> web.Response:
    """Read one value."""
    key = request.query["key"]
    value = await request.app[DATABASE].fetchval(_SELECT, key)
    if value is None:
        return web.json_response({"error": "no such key"}, status=404)
    return web.json_response({"key": key, "value": value})


@routes.post("/set-value")
async def set_value(request: web.Request) -> web.Response:
    """Store a value."""
    body = await request.json()
    await request.app[DATABASE].execute(_UPSERT, body["key"], body["value"])
    return web.json_response({"key": body["key"]})


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", required=True, help="the URL of the primary")
    given = parser.parse_args()

    async def pool(app: web.Application) -> AsyncIterator[None]:
        async with asyncpg.create_pool(given.database) as database:
            await database.execute(_CREATE)
            app[DATABASE] = database
            yield

    app = web.Application()
    app.add_routes(routes)
    app.cleanup_ctx.append(pool)
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
