"""Compares two servers on one cache, one with the fast path and one without."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from tenantbase.coherence.policy import Cache
from tests.service import served, web_settings
from tests.wire import SECONDS, Wire

# The parts of an answer that differ between any two requests.
_DIFFERENT: Final = re.compile(
    rb'(?<=\nDate: )[^\r]*|(?<="id":")[^"]*|(?<="version":)\d+|(?<=ETag: ")\d+'
    rb'|(?<="created":)\w+|(?<=X-Cache: )\w+|(?<=Content-Length: )\d+|version is \d+'
    rb"|(?<=X-Request-ID: )[0-9a-f]{32}"
)


@asynccontextmanager
async def both_paths(cache: Cache) -> AsyncIterator[tuple[int, int]]:
    """Yields: the ports of a server with the fast path, and of one without."""
    async with served(cache, web_settings(fast_path=True)) as fast:
        async with served(cache, web_settings(fast_path=False)) as general:
            yield fast.port, general.port


async def answers(
    port: int, pieces: Sequence[bytes], *, pause: bool = False, tls: ssl.SSLContext | None = None
) -> bytes:
    """All answers of a server to these bytes, without the parts that always differ.

    b"reset": the server has reset the connection. The bytes should end with `corpus.LAST`, or the
    server waits for more.

    Args:
        pause: let the server read each piece separately.
        tls: for a server that speaks TLS.
    """
    async with asyncio.timeout(SECONDS), await Wire.connect(port, tls) as wire:
        try:
            for piece in pieces:
                await wire.send(piece)
                if pause:
                    await asyncio.sleep(0.001)
            received = await wire.reader.read()
        except ConnectionResetError:
            return b"reset"
    return _DIFFERENT.sub(b"*", received)
