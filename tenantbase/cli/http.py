"""The ``Backend`` that sends the commands' operations to a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from tenantbase.client import Client
from tenantbase.documents import as_line, entry_json
from tenantbase.entry import JSON, Entry
from tenantbase.pem import client_context
from tenantbase.scope import DEFAULT

_ATTEMPTS: Final = 3  # few: a user is waiting at the prompt


class HttpBackend:
    """See ``backend.Backend``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def set(
        self,
        key: str,
        value: bytes,
        content_type: str,
        *,
        ttl: float | None,
        if_absent: bool,
        if_version: int | None,
    ) -> bytes:
        if content_type == JSON:
            written = await self._client.set(
                key, msgspec.Raw(value), ttl=ttl, if_absent=if_absent, if_version=if_version
            )
        else:
            written = await self._client.put_raw(
                key, value, content_type, ttl=ttl, if_absent=if_absent, if_version=if_version
            )
        return msgspec.json.encode(written)

    async def get(self, key: str) -> tuple[bytes, str] | None:
        entry = await self._client.get(key)
        return None if entry is None else (entry.raw, entry.content_type)

    async def delete(self, key: str, *, if_version: int | None) -> None:
        await self._client.delete(key, if_version=if_version)

    async def lines(self, prefix: str, limit: int | None) -> AsyncGenerator[bytes, None]:
        async for each in self._client.list(prefix, limit=limit):
            entry = Entry(
                DEFAULT.key(each.key),
                each.raw,
                each.content_type,
                each.id,
                each.version,
                each.expires_at,
            )
            yield as_line(entry_json(each.key, entry))


@asynccontextmanager
async def open_http_backend(
    url: str, authorities: Path | None = None
) -> AsyncIterator[HttpBackend]:
    """A client of the server at ``url``. Nothing is sent yet.

    Args:
        authorities: a PEM file of the certificate authorities to trust; None: this machine's.
    """
    context = None if authorities is None else client_context(authorities)
    async with Client(url, ssl=context, attempts=_ATTEMPTS) as client:
        yield HttpBackend(client)
