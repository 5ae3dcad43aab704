"""``Expect: 100-continue``, in any spelling: one ``100 Continue``, followed by the answer."""

from __future__ import annotations

import asyncio

import pytest

from tests.servers import poll_async
from tests.service import Server, web_settings
from tests.web.conftest import Start
from tests.web.table import problem
from tests.wire import request

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize("expected", ["100-continue", "100-Continue", "100-CONTINUE"])
async def test_a_body_is_invited_once_and_then_taken(server: Server, expected: str) -> None:
    put = server.request("PUT", "/v1/values/invited", b"x" * 1_000, {"Expect": expected})
    async with server.wire() as wire:
        for _ in range(2):  # again for each request on the same connection
            await wire.send(put[:-1_000])
            assert (await wire.answer()).status == 100
            await wire.send(put[-1_000:-1])
            await wire.send(put[-1:])
            assert (await wire.answer()).status in (200, 201)


async def test_an_invited_body_may_be_refused(start: Start) -> None:
    """``100 Continue`` does not count as an answer, so an error can follow it. The client then
    sends the body, and the connection continues after it."""
    async with start(web_settings(max_value_bytes=1_000)) as server, server.wire() as wire:
        headers = {"Expect": "100-continue", "Transfer-Encoding": "chunked"}
        await wire.send(request("PUT", "/v1/values/k", headers=headers))
        assert (await wire.answer()).status == 100
        await wire.send(b"800\r\n" + b"x" * 0x800 + b"\r\n")
        answer = await wire.answer()
        assert answer.status == 413
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers.get("connection") != "close"
        await wire.send(b"0\r\n\r\n" + request("GET", "/v1/values/k"))
        assert (await wire.answer()).status == 404


async def test_an_invited_body_may_be_wrong(server: Server) -> None:
    post = server.request("POST", "/set-value", b"{", {"Expect": "100-continue"})
    async with server.wire() as wire:
        await wire.send(post[:-1])
        assert (await wire.answer()).status == 100
        await wire.send(post[-1:])
        answer = await wire.answer()
        assert (answer.status, answer.json) == (400, problem("invalid-request", 400))


@pytest.mark.parametrize("expected", ["100-continue", "200-ok"])
async def test_an_old_client_expects_nothing(server: Server, expected: str) -> None:
    """The field is ignored in HTTP/1.0 (RFC 9110, section 10.1.1)."""
    put = server.request("PUT", "/v1/values/old", b"x" * 1_000, {"Expect": expected}, version="1.0")
    async with server.wire() as wire:
        before = server.lifecycle.active
        await wire.send(put[:-1_000])
        await poll_async(lambda: server.lifecycle.active > before, "the request's head has arrived")
        for _ in range(50):  # the body is waited for
            await asyncio.sleep(0)
        await wire.send(put[-1_000:])
        assert (await wire.answer()).status in (200, 201)
