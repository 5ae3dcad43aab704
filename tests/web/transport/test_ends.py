"""Whose connection is ended, and whose is not."""

from __future__ import annotations

import asyncio

import pytest

from tenantbase.web import WebSettings
from tests.web.conftest import Start
from tests.web.wire import request

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_idle_client_is_not_one_that_takes_nothing(start: Start) -> None:
    async with start(WebSettings(send_timeout=0.2)) as server, server.wire() as wire:
        for target in ("/livez", "/health-check", "/livez"):
            await wire.send(request("GET", target))
            assert (await wire.answer()).status == 200
            await asyncio.sleep(1)
