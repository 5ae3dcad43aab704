"""The ``Backend`` that works on the database file."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from itertools import starmap

from tenantbase.database import Database, Reader
from tenantbase.documents import applied_json, as_line, entry_json
from tenantbase.scope import DEFAULT


class LocalBackend:
    """See ``backend.Backend``.

    Args:
        database: for the methods that read, a ``Reader`` is enough.
    """

    def __init__(self, database: Reader) -> None:
        self._database = database

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
            DEFAULT, key, content_type, ttl=ttl, if_absent=if_absent, if_version=if_version
        )
        return applied_json(key, await database.put(DEFAULT, draft, value))

    async def get(self, key: str) -> tuple[bytes, str] | None:
        entry = (await self._database.get(DEFAULT, key)).entry
        return None if entry is None else (entry.value, entry.content_type)

    async def delete(self, key: str, *, if_version: int | None) -> None:
        await self._writable().delete(DEFAULT, key, if_version=if_version)

    async def lines(self, prefix: str, limit: int | None) -> AsyncGenerator[bytes, None]:
        async for entries, _ in self._database.scan(DEFAULT, prefix, limit=limit):
            yield b"".join(map(as_line, starmap(entry_json, entries)))

    def _writable(self) -> Database:
        assert isinstance(self._database, Database)  # commands that write open one
        return self._database
