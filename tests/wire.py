"""HTTP byte by byte: a test sends exact bytes, and gets parsed answers.

`Wire` is a connection in the test's event loop; `ask` and `receive` are for blocking sockets.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any

from multidict import CIMultiDict

SECONDS = 20.0
"""Timeout for one answer."""

Headers = Mapping[str, str] | Sequence[tuple[str, str]]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_JSON = json.JSONDecoder(parse_constant=_refuse)


def fields(pairs: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    """Header fields by name, in any case; several with the same name are joined by commas."""
    found: CIMultiDict[str] = CIMultiDict()
    for name, value in pairs:
        found[name] = f"{found[name]}, {value.strip()}" if name in found else value.strip()
    return found


@dataclass(frozen=True)
class Answer:
    """One answer."""

    status: int
    headers: CIMultiDict[str]
    body: bytes
    whole: bool = True
    """Whether the body arrived up to its declared end."""

    @property
    def json(self) -> Any:
        """The body. Raises ValueError if it is not JSON."""
        return _JSON.decode(self.body.decode())

    @property
    def version(self) -> str:
        return self.headers["etag"].strip('"')


class Wire:
    """A connection to a server on 127.0.0.1; as a context manager, closed at the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, tls: ssl.SSLContext | None = None) -> Wire:
        """Connect, over TLS if there is a context for it. Raises OSError."""
        name = None if tls is None else "localhost"
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name))

    async def __aenter__(self) -> Wire:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass  # the server closed first

    def abort(self) -> None:
        """Abort the connection, with everything still unsent."""
        self.writer.transport.abort()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, method: str = "GET", seconds: float = SECONDS) -> Answer:
        """Read the next answer, to a request with this method.

        Raises:
            EOFError: the connection ends before an answer.
            TimeoutError, OSError, ValueError: there is no answer, or not a valid one.
        """
        async with asyncio.timeout(seconds):
            lines = (await self._head()).decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            parted = (line.partition(":") for line in lines[1:] if line)
            headers = fields((name, value) for name, _, value in parted)
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
        self, method: str, status: int, headers: CIMultiDict[str]
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
        """Wait for the server to close the connection. Returns: whether nothing more arrived."""
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


def connect(port: int) -> socket.socket:
    """A blocking connection to a server on 127.0.0.1. Raises OSError."""
    return socket.create_connection(("127.0.0.1", port), SECONDS)


def receive(connection: socket.socket, method: str = "GET") -> Answer:
    """Read the next answer on a blocking connection, to a request with this method.

    Data after the answer may be read with it, and is lost.

    Raises:
        OSError, http.client.HTTPException: there is no complete answer.
    """
    with HTTPResponse(connection, method=method) as response:
        response.begin()
        return Answer(response.status, fields(response.getheaders()), response.read())


def ask(
    port: int,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send a request on a new blocking connection. Raises as `receive` does."""
    named = {"Host": f"127.0.0.1:{port}"} | dict(headers or {})
    with connect(port) as connection:
        connection.sendall(request(method, target, body, named))
        return receive(connection, method)
