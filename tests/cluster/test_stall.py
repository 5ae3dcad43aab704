"""A proxy that stalls holds back what is sent, and loses nothing of it."""

from __future__ import annotations

import asyncio

import pytest

from tests.servers import FaultProxy, poll_async


class _Echo:
    """A server that answers with what it hears."""

    def __init__(self) -> None:
        self.heard = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            self.heard += data
            writer.write(data)
        writer.close()


@pytest.mark.parametrize(("commands", "answers"), [(True, True), (True, False), (False, True)])
async def test_stalled_data_arrives_later(commands: bool, answers: bool) -> None:
    echo = _Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, FaultProxy(f"127.0.0.1:{port}") as proxy:
        host, _, front = proxy.address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(front))
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        await proxy.stall(commands=commands, answers=answers)
        writer.write(b"two")
        await poll_async(lambda: proxy.received.endswith(b"two"), "the proxy has it")
        if not commands:
            await poll_async(lambda: echo.heard == b"onetwo", "the server has it")
        reading = asyncio.create_task(reader.readexactly(3))
        await asyncio.sleep(0)
        assert not reading.done()
        assert (echo.heard == b"one") is commands
        await proxy.pass_through()
        assert await reading == b"two"
        writer.close()
