"""The Protocol that the commands use, whether they work on a database file or a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from tenantbase.access import Tenant, Token, TokenScope
from tenantbase.listing import KeyRange
from tenantbase.process.config import Config

if TYPE_CHECKING:
    from tenantbase.database import Reader

Result = TypeVar("Result")

# Options of a command that opens the database itself.
OPENED: Final = (
    "database",
    "store_timeout",
    "store_confirm",
    "store_unreplicated",
    "write_timeout",
)
WHERE: Final = (*OPENED, "url", "tls_ca", "token", "token_file")
"""The options of every command that works on a backend."""


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

    async def touch(self, key: str, *, ttl: float | None, if_version: int | None) -> bytes:
        """Change when an entry expires; None: never. Returns: the answer of ``POST /touch-value``."""

    def lines(self, wanted: KeyRange, limit: int | None) -> AsyncGenerator[bytes, None]:
        """The entries of a range as lines of JSON, several in each piece."""

    async def count(self, prefix: str) -> tuple[int, int]:
        """Returns: how many entries there are, and the bytes of their keys and values."""

    async def stats(self) -> dict[str, object]:
        """The figures of ``GET /v1/stats``; for a database file, only those known without a server."""

    async def tenants(self) -> Sequence[Tenant]:
        """All tenants, in the order of their names."""

    async def put_tenant(self, name: str, limits: Mapping[str, int | None]) -> None:
        """Create a tenant, or change those of its limits that are given, by their names."""

    async def delete_tenant(self, name: str) -> None:
        """Remove a tenant, its entries and its tokens; removing an absent one is not an error."""

    async def tokens(self) -> Sequence[Token]:
        """All tokens, in the order of their creation."""

    async def create_token(
        self,
        name: str,
        scope: TokenScope,
        *,
        tenant: str | None,
        prefix: str | None,
        ttl: float | None,
    ) -> tuple[str, str]:
        """Make a token. Returns: its id, and its secret."""

    async def revoke_token(self, id: str) -> None:
        """Remove a token; removing an absent one is not an error."""


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

        async with open_http_backend(config) as http:
            yield http
    else:
        from tenantbase.cli.local import LocalBackend, scope_of
        from tenantbase.process.wiring import open_database, open_to_read
        from tenantbase.scope import DEFAULT

        create = create and config.tenant in (None, DEFAULT.tenant)  # it has no other tenant then
        opened: AbstractAsyncContextManager[Reader]
        opened = open_to_read(config) if read_only else open_database(config, create=create)
        async with opened as database:
            yield LocalBackend(database, await scope_of(database, config.tenant), config.database)


def run(
    config: Config,
    work: Callable[[Backend], Awaitable[Result]],
    *,
    create: bool = False,
    read_only: bool = False,
) -> Result:
    """Run a command's work on the backend that ``open_backend`` opens, in an event loop of its own."""

    async def session() -> Result:
        async with open_backend(config, create=create, read_only=read_only) as backend:
            return await work(backend)

    return asyncio.run(session())
