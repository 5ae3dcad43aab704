"""Entries from another database, stored many per transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from tenantbase.commands import Applied, Set
from tenantbase.errors import InvalidRequest
from tenantbase.json_requests import SetValue


class ImportBatch:
    """Entries to be stored together. Made by ``Database.import_batch``.

    Args:
        to_command: validates an entry and scopes its key.
        write: carries out commands in one transaction.
        now: the current time in Unix seconds.
    """

    def __init__(
        self,
        to_command: Callable[[SetValue], Set],
        write: Callable[[Sequence[Set]], Awaitable[Sequence[Applied]]],
        now: Callable[[], float],
    ) -> None:
        self._to_command = to_command
        self._write = write
        self._now = now
        self._commands: list[Set] = []

    def __len__(self) -> int:
        return len(self._commands)

    def add(self, given: SetValue) -> None:
        """Add an entry, unless it has expired.

        Raises:
            InvalidRequest, TooLarge: it cannot be stored, or has conditions.
        """
        if given.if_absent or given.if_version is not None:
            raise InvalidRequest("an import has no conditions")
        if given.expires_at is not None and given.expires_at <= self._now():
            return
        self._commands.append(self._to_command(given))

    async def write(self) -> None:
        """Store the entries in one transaction. Raises as the writes of ``Database`` do."""
        await self._write(self._commands)
