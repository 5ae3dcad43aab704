"""Lending a connection: pausing, bodies and closing still work as on a single connection."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from tenantbase.web import create_app
from tenantbase.web import server as web_server
from tenantbase.web.fast_path import tending
from tests import service
from tests.servers import poll_async
from tests.service import web_settings
from tests.web.fast_path.counted import GET, serve
from tests.wire import Wire, request


async def test_a_slow_body_after_an_early_answer_is_not_idleness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The borrower keeps the connection until the body has arrived, however slowly."""
    monkeypatch.setattr(web_server, "_LINGERING_SECONDS", 60.0)
    monkeypatch.setattr(tending, "_PATIENCE_SECONDS", 0.02)
    settings = web_settings(max_value_bytes=1_000, keepalive_timeout=0.5)
    async with serve(tmp_path, settings) as server:
        async with await Wire.connect(server.port) as wire:
            put = request("PUT", "/v1/values/p", b"x" * 20_000)
            await wire.send(put[:1_000])
            assert (await wire.answer()).status == 413
            for at in range(1_000, len(put), 2_000):
                await asyncio.sleep(0.1)
                await wire.send(put[at : at + 2_000])
            await wire.send(GET)
            assert (await wire.answer()).json["value"] == 1


async def test_a_body_that_is_not_read_is_not_received(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiohttp can pause and resume a borrowed connection."""
    gate = asyncio.Event()

    @web.middleware
    async def waiting(request: web.Request, handler: Handler) -> web.StreamResponse:
        await gate.wait()
        return await handler(request)

    def create_waiting(*args: Any, **options: Any) -> web.Application:
        app = create_app(*args, **options)
        app.middlewares.append(waiting)
        return app

    monkeypatch.setattr(service, "create_app", create_waiting)
    settings = web_settings(max_value_bytes=4 << 20)
    async with serve(tmp_path, settings) as server:
        await poll_async(lambda: not len(server.lifecycle.connections), "the first has ended")
        async with await Wire.connect(server.port) as wire:
            body = b"x" * (4 << 20)
            wire.writer.write(request("PUT", "/v1/values/p", body))
            await poll_async(lambda: len(server.lifecycle.connections) == 1, "it is there")
            (transport,) = server.lifecycle.connections
            await poll_async(lambda: not transport.is_reading(), "it is read no more")
            gate.set()
            assert (await wire.answer()).status == 201
            await wire.send(GET)
            assert (await wire.answer()).json["value"] == 1
