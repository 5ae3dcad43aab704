"""A TLS client that a test drives step by step, because asyncio's closes both directions at
once."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from tests.wire import SECONDS

_PIECE = 1 << 16


class TlsWire:
    """A TCP connection, with as much TLS on it as the test has requested."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    @classmethod
    async def connect(cls, port: int, context: ssl.SSLContext) -> TlsWire:
        """A TCP connection on which nothing has been sent."""
        return cls(*await asyncio.open_connection("127.0.0.1", port), context)

    async def __aenter__(self) -> TlsWire:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.writer.transport.abort()

    async def shake_hands(self) -> None:
        await self._until_done(self.tls.do_handshake)

    async def send(self, data: bytes) -> None:
        self.tls.write(data)
        await self._flush()

    async def read(self) -> bytes:
        """Some of the answer; empty after the server's close_notify."""
        found: list[bytes] = []
        try:
            await self._until_done(lambda: found.append(self.tls.read(_PIECE)))
        except ssl.SSLZeroReturnError:  # the server's close_notify, after ours
            return b""
        return found[0]

    async def read_all(self) -> bytes:
        """Everything up to close_notify. Raises EOFError: the connection ended without one."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def ended(self) -> bool:
        """Wait for the end of the TCP connection, whatever comes before it."""
        async with asyncio.timeout(SECONDS):
            while await self.reader.read(_PIECE):
                pass
            return True

    async def close_notify(self) -> None:
        """Tell the server that nothing more will be sent."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:  # the server's has not arrived, or other data come before it
            pass
        await self._flush()

    async def _until_done(self, step: Callable[[], object]) -> None:
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    step()
                    break
                except ssl.SSLWantReadError:
                    await self._flush()
                    data = await self.reader.read(_PIECE)
                    if not data:
                        raise EOFError("the connection ended without close_notify") from None
                    self._incoming.write(data)
            await self._flush()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            self.writer.write(data)
            await self.writer.drain()
