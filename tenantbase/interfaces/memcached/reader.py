"""The receiving end of a connection to memcached."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import SupportsIndex

from tenantbase.interfaces.memcached.protocol import ProtocolError


class PieceReader(asyncio.StreamReader):
    """A stream that breaks when unexpected bytes arrive.

    Data is handed on in the pieces it arrived in. `asyncio.StreamReader` would copy it into a
    buffer and out again, which takes a tenth of the time of reading many items. There is no flow
    control: an answer is read to its end, or the connection is aborted.

    Args:
        heard: called whenever bytes arrive, with the event loop's time.

    Attributes:
        expected: an answer is being waited for.
    """

    def __init__(self, heard: Callable[[float], None]) -> None:
        self._event_loop = asyncio.get_running_loop()
        super().__init__(loop=self._event_loop)
        self._heard = heard
        self._pieces: deque[bytes] = deque()
        self._arrival: asyncio.Future[None] | None = None
        self.expected = True

    @property
    def in_step(self) -> bool:
        """Whether the next bytes, if any, will answer the next request."""
        return not (self._pieces or self.at_eof() or self.exception())

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        self._heard(self._event_loop.time())
        if self.expected:
            self._pieces.append(bytes(data))
            self._wake()
        else:
            self.set_exception(ProtocolError("unexpected bytes"))

    def feed_eof(self) -> None:
        super().feed_eof()
        self._wake()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self._wake()

    async def read(self, n: int = -1) -> bytes:
        """The next piece, of any size; empty at the end of the stream."""
        while not self._pieces:
            if error := self.exception():
                raise error
            if self.at_eof():
                return b""
            self._arrival = self._event_loop.create_future()
            await self._arrival
        return self._pieces.popleft()

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
