"""A small HTTP client that knows what it does not know.

When a connection breaks, whether a request may have been carried out depends on whether any byte of
it was sent. Libraries hide that.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Self

import msgspec

_LIMIT = 64 << 20


class NotSent(Exception):
    """Nothing was sent: the server has not heard of the request."""


class NoAnswer(Exception):
    """It was sent, at least in part, and its answer did not come whole."""


class NoJson(Exception):
    """The body of an answer is not what its type says."""


@dataclass(frozen=True)
class Answer:
    status: int
    cache: str  # X-Cache
    body: bytes

    @property
    def json(self) -> Any:
        """The body. Raises NoJson."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NoJson(str(error)) from error


class HttpClient:
    """One connection to one server, made anew when it is gone. One request at a time.

    Args:
        port: of 127.0.0.1.
        timeout: seconds for an answer.
    """

    def __init__(self, port: int, timeout: float) -> None:
        self.port = port
        self._timeout = timeout
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection, whatever is under way on it."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def ask(self, method: str, target: str, body: bytes = b"") -> Answer:
        """Send a request and read its answer.

        Raises:
            NotSent, NoAnswer: the server cannot be reached, or the answer did not come.
        """
        reader, writer = await self._connected()
        try:
            async with asyncio.timeout(self._timeout):
                writer.write(self._request(method, target, body))
                await writer.drain()
                return await self._answer(reader)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            raise NoAnswer(f"{type(error).__name__}: {error}") from error
        except asyncio.CancelledError:
            self.close()
            raise

    async def vanish(self, method: str, target: str, body: bytes, sent: float) -> None:
        """Send a part of a request, from 0 to 1 of it, and go away. Raises NotSent."""
        _, writer = await self._connected()
        request = self._request(method, target, body)
        writer.write(request[: round(len(request) * sent)])
        await asyncio.sleep(0)
        self.close()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            try:
                async with asyncio.timeout(self._timeout):
                    self._streams = await asyncio.open_connection(
                        "127.0.0.1", self.port, limit=_LIMIT
                    )
            except OSError as error:
                raise NotSent(str(error)) from error
        return self._streams

    def _request(self, method: str, target: str, body: bytes) -> bytes:
        head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ", 2)[1])
        fields = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        if fields.get("transfer-encoding") == "chunked":
            body = await self._chunks(reader)
        elif status in (204, 304):
            body = b""
        else:
            body = await reader.readexactly(int(fields["content-length"]))
        if fields.get("connection") == "close":
            self.close()
        return Answer(status, fields.get("x-cache", ""), body)

    async def _chunks(self, reader: asyncio.StreamReader) -> bytes:
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
        return body
