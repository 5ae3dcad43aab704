"""The Protocol that the commands use, whether they work on a database file or a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from tenantbase.process.config import Config

if TYPE_CHECKING:
    from tenantbase.database import Reader


class Backend(Protocol):
    """The commands' operations: values as bytes, answers as lines of JSON.

    Every method raises TenantbaseError when the operation fails or is refused.
    """

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
        """Store a value. Returns: what ``POST /set-value`` answers."""

    async def get(self, key: str) -> tuple[bytes, str] | None:
        """Returns: the value and its media type; None if the key does not exist."""

    async def delete(self, key: str, *, if_version: int | None) -> None:
        """Remove a key; removing an absent key is not an error."""

    def lines(self, prefix: str, limit: int | None) -> AsyncGenerator[bytes, None]:
        """Entries as lines of JSON, several in each piece, in byte order of keys."""


@asynccontextmanager
async def open_backend(
    config: Config, *, create: bool = False, read_only: bool = False
) -> AsyncIterator[Backend]:
    """The server at ``--url`` or, without that option, the database file.

    Args:
        create: make the database if it does not exist.
        read_only: the command only reads, so read access to the database suffices.
    """
    if config.url is not None:
        from tenantbase.cli.http import open_http_backend

        async with open_http_backend(config.url, config.tls_ca) as http:
            yield http
    else:
        from tenantbase.cli.local import LocalBackend
        from tenantbase.process.wiring import open_database, open_to_read

        opened: AbstractAsyncContextManager[Reader]
        opened = open_to_read(config) if read_only else open_database(config, create=create)
        async with opened as database:
            yield LocalBackend(database)
