"""Entries from another database, stored many per transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from tenantbase.commands import Applied, Set
from tenantbase.errors import InvalidRequest
from tenantbase.json_requests import SetValue


class ImportBatch:
    """Entries to be stored together. Made by ``Database.import_batch``.

    Args:
        to_commands: validates entries and scopes their keys.
        write: carries out commands in one transaction.
        now: the current time in Unix seconds.
    """

    def __init__(
        self,
        to_commands: Callable[[Sequence[SetValue]], Sequence[Set]],
        write: Callable[[Sequence[Set]], Awaitable[Sequence[Applied]]],
        now: Callable[[], float],
    ) -> None:
        self._to_commands = to_commands
        self._write = write
        self._now = now
        self._parts: list[Sequence[Set]] = []

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def add(self, given: Sequence[SetValue]) -> None:
        """Add entries, except those that have expired.

        Raises:
            InvalidRequest, TooLarge: one cannot be stored, or has conditions; none was added.
        """
        if any([each.if_absent or each.if_version is not None for each in given]):
            raise InvalidRequest("an import has no conditions")
        now = self._now()
        living = [each for each in given if each.expires_at is None or each.expires_at > now]
        self._parts.append(self._to_commands(living))

    async def write(self) -> None:
        """Store the entries in one transaction. Raises as the writes of ``Database`` do."""
        await self._write(self._transaction())

    def _transaction(self) -> Sequence[Set]:
        if len(self._parts) == 1:
            return self._parts[0]
        return [command for part in self._parts for command in part]
