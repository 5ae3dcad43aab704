"""HTTP byte by byte: what is sent is what the test says, and what comes is taken apart by hand."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SECONDS = 20.0

Headers = Mapping[str, str] | Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """One answer. Header names are in lower case; several of a name are joined by commas."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool = True
    """The body came to its declared end."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def version(self) -> str:
        return self.headers["etag"].strip('"')


class Wire:
    """A connection to the server under test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, tls: ssl.SSLContext | None = None) -> Wire:
        """Connect to a port of 127.0.0.1; with ``tls``, over TLS."""
        name = None if tls is None else "localhost"
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name))

    async def __aenter__(self) -> Wire:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass  # the server was the first to go

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, method: str = "GET") -> Answer:
        """The next answer. Raises EOFError if the connection ends before one."""
        async with asyncio.timeout(SECONDS):
            head = await self._head()
            lines = head.decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            headers: dict[str, str] = {}
            for line in filter(None, lines[1:]):
                name, _, value = line.partition(":")
                name, value = name.lower(), value.strip()
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
            if status == 100:
                return Answer(status, headers, b"")
            body, whole = await self._body(method, status, headers)
            return Answer(status, headers, body, whole)

    async def _head(self) -> bytes:
        try:
            return await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise EOFError("the connection ended") from error

    async def _body(
        self, method: str, status: int, headers: Mapping[str, str]
    ) -> tuple[bytes, bool]:
        if method == "HEAD" or status in (204, 304):
            return b"", True
        body = bytearray()
        try:
            if headers.get("transfer-encoding") == "chunked":
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readexactly(2)
            elif "content-length" in headers:
                body += await self.reader.readexactly(int(headers["content-length"]))
            else:
                body += await self.reader.read()
        except asyncio.IncompleteReadError as error:
            return bytes(body + error.partial), False
        return bytes(body), True

    async def ended(self) -> bool:
        """Wait for the server to close the connection; True if nothing more came."""
        async with asyncio.timeout(SECONDS):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True


def request(
    method: str,
    target: str | bytes,
    body: bytes | str | None = None,
    headers: Headers = (),
    version: str = "1.1",
) -> bytes:
    """A request as bytes. ``Host`` and ``Content-Length`` are added unless they are given."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    names = {name.lower() for name, _ in pairs}
    if "host" not in names and version == "1.1":
        pairs.insert(0, ("Host", "localhost"))
    if isinstance(body, str):
        body = body.encode()
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        pairs.append(("Content-Length", str(len(body))))
    target = target.encode() if isinstance(target, str) else target
    head = b"%b %b HTTP/%b\r\n" % (method.encode(), target, version.encode())
    head += b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in pairs)
    return head + b"\r\n" + (body or b"")


class Like:
    """Equal to any text that a pattern matches as a whole."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and re.fullmatch(self._pattern, other) is not None

    def __repr__(self) -> str:
        return f"<like {self._pattern}>"


class Is:
    """Equal to anything of a type."""

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def __eq__(self, other: object) -> bool:
        return type(other) is self._kind

    def __repr__(self) -> str:
        return f"<any {self._kind.__name__}>"


ID = Like("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
VERSION = Is(int)
MOMENT = Is(float)
TEXT = Is(str)
