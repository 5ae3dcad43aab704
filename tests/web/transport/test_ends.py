"""Whose connection is ended, and that its last answer arrives."""

from __future__ import annotations

import asyncio

import pytest

from tenantbase.web import WebSettings
from tests.web.conftest import Server, Start
from tests.web.wire import request

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_idle_client_is_not_one_that_takes_nothing(start: Start) -> None:
    async with start(WebSettings(send_timeout=0.2)) as server, server.wire() as wire:
        for target in ("/livez", "/health-check", "/livez"):
            await wire.send(request("GET", target))
            assert (await wire.answer()).status == 200
            await asyncio.sleep(1)


@pytest.mark.parametrize("target", ["/livez", "/health-check"])
async def test_what_comes_after_the_last_request_does_not_destroy_its_answer(
    server: Server, target: str
) -> None:
    last = request("GET", target, headers={"Connection": "close"})
    for _ in range(30):
        async with server.wire() as wire:
            wire.writer.write(last + b"x" * 500_000)
            await asyncio.sleep(0.005)
            answer = await wire.answer()
            assert answer.status == 200 and answer.whole
