"""The ``Backend`` that works on the database file."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from tenantbase import __version__
from tenantbase.access import Tenant, Token, TokenScope
from tenantbase.database import Database, Reader
from tenantbase.documents import applied_json, as_line, entry_json
from tenantbase.entry import Entry
from tenantbase.errors import NoSuchTenant
from tenantbase.interfaces.postgres.address import DatabaseAddress
from tenantbase.listing import KeyRange
from tenantbase.scope import DEFAULT, Scope


async def scope_of(database: Reader, tenant: str | None) -> Scope:
    """The keys of a tenant; None: those of ``default``. Raises NoSuchTenant."""
    if tenant is None:
        return DEFAULT
    if tenant not in (await database.current_access()).tenants:
        raise NoSuchTenant(tenant)
    return Scope(tenant)


class LocalBackend:
    """See ``backend.Backend``.

    Args:
        database: for the methods that read, a ``Reader`` is enough.
        scope: whose keys the commands work on.
        place: the database file, or where the server is.
    """

    def __init__(self, database: Reader, scope: Scope, place: Path | DatabaseAddress) -> None:
        self._path = os.path.realpath(place) if isinstance(place, Path) else None
        self._database = database
        self._scope = scope

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
        database = self._writable()
        draft = database.draft(
            self._scope, key, content_type, ttl=ttl, if_absent=if_absent, if_version=if_version
        )
        return applied_json(key, await database.put(self._scope, draft, value))

    async def get(self, key: str) -> tuple[bytes, str] | None:
        entry = (await self._database.get(self._scope, key)).entry
        return None if entry is None else (entry.value, entry.content_type)

    async def delete(self, key: str, *, if_version: int | None) -> None:
        await self._writable().delete(self._scope, key, if_version=if_version)

    async def touch(self, key: str, *, ttl: float | None, if_version: int | None) -> bytes:
        touched = self._writable().touch(self._scope, key, ttl=ttl, if_version=if_version)
        return applied_json(key, await touched)

    async def lines(self, wanted: KeyRange, limit: int | None) -> AsyncGenerator[bytes, None]:
        plain = self._scope.plain
        async for items, _ in self._database.scan(self._scope, wanted, limit=limit):
            entries = [item for item in items if isinstance(item, Entry)]
            yield b"".join(as_line(entry_json(each.key[plain], each)) for each in entries)

    async def stats(self) -> dict[str, object]:
        tenants = await self._database.tenants()
        shared = None
        if self._path is None:
            size = await self._writable().size()
            database_bytes, log_bytes = size.database_bytes, size.log_bytes
            shared = msgspec.to_builtins(size.server)
        else:
            database_bytes, log_bytes = _size(self._path), _size(f"{self._path}-wal")
        return {
            "version": __version__,
            "store": {
                "entries": sum(each.entries for each in tenants),
                "bytes": sum(each.bytes for each in tenants),
                "database_bytes": database_bytes,
                "log_bytes": log_bytes,
                "shared": shared,
            },
        }

    async def count(self, prefix: str) -> tuple[int, int]:
        entries = size = 0
        place = None
        while True:
            counted = await self._database.count(self._scope, prefix, place)
            entries, size, place = (
                entries + counted.entries,
                size + counted.bytes,
                counted.after,
            )
            if place is None:
                return entries, size

    async def tenants(self) -> Sequence[Tenant]:
        return await self._database.tenants()

    async def put_tenant(self, name: str, limits: Mapping[str, int | None]) -> None:
        await self._writable().put_tenant(name, **limits)

    async def delete_tenant(self, name: str) -> None:
        await self._writable().delete_tenant(name)

    async def tokens(self) -> Sequence[Token]:
        return await self._database.tokens()

    async def create_token(
        self,
        name: str,
        scope: TokenScope,
        *,
        tenant: str | None,
        prefix: str | None,
        ttl: float | None,
    ) -> tuple[str, str]:
        token, secret = await self._writable().create_token(name, scope, tenant, prefix, ttl)
        return token.id, secret

    async def revoke_token(self, id: str) -> None:
        await self._writable().revoke_token(id)

    def _writable(self) -> Database:
        assert isinstance(self._database, Database)  # commands that write open one
        return self._database


def _size(path: str) -> int:
    with suppress(FileNotFoundError):
        return os.stat(path).st_size
    return 0
