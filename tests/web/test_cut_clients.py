"""Clients that leave in the middle of an answer: what was held for them is free at once."""

from __future__ import annotations

import gc
import json
from types import FrameType

import pytest

from tenantbase.commands import Set
from tenantbase.entry import OCTETS
from tenantbase.scope import DEFAULT
from tests.servers import poll_async
from tests.service import Server, web_settings
from tests.web.conftest import Start
from tests.wire import request

VALUES = 12
KEYS = json.dumps({"keys": [f"k{n}" for n in range(VALUES)]})


@pytest.mark.parametrize("fast_path", [True, False])
async def test_nothing_is_left_to_the_garbage_collector(start: Start, fast_path: bool) -> None:
    """It comes seldom: what an error and its traceback keep until then adds up."""
    # More than the kernel takes, so the server waits for the client to read; and less.
    asked = [
        (request("GET", "/get-values"), True),
        (request("POST", "/get-values", KEYS), True),
        (request("GET", "/v1/values/k0"), False),
    ]
    async with start(web_settings(fast_path=fast_path)) as server:
        for n in range(VALUES):
            await server.cache.write(Set(DEFAULT.key(f"k{n}"), bytes(1 << 20), OCTETS))
        gc.collect()
        gc.disable()
        others = frames()  # of other servers in this process
        try:
            for data, waits in asked:
                async with server.wire() as wire:
                    await wire.send(data)
                    assert await wire.reader.readexactly(12) == b"HTTP/1.1 200"
                    if waits:
                        await poll_async(lambda: unread(server) > 0, "it waits for the client")
                    wire.abort()
            await poll_async(lambda: not len(server.lifecycle.connections), "they are gone")
            await poll_async(lambda: not server.lifecycle.active, "their requests have ended")
            await poll_async(
                lambda: all(frame in others for frame in frames()), "their frames are gone"
            )
        finally:
            gc.enable()


def unread(server: Server) -> int:
    return sum(each.get_write_buffer_size() for each in server.lifecycle.connections)


def frames() -> list[FrameType]:
    """The frames in memory of functions that send or make answers."""
    return [
        frame
        for frame in gc.get_objects()
        if isinstance(frame, FrameType)
        and frame.f_code.co_filename.endswith(("web/sending.py", "handlers/bulk.py", "lists.py"))
    ]
