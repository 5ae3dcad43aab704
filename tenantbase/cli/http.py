"""The ``Backend`` that sends the commands' operations to a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from tenantbase.access import Tenant, TenantLimits, Token, TokenScope
from tenantbase.client import Client, Unauthenticated
from tenantbase.documents import as_line, entry_json
from tenantbase.entry import JSON, Entry
from tenantbase.errors import ConfigError, TenantbaseError
from tenantbase.listing import KeyRange
from tenantbase.pem import client_context
from tenantbase.process.config import Config
from tenantbase.scope import DEFAULT
from tenantbase.secret import Secret, bearer_token

_ATTEMPTS: Final = 3  # only a few: a user is waiting at the prompt
_PATIENCE_SECONDS: Final = 20.0  # for a rate limit: a list takes many requests
_TOKEN_FILE_BYTES: Final = 16 << 10  # the most to read of a file


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

    async def touch(self, key: str, *, ttl: float | None, if_version: int | None) -> bytes:
        return msgspec.json.encode(await self._client.touch(key, ttl=ttl, if_version=if_version))

    async def count(self, prefix: str) -> tuple[int, int]:
        total = await self._client.count(prefix)
        return total.entries, total.bytes

    async def lines(self, wanted: KeyRange, limit: int | None) -> AsyncGenerator[bytes, None]:
        listed = self._client.list(
            wanted.prefix,
            start=wanted.start,
            end=wanted.end,
            reverse=wanted.descending,
            limit=limit,
        )
        async for each in listed:
            entry = Entry(
                DEFAULT.key(each.key),
                each.raw,
                each.content_type,
                each.id,
                each.version,
                each.expires_at,
            )
            yield as_line(entry_json(each.key, entry))

    async def stats(self) -> dict[str, object]:
        return dict(msgspec.to_builtins(await self._client.stats()))

    async def tenants(self) -> Sequence[Tenant]:
        return [
            Tenant(
                each.name,
                each.entries,
                each.bytes,
                TenantLimits(
                    max_entries=each.max_entries,
                    max_bytes=each.max_bytes,
                    max_requests_per_second=each.max_requests_per_second,
                ),
            )
            for each in await self._client.tenants()
        ]

    async def put_tenant(self, name: str, limits: Mapping[str, int | None]) -> None:
        await self._client.put_tenant(name, **limits)

    async def delete_tenant(self, name: str) -> None:
        await self._client.delete_tenant(name)

    async def tokens(self) -> Sequence[Token]:
        return await self._client.tokens()

    async def create_token(
        self,
        name: str,
        scope: TokenScope,
        *,
        tenant: str | None,
        prefix: str | None,
        ttl: float | None,
    ) -> tuple[str, str]:
        made = await self._client.create_token(name, scope, tenant=tenant, prefix=prefix, ttl=ttl)
        return made.id, made.token

    async def revoke_token(self, id: str) -> None:
        await self._client.revoke_token(id)


@asynccontextmanager
async def open_http_backend(config: Config) -> AsyncIterator[HttpBackend]:
    """A client of the server at ``--url``. Nothing is sent yet.

    Raises:
        ConfigError: the file of ``--tls-ca`` or ``--token-file`` cannot be used.
    """
    assert config.url is not None
    context = None if config.tls_ca is None else client_context(config.tls_ca)
    token = _token(config)
    async with Client(
        config.url,
        token=token,
        tenant=config.tenant,
        ssl=context,
        attempts=_ATTEMPTS,
        wait_when_limited=_PATIENCE_SECONDS,
    ) as client:
        try:
            yield HttpBackend(client)
        except Unauthenticated as error:
            raise TenantbaseError(
                "the server requires a token: give it as TENANTBASE_TOKEN or --token-file"
                if token is None
                else "the server does not accept the token: it is unknown, revoked or expired"
            ) from error


def _token(config: Config) -> Secret | None:
    path = config.token_file
    if path is None:
        return config.token
    try:
        with path.open("rb") as file:
            text = file.read(_TOKEN_FILE_BYTES)
    except OSError as error:
        raise ConfigError(f"--token-file: {path} cannot be read: {error.strerror}") from error
    try:
        return bearer_token(text.decode().strip())
    except ValueError:
        raise ConfigError(
            f"--token-file: {path} does not hold one token and nothing else"
        ) from None
