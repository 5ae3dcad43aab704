"""The operations of the command line, done on the database itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from tenantbase.documents import applied_json, as_line, entry_json
from tenantbase.database import Database, Reader
from tenantbase.scope import DEFAULT


class LocalBackend:
    """Operations as the command line has them: values as bytes, answers as lines of JSON.

    Every method raises TenantbaseError when the operation cannot be done or is refused.

    Args:
        database: a ``Reader`` that is no ``Database`` serves the methods that read.
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
        """Store a value. Returns: what ``POST /set-value`` answers."""
        database = self._writable()
        draft = database.draft(
            DEFAULT, key, content_type, ttl=ttl, if_absent=if_absent, if_version=if_version
        )
        return applied_json(await database.put(DEFAULT, draft, value))

    async def get(self, key: str) -> tuple[bytes, str] | None:
        """Returns: the value and its media type; None: there is no such key."""
        entry = (await self._database.get(DEFAULT, key)).entry
        return None if entry is None else (entry.value, entry.content_type)

    async def delete(self, key: str, *, if_version: int | None) -> None:
        """Remove a key; that it is absent already is no error."""
        await self._writable().delete(DEFAULT, key, if_version=if_version)

    async def lines(self, prefix: str, limit: int | None) -> AsyncGenerator[bytes, None]:
        """Entries as lines of JSON, some at a time, in byte order of keys."""
        async for entries, _ in self._database.scan(DEFAULT, prefix, limit=limit):
            yield b"".join(as_line(entry_json(entry)) for entry in entries)

    def _writable(self) -> Database:
        assert isinstance(self._database, Database)  # commands that write open one
        return self._database
