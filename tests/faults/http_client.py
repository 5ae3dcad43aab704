"""An HTTP client that tells whether a request without an answer may have been carried out.

When a connection breaks, that depends on whether any byte of the request was sent. Libraries hide it.
"""

from __future__ import annotations

import asyncio
from typing import Self

from tests.wire import Answer, Wire, request


class NotSent(Exception):
    """Nothing was sent: the server has not heard of the request."""


class NoAnswer(Exception):
    """At least a part of the request was sent, and its answer did not arrive in full."""


class HttpClient:
    """A connection to a server, reopened when it breaks. Sends one request at a time.

    Args:
        port: of 127.0.0.1.
        timeout: seconds for an answer.
        token: sent with every request, unless it is empty.
    """

    def __init__(self, port: int, timeout: float, token: str = "") -> None:
        self.port = port
        self._fields = {"Host": f"127.0.0.1:{port}"}
        if token:
            self._fields["Authorization"] = f"Bearer {token}"
        self._timeout = timeout
        self._wire: Wire | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection, with the request that is in flight."""
        if self._wire is not None:
            self._wire.abort()
            self._wire = None

    async def ask(self, method: str, target: str, body: bytes = b"", accept: str = "") -> Answer:
        """Send a request and read its answer.

        Args:
            accept: the media type to ask for, unless it is empty.

        Raises:
            NotSent, NoAnswer: the server cannot be reached, or it did not answer.
        """
        wire = await self._connected()
        try:
            async with asyncio.timeout(self._timeout):
                await wire.send(self._request(method, target, body, accept))
                answer = await wire.answer(method, self._timeout)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            raise NoAnswer(f"{type(error).__name__}: {error}") from error
        except asyncio.CancelledError:
            self.close()
            raise
        if not answer.whole:
            self.close()
            raise NoAnswer("the body was cut off")
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    async def vanish(self, method: str, target: str, body: bytes, sent: float) -> None:
        """Send a part of a request, from 0 to 1 of it, and disconnect. Raises NotSent."""
        wire = await self._connected()
        data = self._request(method, target, body)
        wire.writer.write(data[: round(len(data) * sent)])
        await asyncio.sleep(0)
        self.close()

    async def _connected(self) -> Wire:
        if self._wire is None or self._wire.reader.at_eof():
            self.close()
            try:
                async with asyncio.timeout(self._timeout):
                    self._wire = await Wire.connect(self.port)
            except OSError as error:
                raise NotSent(str(error)) from error
        return self._wire

    def _request(self, method: str, target: str, body: bytes, accept: str = "") -> bytes:
        fields = self._fields | {"Accept": accept} if accept else self._fields
        if not body:
            return request(method, target, None, fields)
        return request(method, target, body, fields | {"Content-Type": "application/json"})
