"""The operations of the command line, done on the database itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from tenantbase.documents import applied_json, as_line, entry_json
from tenantbase.entry import check_key, check_text, expiry
from tenantbase.errors import TooLarge
from tenantbase.interfaces.store import Condition, Delete, Set
from tenantbase.cli.reading import Entries


class LocalBackend:
    """Operations as the command line has them: values as bytes, answers as lines of JSON.

    Every method raises TenantbaseError when the operation cannot be done or is refused.

    Args:
        max_value_bytes: the largest value that may be set.
    """

    def __init__(self, cache: Entries, max_value_bytes: int) -> None:
        self._cache = cache
        self._max_value_bytes = max_value_bytes

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
        if len(value) > self._max_value_bytes:
            raise TooLarge(f"a value has at most {self._max_value_bytes:,} bytes", "value")
        (applied,) = await self._cache.write(
            Set(
                check_key(key),
                value,
                content_type,
                expiry(self._cache.now(), ttl, None),
                _condition(if_absent, if_version),
            )
        )
        return applied_json(applied)

    async def get(self, key: str) -> tuple[bytes, str] | None:
        """Returns: the value and its media type; None: there is no such key."""
        entry = (await self._cache.get(check_key(key))).entry
        return None if entry is None else (entry.value, entry.content_type)

    async def delete(self, key: str, *, if_version: int | None) -> None:
        """Remove a key; that it is absent already is no error."""
        await self._cache.write(Delete(check_key(key), _condition(False, if_version)))

    async def lines(self, prefix: str, limit: int | None) -> AsyncGenerator[bytes, None]:
        """Entries as lines of JSON, some at a time, in byte order of keys."""
        check_text(prefix, "prefix")
        async for entries, _ in self._cache.scan(prefix, limit=limit):
            yield b"".join(as_line(entry_json(entry)) for entry in entries)


def _condition(if_absent: bool, if_version: int | None) -> Condition | None:
    if not if_absent and if_version is None:
        return None
    versions = None if if_version is None else frozenset((if_version,))
    return Condition(absent=if_absent, versions=versions)
