"""A server whose answers a test writes, for clients."""

from __future__ import annotations

import asyncio
import json

# Answers to a set, and the start of a watch.
STORED = b'{"key":"k","id":"i","version":7,"created":true,"expires_at":null}'
STREAM = {"Content_Type": "text/event-stream"}
EVENT = b'event: set\nid: 7\ndata: {"key":"k","version":7}\n\n'


class Scripted:
    """A server that gives scripted answers in order, one per connection.

    When none is left, it closes connections at once: a client whose watch has ended may come back
    before its test is over.
    """

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.requests: list[bytes] = []
        self.url = ""

    async def __aenter__(self) -> Scripted:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = "http://127.0.0.1:{}".format(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    def will(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Script an answer."""
        fields = {"Content-Length": str(len(body)), "Connection": "close", **headers}
        head = "".join(f"{name.replace('_', '-')}: {text}\r\n" for name, text in fields.items())
        self.answers.append(f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode() + body)

    def will_refuse(self, status: int, name: str, limit: str | None = None, **headers: str) -> None:
        """Script an answer with a problem document."""
        kind = f"urn:tenantbase:problem:{name}"
        document = {"type": kind, "title": "T", "status": status, "detail": "D.", "limit": limit}
        body = json.dumps(document).encode()
        self.will(status, body, Content_Type="application/problem+json", **headers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode().lower().split("\r\n")
            lengths = [int(line[15:]) for line in lines if line.startswith("content-length:")]
            body = await reader.readexactly(sum(lengths))
            if self.answers:
                self.requests.append(head + body)
                writer.write(self.answers.pop(0))
                await writer.drain()
        finally:
            writer.close()
            await writer.wait_closed()
