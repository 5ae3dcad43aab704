"""Request ids of the Python client: sent if there is one, and shown with errors."""

from __future__ import annotations

import asyncio
import traceback
from pathlib import Path

import pytest

from tenantbase.client import Client, Refused, request_id
from tests.service import opened, served, web_settings


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "general"])
async def test_an_error_names_its_request(tmp_path: Path, fast: bool) -> None:
    async with (
        opened(tmp_path / "x.db") as cache,
        served(cache, web_settings(fast_path=fast)) as server,
        Client(f"http://127.0.0.1:{server.port}") as client,
    ):
        await client.set("k", "text")
        with request_id("order-17"):
            with pytest.raises(Refused) as refused:
                await asyncio.create_task(client.increment("k"))
        assert refused.value.request_id == "order-17"
        assert "request id: order-17" in "".join(traceback.format_exception(refused.value))
        with pytest.raises(Refused) as refused:
            await client.increment("k")
        assert refused.value.request_id is not None, "the server has made one up"
        assert len(refused.value.request_id) == 32


@pytest.mark.parametrize("id", ["", "a b", "x" * 129, "a\n"])
def test_an_unsafe_id_is_refused(id: str) -> None:
    with pytest.raises(ValueError, match="1 to 128"):
        with request_id(id):
            pass
