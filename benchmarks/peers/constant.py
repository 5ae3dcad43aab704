"""The framework's own ceiling: aiohttp and uvloop with prepared answers."""

from __future__ import annotations

import argparse
import json

import uvloop
from aiohttp import web


def entry(number: int, value_bytes: int) -> dict[str, object]:
    """An entry in the form of tenantbase's answer."""
    return {
        "key": f"key-{number:07d}",
        "value": "x" * value_bytes,
        "id": "00000000-0000-4000-8000-000000000000",
        "version": number,
        "expires_at": None,
    }


def application(value_bytes: int, entries: int) -> web.Application:
    """Answers of the same size as tenantbase's, whatever the request."""
    read = json.dumps(entry(1, value_bytes)).encode()
    everything = {"values": [entry(number, value_bytes) for number in range(entries)]}
    listed = json.dumps(everything | {"cursor": "key"}).encode()
    written = json.dumps(entry(1, 0)).encode()

    async def get(request: web.Request) -> web.Response:
        return web.Response(body=read, content_type="application/json")

    async def list_(request: web.Request) -> web.Response:
        return web.Response(body=listed, content_type="application/json")

    async def set_(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=written, content_type="application/json")

    app = web.Application()
    app.router.add_get("/get-value", get)
    app.router.add_get("/get-values", list_)
    app.router.add_post("/set-value", set_)
    return app


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--value-bytes", type=int, required=True)
    parser.add_argument("--entries", type=int, required=True)
    given = parser.parse_args()
    web.run_app(
        application(given.value_bytes, given.entries),
        host="127.0.0.1",
        port=given.port,
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
