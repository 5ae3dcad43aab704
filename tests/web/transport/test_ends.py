"""Which connections are closed after an answer, and which are kept."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from tenantbase.web.transport import lingering
from tests.service import web_settings
from tests.web.conftest import Start
from tests.wire import request

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_idle_client_is_not_cut_off(start: Start) -> None:
    async with start(web_settings(send_timeout=0.2)) as server, server.wire() as wire:
        for target in ("/livez", "/health-check", "/livez"):
            await wire.send(request("GET", target))
            assert (await wire.answer()).status == 200
            await asyncio.sleep(1)


async def test_a_refused_client_may_finish_sending(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many clients read the answer only after sending everything, and never if that fails."""
    monkeypatch.setattr(lingering, "LINGER_SECONDS", 20.0)
    async with start(web_settings(max_connections=1)) as server, server.wire() as wire:
        await wire.send(request("GET", "/livez"))
        assert (await wire.answer()).status == 200

        def refused() -> bytes:
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
                answer = client.recv(4_096)
                for _ in range(20):  # slowly, so that a reset is noticed
                    client.sendall(bytes(10_000))
                    time.sleep(0.02)
                return answer

        assert (await asyncio.to_thread(refused)).startswith(b"HTTP/1.1 503 ")
